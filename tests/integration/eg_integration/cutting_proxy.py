"""A reverse proxy on which connections break as they do in the world: reset, half-open, or in the midst of a replay.

It looks at the head of each request to say where it goes (``route``) and to name what becomes a WebSocket (a
``Tunnel``); from there on it copies bytes and knows nothing of frames. It lives in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from eg_integration.waiting import wait_until

T = TypeVar("T")

CHANNELS = re.compile(r"/api/kernels/[^/]+/channels\b")
_HEAD = 64 * 1024
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Upstream:
    """``token``: what the proxy puts in place of the client's own, as one does that knows its users by itself."""

    url: str
    token: str | None = None


class Tunnel:
    """A WebSocket to a kernel that passes here, as two TCP connections."""

    def __init__(self, path: str, client: asyncio.StreamWriter, server: asyncio.StreamWriter, limit: int) -> None:
        self.path = path
        self.down = self.up = 0  # bytes that have been passed on, to the client and to the server
        self.mute = False
        self._limit = limit
        self._ends = client, server

    def reset(self) -> None:
        """Both ends learn of it at once, and lose what they have not read yet."""
        for end in self._ends:
            reset(end)

    def forsake(self) -> None:
        """The client's end only."""
        reset(self._ends[0])

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                if self.mute:
                    continue  # acknowledged by TCP, seen by nobody
                if down and self._limit and self.down + len(data) >= self._limit:
                    data = data[: self._limit - self.down]
                    self._limit = 0
                    writer.write(data)
                    await writer.drain()
                    self.down += len(data)
                    self.reset()
                    return
                writer.write(data)
                await writer.drain()
                if down:
                    self.down += len(data)
                else:
                    self.up += len(data)
        if not self.mute:  # the end of one is the end of the other
            self._ends[0].close()
            self._ends[1].close()


class CuttingProxy:
    """``route`` says for a path where its request goes, and is asked again for each."""

    def __init__(self, route: Callable[[str], Upstream]) -> None:
        self._route = route
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._limits: list[int] = []
        self._tunnels: list[Tunnel] = []
        self.port = 0
        self.opened = 0

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- what goes wrong

    def listen(self) -> None:
        """Take connections; after ``refuse`` on the same port."""
        self._call(self._listen())

    def refuse(self) -> None:
        """Refuse new connections, as when nobody listens there. Those that are stay."""
        self._call(self._refuse())

    def cut(self) -> None:
        """Reset all WebSockets to kernels, so that both ends know. There must be one."""
        assert self._run(self._cut), "no WebSocket to cut"

    def half_open(self) -> None:
        """All WebSockets to kernels that are here carry nothing any more, and neither end is told; until ``cut``."""
        assert self._run(self._mute), "no WebSocket to make half-open"

    def forsake(self) -> None:
        """The clients' ends of all WebSockets to kernels are reset; the servers' are half-open until ``cut``."""
        assert self._run(self._forsake), "no WebSocket to forsake"

    def cut_next_after(self, size: int) -> None:
        """The next WebSocket to a kernel is reset as soon as it has carried so many bytes to the client."""
        self._limits.append(size)

    @property
    def tunnels(self) -> list[Tunnel]:
        """The WebSockets to kernels that are open."""
        return self._run(lambda: list(self._tunnels))

    def wait_opened(self, since: int, timeout: float = 60) -> None:
        """Until a WebSocket to a kernel has been opened after ``opened`` was ``since``, and carries something."""
        wait_until(
            lambda: self.opened > since and any(one.down for one in self.tunnels if not one.mute),
            f"a new WebSocket to a kernel (there were {since}, are {self.opened})",
            timeout,
        )

    # -- in the thread

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def _run(self, function: Callable[[], T]) -> T:
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(20)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> int:
        cut = list(self._tunnels)
        for one in cut:
            one.reset()
        return len(cut)

    def _mute(self) -> int:
        for one in self._tunnels:
            one.mute = True
        return len(self._tunnels)

    def _forsake(self) -> int:
        count = self._mute()
        for one in self._tunnels:
            one.forsake()
        return count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._request(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            reset(writer)  # nobody is there: the client sees no answer, not one of the proxy's own
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ", 2)[1]
        upstream = self._route(path)
        where = urlsplit(upstream.url)
        there, to = await asyncio.open_connection(where.hostname, where.port)
        try:
            upgrade = re.search(r"^Upgrade:\s*websocket\s*$", head, re.IGNORECASE | re.MULTILINE) is not None
            to.write(_rewritten(head, upstream.token, close=not upgrade).encode("latin-1"))
            length = re.search(r"^Content-Length:\s*(\d+)", head, re.IGNORECASE | re.MULTILINE)
            if length:
                to.write(await reader.readexactly(int(length[1])))
            await to.drain()
            if upgrade:
                await self._tunnel(path, (reader, writer), (there, to))
            else:
                while data := await there.read(_PIECE):
                    writer.write(data)
                    await writer.drain()
        finally:
            to.close()

    async def _tunnel(
        self,
        path: str,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        kernels = CHANNELS.search(path) is not None
        one = Tunnel(path, client[1], server[1], self._limits.pop(0) if kernels and self._limits else 0)
        if kernels:
            self._tunnels.append(one)
            self.opened += 1
        try:
            await asyncio.gather(one.copy(client[0], server[1], down=False), one.copy(server[0], client[1], down=True))
        finally:
            if kernels:
                self._tunnels.remove(one)


def cut(proxies: Iterable[CuttingProxy]) -> None:
    """Cut each, and wait until its client has come back."""
    for proxy in proxies:
        opened = proxy.opened
        proxy.cut()
        proxy.wait_opened(opened)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _rewritten(head: str, token: str | None, *, close: bool) -> str:
    """One request a connection, unless it becomes a WebSocket; the upstream's own token."""
    first, *lines = head[:-4].split("\r\n")
    drop = {"connection"} if close else set()
    if token is not None:
        drop |= {"authorization", "cookie"}
        first = re.sub(r"([?&])token=[^&\s]*&?", r"\1", first)
    lines = [line for line in lines if line.split(":", 1)[0].strip().lower() not in drop]
    lines += ["Connection: close"] if close else []
    lines += [f"Authorization: token {token}"] if token is not None else []
    return "\r\n".join([first, *lines, "", ""])
