"""Client and launcher, byte for byte: after the two handshakes the gateway copies and does not look.

``take_socket`` gets the socket out of tornado. ``Splice`` copies both ways with back-pressure: what one leg does
not take waits in its ``out``, and from 256 KiB on the other leg is not read, so a slow client holds half a MiB of the
gateway whatever its kernel does. ``FrameBoundary`` follows the headers, and only the headers, of what goes to the
client, so that the splice knows when it stands between two frames and may say a Close frame of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from eg_core.handlers.kept import Kept
from eg_core.handlers.leg import HIGH_WATER, LOW_WATER, Farewell, Leg, Switchboard
from eg_launcher.websocket import Opcode, close_payload, frame_header
from eg_launcher.wire import CLOSE_RESTART, parse_ping

if TYPE_CHECKING:
    from tornado.iostream import IOStream

ROUNDS = 8
"""Reads per wake-up, so that one busy kernel does not keep the others waiting."""
TICK = 0.1
STALLED_TICKS = 5
"""A closing splice that moves nothing for so many ticks is cut: half a second."""
CLOSING_MAX = 10.0
CLOSE_GRACE = 0.5
"""Seconds a client has to answer a Close frame before its socket is closed."""
FLUSH_GRACE = 5.0

_CLOSE_BYTE = 0x80 | Opcode.CLOSE
_PING_BYTE = 0x80 | Opcode.PING


def take_socket(stream: IOStream | Any) -> tuple[socket.socket, bytes] | None:
    """Take the socket out of a detached tornado stream, with what tornado has read ahead; None if it is closed.

    An ``SSLSocket`` stays one. tornado has no public way to do this; ``test_splice.py`` fails when it changes.
    """
    if stream.closed():
        return None
    if stream.writing() or stream.reading():
        raise RuntimeError("the stream is in use")
    ahead = bytes(memoryview(stream._read_buffer)[: stream._read_buffer_size])
    stream.set_close_callback(None)
    if stream._state is not None:
        stream.io_loop.remove_handler(stream.fileno())
        stream._state = None
    sock, stream.socket, stream._closed = stream.socket, None, True
    return sock, ahead


def control_frame(opcode: Opcode, payload: bytes) -> bytes:
    return frame_header(opcode, len(payload)) + payload


def close_frame(code: int, reason: str) -> bytes:
    return control_frame(Opcode.CLOSE, close_payload(code, reason))


class FrameBoundary:
    """Where a stream of unmasked frames stands; about 0.3 µs a frame.

    ``place`` is the launcher's last ping (``wire.parse_ping``) when it names one, and ``behind`` the number of data
    frames since: where a new leg can go on.
    """

    __slots__ = ("_head", "_left", "_ping", "_ping_left", "behind", "closed", "fragmented", "place", "received",
                 "replayed")  # fmt: skip

    def __init__(self) -> None:
        self._ping = b""  # the payload of one that was cut by a read
        self._ping_left = 0
        self.place: tuple[str, int, int, int] | None = None
        self.behind = 0
        self.replayed: Callable[[], None] | None = None
        """Called at the first ping that names a place: all that was missed is before it."""
        self.received = 0
        """Data frames of the client that the launcher has."""
        self._left = 0  # bytes of the present frame's payload still to come
        self._head = b""  # the beginning of a header that was cut by a read
        self.closed = False
        """A Close frame has passed: nothing may follow it."""
        self.fragmented = False
        """A message has begun whose last fragment has not: only control frames may come between."""

    @property
    def between(self) -> bool:
        return not self._left and not self._head

    def feed(self, data: bytes | bytearray, size: int) -> None:
        """Follow ``data[:size]``."""
        at = 0
        if self._head:
            missing = _header_size(self._head, len(self._head), 0) - len(self._head)
            while missing > 0 and at < size:
                self._head += data[at : min(at + missing, size)]
                at = min(at + missing, size)
                missing = _header_size(self._head, len(self._head), 0) - len(self._head)
            if missing > 0:
                return
            head, self._head = self._head, b""
            self._left = self._payload(head, 0)
        if self._ping_left:
            self._hear(data[at : min(at + self._left, size)])
        at += self._left
        while at < size:
            have = size - at
            if have < 10:
                need = _header_size(data, have, at)
                if have < need:
                    self._head = bytes(data[at:size])
                    self._left = 0
                    return
            # _payload() and _header_size(), inline: this runs once for every message of every kernel.
            first, length = data[at], data[at + 1]
            if first in (0x81, 0x82):
                self.behind += 1
            else:  # not a whole message
                self._note(first, data[at + 2 : min(at + 2 + length, size)], length)
            if length < 126:
                at += 2 + length
            elif length == 126:
                at += 4 + (data[at + 2] << 8 | data[at + 3])
            else:
                at += 10 + int.from_bytes(data[at + 2 : at + 10], "big")
        self._left = at - size

    def _payload(self, head: bytes, at: int) -> int:
        length = head[at + 1]
        if head[at] in (0x81, 0x82):
            self.behind += 1
        else:
            self._note(head[at], b"", length)
        return length if length < 126 else int.from_bytes(head[at + 2 :], "big")

    def _note(self, first: int, payload: bytes | bytearray, length: int) -> None:
        if first == _PING_BYTE:
            self._ping, self._ping_left = b"", length
            self._hear(payload)
        elif first & 0x08:
            self.closed = self.closed or first == _CLOSE_BYTE
        else:
            self.behind += 1
            self.fragmented = not first & 0x80

    def _hear(self, payload: bytes | bytearray) -> None:
        """So much more of a ping's payload."""
        self._ping += payload
        if len(self._ping) < self._ping_left:
            return
        ping = parse_ping(self._ping)
        self._ping, self._ping_left = b"", 0
        if ping is not None:
            self.place = ping if ping[2] else None
            self.behind, self.received = 0, ping[3]
            if ping[2] and self.replayed is not None:
                replayed, self.replayed = self.replayed, None
                replayed()


def _header_size(data: bytes | bytearray, have: int, at: int) -> int:
    """How long the header at ``at`` is, as far as ``have`` bytes tell."""
    if have < 2:
        return 2
    length = data[at + 1]
    return 2 if length < 126 else 4 if length == 126 else 10


class SpliceOwner(Protocol):
    def launcher_lost(self) -> None:
        """The launcher's leg ended between two frames, and no Close frame was said: say ``finish`` soon."""

    def ended(self) -> None:
        """Both legs are closed, or are being closed."""


class Splice:
    """The client's leg and the launcher's socket become its own; it ends with both closed."""

    __slots__ = ("_board", "_boundary", "_client", "_closing", "_deadline", "_kept", "_launcher", "_moved", "_owner",
                 "_seen", "_stalls")  # fmt: skip

    def __init__(self, board: Switchboard, client: Leg, launcher: socket.socket, owner: SpliceOwner) -> None:
        self._board = board
        self._client = client
        self._launcher = Leg(board, launcher, self)
        self._owner: SpliceOwner | None = owner
        self._boundary = FrameBoundary()
        self._kept = Kept()
        self._moved = 0
        self._seen = (0, 0)
        self._stalls = 0
        self._deadline = 0.0
        self._closing: tuple[int, str, bytes] | None = None

    def start(self, *, from_client: list[bytes], from_launcher: bytes) -> None:
        """Send what was read before there was a splice, and copy."""
        self._client.owner = self
        began = self._board.loop.time()
        self._boundary.replayed = lambda: self._board.metrics.replayed(self._board.loop.time() - began)
        self._boundary.feed(from_launcher, len(from_launcher))
        if from_launcher:
            self._board.to_clients += len(from_launcher)
            self._client.send(from_launcher)
        if from_client:
            held = b"".join(from_client)
            self._board.to_launchers += len(held)
            self._kept.feed(held)
            self._launcher.send(held)
        self._read_both()

    @property
    def traffic(self) -> int:
        """Bytes so far, both ways."""
        return self._moved + self._kept.seen

    @property
    def unread(self) -> bytes:
        """The client's frames that the launcher is not known to have, as far as they are kept."""
        return self._kept.unread

    def resume_at(self) -> dict[str, str] | None:
        """Where a new launcher's leg is to go on, as the protocol's query; None when it cannot."""
        boundary = self._boundary
        if boundary.place is None or boundary.fragmented or not boundary.between or not self._kept.resumable:
            return None
        epoch, number, serial, _ = boundary.place
        return {"after": f"{epoch}.{number}.{serial}", "skip": str(boundary.behind)}

    def relink(self, launcher: socket.socket, ahead: bytes, received: int) -> bool:
        """Go on with a new launcher's leg. False: what it has not received is not known any more."""
        missing = self._kept.unconfirmed(received)
        if self._owner is None or missing is None:
            launcher.close()
            return False
        self._launcher = Leg(self._board, launcher, self)
        self.start(from_client=[], from_launcher=ahead)
        if missing:
            self._launcher.send(missing)
        return True

    def _read_both(self) -> None:
        for leg, other in ((self._client, self._launcher), (self._launcher, self._client)):
            if len(other.out) <= HIGH_WATER:
                leg.resume()
            else:
                leg.pause()

    # -- the legs' calls -------------------------------------------------------------------------------------

    def readable(self, leg: Leg) -> None:
        board = self._board
        to_client = leg is self._launcher
        other = self._client if to_client else self._launcher
        for _ in range(ROUNDS):
            if other.failed:
                leg.pause()
                return
            size = leg.fill(board.view)
            if size:
                if to_client:
                    self._moved += size
                    board.to_clients += size
                    self._boundary.feed(board.buffer, size)
                    self._kept.confirm(self._boundary.received)
                else:
                    board.to_launchers += size
                    self._kept.feed(board.view[:size])
                other.send(board.view[:size])
            if self._owner is None:  # the other leg broke meanwhile
                return
            if leg.eof:
                self._leg_ended(leg)
                return
            if len(other.out) > HIGH_WATER:
                leg.pause()
                return
            if size < len(board.view):
                return
        leg.again()

    def drained(self, leg: Leg) -> None:
        other = self._launcher if leg is self._client else self._client
        if len(leg.out) <= LOW_WATER and not leg.failed and not other.eof:
            other.resume()

    def broken(self, leg: Leg) -> None:
        """Nothing can be said to it any more, but it may have last words to be read; its end follows them."""
        if leg is self._launcher:
            self._client.pause()
        else:
            self._launcher.pause()
            if len(self._launcher.out) <= HIGH_WATER:
                self._client.resume()

    # -- ends ------------------------------------------------------------------------------------------------

    def _leg_ended(self, leg: Leg) -> None:
        if leg is self._client:
            self._end(cut_client=True)
            return
        boundary = self._boundary
        self._launcher.close()
        if boundary.closed or not boundary.between or self._client.failed:
            self._end()
        elif self._closing is not None:
            self._finish_closing()
        else:
            self._client.pause()  # what it says meanwhile waits in its socket
            if self._owner is not None:
                self._owner.launcher_lost()

    def close(self, code: int, reason: str, words: bytes = b"") -> None:
        """Say ``words`` and Close to the client once what its kernel said before has passed, and close both legs."""
        if self._closing is not None or self._owner is None:
            return
        self._closing = (code, reason, words)
        # Of a kernel that lives there are no last words to wait for.
        if self._launcher.closed or (code == CLOSE_RESTART and self._boundary.between):
            self._finish_closing()
            return
        self._deadline = self._board.loop.time() + CLOSING_MAX
        self._seen = (self._moved, len(self._client.out))
        self._board.timers.after(TICK, self._closing_tick)

    def _closing_tick(self) -> None:
        """The registry's word and the kernel's last words come by different connections: wait until it is quiet."""
        if self._owner is None or self._closing is None:
            return
        seen = (self._moved, len(self._client.out))
        self._stalls = self._stalls + 1 if seen == self._seen else 0
        self._seen = seen
        quiet = self._stalls and self._boundary.between and not self._client.out
        if quiet or self._stalls >= STALLED_TICKS or self._board.loop.time() > self._deadline:
            self._finish_closing()
        else:
            self._board.timers.after(TICK, self._closing_tick)

    def _finish_closing(self) -> None:
        assert self._closing is not None
        code, reason, words = self._closing
        self.finish(code, reason, words=words)

    def finish(self, code: int, reason: str, *, words: bytes = b"") -> None:
        """Say ``words`` (whole frames) and Close now if the stream stands between two frames; close both legs."""
        boundary = self._boundary
        if boundary.between and not boundary.closed and self._owner is not None:
            if words and not boundary.fragmented:
                self._client.send(words)
            self._client.send(close_frame(code, reason))
            self._end(grace=CLOSE_GRACE, answered=False)
        else:
            self._end()

    def _end(self, *, cut_client: bool = False, grace: float = FLUSH_GRACE, answered: bool = True) -> None:
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if cut_client:
            self._client.close()
        else:
            Farewell(self._client, grace=grace, at_once=answered)
        if not self._launcher.closed:
            # What has reached the gateway reaches the kernel, also when the client has left at once.
            Farewell(self._launcher, grace=FLUSH_GRACE if self._launcher.out else CLOSE_GRACE, half_close=True)
        owner.ended()
