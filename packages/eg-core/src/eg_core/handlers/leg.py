"""One raw non-blocking socket on the loop, TLS or not, and what all of them share.

A ``Leg`` is one end of a splice: the client's or the launcher's. It reads into a buffer that is the caller's, and keeps
in ``out`` what the socket did not take yet. What happens with it is its *owner's* business, who changes while it lives:
``Hold`` while the kernel starts, ``Splice`` then, ``Farewell`` at the end. asyncio's transports are not used: with TLS
they cost 300 KiB a connection for life. ``Switchboard`` is what the legs of one gateway share.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from eg_core.metrics import Metrics

BUFFER_SIZE = 256 * 1024
HIGH_WATER = 256 * 1024
"""Bytes in ``out`` from which on the other leg is not read."""
LOW_WATER = 64 * 1024
PING_EVERY = 25.0
"""Seconds; Python's ``websockets`` and many proxies give up on a connection that is silent for longer."""
DEAD_PEER = 120
"""Seconds after which a peer that acknowledges nothing is gone."""

_AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class LegOwner(Protocol):
    """Who reads a leg, and is told about it. A leg that has ended (``eof``) is told by ``readable``."""

    def readable(self, leg: Leg) -> None: ...

    def drained(self, leg: Leg) -> None:
        """``leg.out`` has fallen to the low-water mark or, further on, to nothing."""

    def broken(self, leg: Leg) -> None:
        """Writing failed: the peer is gone."""


class Timer:
    """A call to come; ``cancel()`` is cheap."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Timers:
    """All timers of the channels in one heap behind one timer of the loop: pings of held sockets, last graces."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._armed: asyncio.TimerHandle | None = None

    def after(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        entry = (self._loop.time() + delay, next(self._numbers), timer)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._arm()
        return timer

    def close(self) -> None:
        self._heap.clear()
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed = self._loop.call_at(self._heap[0][0], self._run) if self._heap else None

    def _run(self) -> None:
        now = self._loop.time()
        try:
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].callback is None):
                callback = heapq.heappop(self._heap)[2].callback
                if callback is not None:
                    callback()
        finally:
            self._arm()


class Switchboard:
    """What the channels of one gateway share: the loop, the one read buffer, the timers, and all open legs."""

    def __init__(self, ping_every: float = PING_EVERY, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics()
        self.ping_every = ping_every  # seconds; of clients that are held
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)
        self.timers = Timers(self.loop)
        self.legs: set[Leg] = set()
        self.to_clients = 0  # bytes that splices have carried, for the metrics
        self.to_launchers = 0
        self._empty = asyncio.Event()

    def forget(self, leg: Leg) -> None:
        self.legs.discard(leg)
        if not self.legs:
            self._empty.set()

    async def drained(self, timeout: float) -> None:
        """Return when every leg has ended, at latest after ``timeout`` seconds."""
        self._empty.clear()
        if self.legs:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)

    def close(self) -> None:
        """Cut whatever is left; close codes have been said before."""
        self.timers.close()
        for leg in tuple(self.legs):
            leg.close()


class Leg:
    __slots__ = ("_reading", "_sock", "_tls", "_writing", "board", "eof", "failed", "out", "owner")

    def __init__(self, board: Switchboard, sock: socket.socket, owner: LegOwner) -> None:
        sock.setblocking(False)
        keep_watch(sock)
        self.board = board
        self.owner = owner
        self.out = bytearray()
        self.eof = False
        self.failed = False
        self._sock: socket.socket | None = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._reading = False
        self._writing = False
        board.legs.add(self)

    @property
    def closed(self) -> bool:
        return self._sock is None

    # -- reading ---------------------------------------------------------------------------------------------

    def resume(self) -> None:
        if self._reading or self._sock is None:
            return
        self._reading = True
        self.board.loop.add_reader(self._sock.fileno(), self._on_readable)
        if self._tls:  # what OpenSSL has decrypted already wakes no selector
            self.board.loop.call_soon(self._on_readable)

    def pause(self) -> None:
        if self._reading and self._sock is not None:
            self._reading = False
            self.board.loop.remove_reader(self._sock.fileno())

    def fill(self, view: memoryview) -> int:
        """Read what is there, as far as it fits; 0 if nothing is (``eof`` says whether anything will)."""
        if self._sock is None:
            return 0
        try:
            if self._tls:
                return self._gather(self._sock, view)
            got = self._sock.recv_into(view)
        except _AGAIN:
            return 0
        except OSError:
            got = 0
        if not got:
            self.eof = True
        return got

    def _gather(self, sock: socket.socket, view: memoryview) -> int:
        """TLS hands out one record (16 KiB) at a time: gather them, so that one write takes all."""
        size = 0
        while size < len(view):
            try:
                got = sock.recv_into(view[size:])
            except ssl.SSLWantWriteError:  # it has an answer of its own to send first
                self._want_write()
                break
            except _AGAIN:
                break
            except OSError:
                got = 0
            if not got:
                self.eof = True
                break
            size += got
        return size

    def again(self) -> None:
        """Call the reader once more soon if the selector might not: TLS may hold decrypted bytes."""
        if self._tls and self._reading:
            self.board.loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        if self._reading:
            self.owner.readable(self)

    # -- writing ---------------------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write what the socket takes, keep the rest. A failure is told to the owner, from within."""
        if self._sock is None or self.failed:
            return
        if self.out:
            self.out += data
            return
        try:
            sent = self._sock.send(data)
        except _AGAIN:
            sent = 0
        except OSError:
            self._fail()
            return
        if sent < len(data):
            self.out += memoryview(data)[sent:]
            self._want_write()

    def _want_write(self) -> None:
        if not self._writing and self._sock is not None:
            self._writing = True
            self.board.loop.add_writer(self._sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        if self._sock is None:
            return
        before = len(self.out)
        if self.out:
            try:
                # TLS: a write that is tried again holds at least what the failed one held; it may only have grown.
                sent = self._sock.send(self.out)
            except _AGAIN:
                return
            except OSError:
                self._fail()
                return
            del self.out[:sent]
        if not self.out:
            self._writing = False
            self.board.loop.remove_writer(self._sock.fileno())
        if before == 0 or not self.out or len(self.out) <= LOW_WATER < before:
            self.again()
            self.owner.drained(self)

    def _fail(self) -> None:
        self.failed = True
        self.out.clear()
        if self._writing and self._sock is not None:
            self._writing = False
            self.board.loop.remove_writer(self._sock.fileno())
        self.owner.broken(self)

    def half_close(self) -> None:
        """Say that nothing more will come. TLS has no such thing that peers understand."""
        if self._sock is not None and not self._tls:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it is gone, which reading will tell

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._reading:
            self.board.loop.remove_reader(sock.fileno())
        if self._writing:
            self.board.loop.remove_writer(sock.fileno())
        self._reading = self._writing = False
        self.out.clear()
        self.board.forget(self)
        sock.close()


class Farewell:
    """The last owner of a leg: writes what is held, discards what still comes, closes.

    A socket closed with unread input sends RST, which can take away what the peer has not read yet; so its end
    is awaited, for ``grace`` seconds. With ``at_once`` there is nothing to wait for once all is written.
    """

    __slots__ = ("_at_once", "_half_close", "_leg", "_timer")

    def __init__(self, leg: Leg, *, grace: float, at_once: bool = False, half_close: bool = False) -> None:
        self._leg = leg
        self._at_once = at_once
        self._half_close = half_close
        self._timer = leg.board.timers.after(grace, self._end)
        leg.owner = self
        if leg.eof:
            leg.pause()
        else:
            leg.resume()
        if not leg.out:
            self._written()

    def readable(self, leg: Leg) -> None:
        size = leg.fill(leg.board.view)
        if leg.eof:
            self._end()
        elif size == len(leg.board.view):
            leg.again()

    def drained(self, leg: Leg) -> None:
        if not leg.out:
            self._written()

    def broken(self, leg: Leg) -> None:
        del leg
        self._end()

    def _written(self) -> None:
        if self._at_once or self._leg.eof:
            self._end()
        elif self._half_close:
            self._leg.half_close()

    def _end(self) -> None:
        self._timer.cancel()
        self._leg.close()


def keep_watch(sock: socket.socket) -> None:
    """Small messages at once, and a peer that vanished is noticed."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_NODELAY", 1),
        ("TCP_KEEPIDLE", DEAD_PEER // 2),
        ("TCP_KEEPINTVL", DEAD_PEER // 8),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", DEAD_PEER * 1000),
    ):
        option = getattr(socket, name, None)  # Linux has them all
        if option is not None:
            _try_option(sock, option, value)


def _try_option(sock: socket.socket, option: int, value: int) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        pass  # the peer has reset it already, which reading will tell
