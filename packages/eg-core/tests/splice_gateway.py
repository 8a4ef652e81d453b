"""A gateway in a process of its own, so that its memory can be measured.

    splice_gateway.py LAUNCHER_PORT [LAUNCHERS_CA [OWN_CERTIFICATE_AND_KEY]]

Prints its port and ends with its standard input.
"""

import asyncio
import ssl
import sys

from eg_core.launchers.client import LauncherClient
from eg_core.tls import server_context
from splice_support import Gateway, StandInKernel, connector


async def main() -> None:
    context = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None
    certificate = sys.argv[3] if len(sys.argv) > 3 else None
    own = server_context(certfile=certificate, keyfile=None, client_ca=None, ssl_version=None)
    gateway = Gateway(StandInKernel(LauncherClient(connector(int(sys.argv[1]), context), "t")), own)
    print(gateway.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await gateway.stop()


asyncio.run(main())
