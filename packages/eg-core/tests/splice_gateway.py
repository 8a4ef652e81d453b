"""A gateway in a process of its own, so that its memory can be measured: ``splice_gateway.py LAUNCHER_PORT [CA]``.

Prints its port and ends with its standard input.
"""

import asyncio
import ssl
import sys

from eg_core.launchers.client import LauncherClient
from splice_support import Gateway, StandInKernel, connector


async def main() -> None:
    context = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None
    gateway = Gateway(StandInKernel(LauncherClient(connector(int(sys.argv[1]), context), "t")))
    print(gateway.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await gateway.stop()


asyncio.run(main())
