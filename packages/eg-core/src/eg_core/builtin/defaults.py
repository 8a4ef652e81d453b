"""What the core answers where a backend has no answer of its own: find, dial, interrupt."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping

from eg_core import aio
from eg_core.errors import BackendUnavailable
from eg_core.hookspecs import hookimpl
from eg_core.types import Endpoint, KernelHandle, ProcessInfo

DIAL_TIMEOUT = 10.0
BACKLOG_PAUSE = 0.01


class Defaults:
    """The last to be asked."""

    @hookimpl(trylast=True)
    async def eg_discover_connection(self, handle: KernelHandle) -> Endpoint:
        stored = handle.state.get("endpoint")
        if isinstance(stored, Mapping):
            if isinstance(stored.get("path"), str):
                return Endpoint(path=stored["path"])
            if isinstance(stored.get("host"), str) and isinstance(stored.get("port"), int):
                return Endpoint(host=stored["host"], port=stored["port"])
        raise BackendUnavailable("It is not known yet where the kernel's launcher listens.", reason="no_endpoint")

    @hookimpl(trylast=True)
    async def eg_connect_launcher(self, endpoint: Endpoint) -> socket.socket:
        try:
            dial = _dial_unix(endpoint.path) if endpoint.path is not None else _dial_tcp(endpoint)
            return await aio.within(DIAL_TIMEOUT, dial)
        except TimeoutError as error:
            raise _unreachable(endpoint, f"no answer in {DIAL_TIMEOUT:g} s") from error
        except OSError as error:
            raise _unreachable(endpoint, error.strerror or str(error)) from error

    @hookimpl(trylast=True)
    async def eg_interrupt_kernel(self, handle: KernelHandle, process: ProcessInfo | None) -> bool:
        return False


def _unreachable(endpoint: Endpoint, why: str) -> BackendUnavailable:
    return BackendUnavailable(f"The launcher at {endpoint} cannot be reached: {why}.", reason="launcher_unreachable")


async def _dial_unix(path: str) -> socket.socket:
    """Connect to a Unix socket. A full backlog says EAGAIN, which is no connection in progress: try again."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0))
        try:
            sock.setblocking(False)
            sock.connect(path)
            return sock
        except OSError as error:
            sock.close()
            if error.errno != errno.EAGAIN:
                raise
        await asyncio.sleep(BACKLOG_PAUSE)


async def _dial_tcp(endpoint: Endpoint) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{endpoint.host} has no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure
