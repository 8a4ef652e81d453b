"""A raw non-blocking socket as a stream of bytes, TLS or not, with a deadline on every wait.

Only for what precedes a splice: HTTP heads, bodies, handshakes. asyncio's streams are not used, because the socket
is taken out again (``take``), and asyncio never gives one with TLS back.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_CHUNK = 64 * 1024
HANDSHAKE_TIMEOUT = 10.0


async def start_tls(
    sock: socket.socket, context: ssl.SSLContext, server_hostname: str, *, timeout: float = HANDSHAKE_TIMEOUT
) -> ssl.SSLSocket:
    """Do the client's handshake on a connected socket. On failure the socket is closed."""
    sock.setblocking(False)
    try:
        wrapped = context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
    except BaseException:
        sock.close()
        raise
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        await _retry(wrapped, wrapped.do_handshake, deadline)
    except BaseException:
        wrapped.close()
        raise
    return wrapped


class SocketStream:
    """``deadline`` (the loop's clock) bounds every wait: TimeoutError after it. OSError when the peer is gone."""

    def __init__(self, sock: socket.socket, *, deadline: float | None = None) -> None:
        sock.setblocking(False)
        self._sock: socket.socket | None = sock
        self._ahead = bytearray()
        self.deadline = deadline

    async def read(self, n: int = _CHUNK) -> bytes:
        """Up to ``n`` bytes; nothing at the end."""
        if self._ahead:
            data = bytes(self._ahead[:n])
            del self._ahead[:n]
            return data
        sock = self._open()
        return await _retry(sock, lambda: sock.recv(n), self.deadline)

    async def read_until(self, delimiter: bytes, limit: int) -> bytes:
        """Everything up to and with ``delimiter``; ValueError when that is more than ``limit`` bytes.

        EOFError when the stream ends before.
        """
        while True:
            at = self._ahead.find(delimiter)
            if at >= 0 and at + len(delimiter) <= limit:
                end = at + len(delimiter)
                data = bytes(self._ahead[:end])
                del self._ahead[:end]
                return data
            if at >= 0 or len(self._ahead) >= limit:
                raise ValueError(f"more than {limit} bytes")
            await self._read_ahead()

    async def read_exactly(self, n: int) -> bytes:
        while len(self._ahead) < n:
            await self._read_ahead()
        data = bytes(self._ahead[:n])
        del self._ahead[:n]
        return data

    async def send_all(self, data: bytes) -> None:
        sock, left = self._open(), memoryview(data)
        while left:
            # TLS wants a write that would block repeated with the same bytes, which _retry does.
            sent = await _retry(sock, functools.partial(sock.send, left), self.deadline, writing=True)
            left = left[sent:]

    def take(self) -> tuple[socket.socket, bytes]:
        """The socket, and what was read ahead of it; the stream has neither any more."""
        sock, ahead = self._open(), bytes(self._ahead)
        self._sock = None
        self._ahead.clear()
        return sock, ahead

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _open(self) -> socket.socket:
        if self._sock is None:
            raise OSError("the stream is closed")
        return self._sock

    async def _read_ahead(self) -> None:
        sock = self._open()
        data = await _retry(sock, lambda: sock.recv(_CHUNK), self.deadline)
        if not data:
            raise EOFError
        self._ahead += data


async def _retry(sock: socket.socket, call: Callable[[], _T], deadline: float | None, *, writing: bool = False) -> _T:
    """Call until it no longer would block."""
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            await _ready(sock, deadline, writing=False)
        except ssl.SSLWantWriteError:
            await _ready(sock, deadline, writing=True)
        except BlockingIOError:
            await _ready(sock, deadline, writing=writing)


async def _ready(sock: socket.socket, deadline: float | None, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    fd = sock.fileno()
    timer = loop.call_at(deadline, _expire, future) if deadline is not None else None
    if writing:
        loop.add_writer(fd, _wake, future)
    else:
        loop.add_reader(fd, _wake, future)
    try:
        await future
    finally:
        if timer is not None:
            timer.cancel()
        if writing:
            loop.remove_writer(fd)
        else:
            loop.remove_reader(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
