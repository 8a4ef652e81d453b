"""One client on a kernel: a cursor into the journal one way, decoded messages the other way.

Nothing is queued per client. ``pump`` hands over what follows the cursor while the connection takes it, at most about
1 MiB a turn; a client that is slow stays behind, and one that is too slow for the journal is told what it lost. The
server (which owns the socket) calls ``on_*``; the app's one timer calls ``beat`` through the kernel.

A message that cannot be understood is dropped and its client told: a living kernel's socket isn't closed for it,
but for text that is no UTF-8 (RFC 6455).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Iterator, Protocol, Sequence

from eg_launcher.frames import decode, encode
from eg_launcher.journal import Entry
from eg_launcher.replay import Item, replay
from eg_launcher.signing import make_message
from eg_launcher.trace import Trace
from eg_launcher.websocket import CLOSE_BAD_DATA, Opcode
from eg_launcher.wire import CLOSE_SILENT, GWCLIENT_MAX_MESSAGE, PEER_EXACT, PEER_GWCLIENT, PEER_STRONG, ping_payload

if TYPE_CHECKING:
    from eg_launcher.conversation import Opening
    from eg_launcher.kernels import Kernel

HANDED_PER_TURN = 1024 * 1024
HELD_LIMIT = 1024 * 1024
CONFIRM = 128 * 1024
"""Bytes of a client after which a ping tells the gateway that they have arrived."""
PING_GAP = 0.05
"""Seconds between two pings that acknowledge."""
SILENCE_LIMIT = 90.0
_LONGEST_BEAT = 10.0

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """One accepted WebSocket, the server's."""

    @property
    def subprotocol(self) -> str | None: ...

    @property
    def received(self) -> int:
        """Data frames that have come, of whole messages."""

    @property
    def paused(self) -> bool:
        """Its transport holds more than it should: send nothing until ``on_drain``."""

    def send(self, opcode: Opcode, buffers: Sequence[bytes | memoryview]) -> None: ...

    def ping(self, payload: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def abort(self) -> None:
        """End it without a word."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Channel:
    """``target`` is who a reply is for: a session that comes back (same ``session_id``) is the same target.

    ``link`` names a client's connection: when only the gateway's leg was lost, a new one comes with the same name.
    """

    def __init__(self, kernel: Kernel, connection: Connection, *, peer: str, opening: Opening) -> None:
        self._loop = asyncio.get_running_loop()
        self._kernel = kernel
        self._connection = connection
        self._peer = peer
        self._strong = peer in (PEER_STRONG, PEER_EXACT)
        self.target = opening.session.target
        self.link = opening.link
        self.session = session = opening.session
        self.trace = Trace(session.serials) if opening.left is None else opening.left.trace
        self.cursor = kernel.journal.next
        self.closed = False
        self._base = opening.left.received if opening.left is not None else 0
        self._total = kernel.journal.total
        self._told_lost = 0
        self._told_left_out: set[bytes] = set()
        self._held = 0
        self._reading = True
        self._deaf = False  # it was told more than it reads
        self._resuming = True
        self._interval = kernel.limits.ws_ping_interval
        self._longest_silence = max(SILENCE_LIMIT, 3 * self._interval)
        self._silent = 0.0
        self._beaten = self._loop.time()
        self._pinged = 0.0
        self._ping: bytes | None = None
        self._ping_number = 0
        self._ping_due = False
        self._flown = self._fresh = self._last = 0  # first entry on its way before the ping that is, behind it; last
        self._unconfirmed = 0  # bytes from the client that no ping has told of
        self._replay: Iterator[Item] | None = None
        if opening.cursor is not None:
            self.cursor, self._total = opening.cursor, session.total
        elif opening.known and kernel.journal.limits.replay:
            self._replay = replay(kernel.journal, session, strong=self._strong, kernel_session=kernel.own_session)
            self.cursor, self._total = session.sent + 1, session.total
        session.enter(self)
        kernel.channels.add(self)
        if self._replay is None or session.suspects is not None:
            # Before any data frame: who has had one of this socket's knows from where to count. And what may break
            # its receiver waits until that is known to be well.
            self._ping_now(self._loop.time())
        kernel.on_attached(self, anew=opening.left is None)
        lost, self.trace.lost = self.trace.lost, []
        for _, channel, parts in lost:
            self.say(channel, parts)
        self._resume()

    @property
    def received(self) -> int:
        """Data frames of whole messages that have come from this client, on all its links."""
        return self._base + self._connection.received

    # -- kernel to client -----------------------------------------------------------------------------------

    def pump(self) -> None:
        """Hand over what is new, while the connection takes it."""
        if self._resuming or self.closed:
            return
        budget = HANDED_PER_TURN
        if self._replay is not None:
            budget = self._pump_replay(budget)
        if self._replay is None and budget > 0:
            budget = self._pump_live(budget)
            if self is self.session.newest:
                self.session.note_sent(self.cursor - 1, self._total)
        if budget <= 0:
            self._resuming = True
            self._loop.call_soon(self._resume)
        elif self._fresh and self._ping is None:
            self._ping_soon()

    def _pump_live(self, budget: int) -> int:
        journal, connection = self._kernel.journal, self._connection
        while self.cursor < journal.next and not connection.paused and budget > 0:
            entry = journal.next_entry(self.cursor)
            if entry is None:
                break
            if entry.number > self.cursor:
                self._say_lost(entry)
            if entry.target is None or entry.target == self.target:
                if self.session.suspects is not None and self._must_wait(entry):
                    break
                self.cursor = entry.number + 1
                budget -= self._deliver(entry)
                if self._is_suspect(entry):
                    self._ping_now(self._loop.time())
            self.cursor = entry.number + 1
            self._total = max(self._total, entry.total)
        return budget

    def _pump_replay(self, budget: int) -> int:
        assert self._replay is not None
        while budget > 0 and not self._connection.paused:
            if self.session.suspects is not None and self._ping is not None:
                break
            item = next(self._replay, None)
            if item is None:
                self._replay = None
                self._ping_now(self._loop.time())
                break
            if isinstance(item, Entry):
                budget -= self._deliver(item)
                if self._is_suspect(item):
                    self._ping_now(self._loop.time())
            else:
                self.say(*item)
                budget -= sum(map(len, item[1]))
        return budget

    def _must_wait(self, entry: Entry) -> bool:
        """Whether an entry that may break its receiver has to wait until what went before has arrived."""
        return self._is_suspect(entry) and (self._ping is not None or bool(self._fresh))

    def _is_suspect(self, entry: Entry) -> bool:
        suspects = self.session.suspects
        return suspects is not None and suspects[0] <= entry.number <= suspects[1]

    def say(self, channel: str, parts: list[bytes]) -> None:
        """A message for this client alone, outside the journal. Who does not read the answers is not read either."""
        if self.closed:
            return
        self.trace.say(self.cursor, channel, parts)
        self._connection.send(*encode(channel, parts, self._connection.subprotocol))
        if self._connection.paused:
            self._deaf = True
            self._read_or_not()

    def say_notice(self, text: str, parent_header: bytes) -> None:
        """A line on stderr under a request's output."""
        content = {"name": "stderr", "text": text}
        session = self._kernel.own_session
        self.say("iopub", make_message("stream", content, session=session, parent_header=parent_header))

    def _resume(self) -> None:
        self._resuming = False
        self.pump()

    def _deliver(self, entry: Entry) -> int:
        """Send one entry, or say why not; the bytes it was."""
        if entry.number in self.session.poison:
            times = "the connection broke three times in a row while it was on its way"
            self._leave_out(entry, times)
            return entry.size
        try:
            opcode, buffers = entry.frame(self._connection.subprotocol, keep=len(self._kernel.channels) > 1)
        except ValueError as error:
            self._leave_out(entry, f"it is not what the kernel protocol allows: {error}")
            return entry.size
        size = entry.size
        if self._peer == PEER_GWCLIENT:
            if opcode is not Opcode.TEXT:
                self._leave_out(entry, "it has binary buffers, which the Jupyter server in between cannot carry")
                return size
            if size + 1024 >= GWCLIENT_MAX_MESSAGE and sum(map(len, buffers)) >= GWCLIENT_MAX_MESSAGE:
                self._leave_out(entry, "the Jupyter server in between carries less than 10 MiB a message")
                return size
        self._connection.send(opcode, buffers)
        self._fresh = self._fresh or entry.number
        self._last = entry.number
        return size

    def _leave_out(self, entry: Entry, why: str) -> None:
        """Say it once per request; a reply is replaced, as somebody waits for it."""
        self.trace.omit(entry.number)
        parent = entry.parts[1]
        if parent not in self._told_left_out:
            if len(self._told_left_out) >= 100:
                self._told_left_out.clear()
            self._told_left_out.add(parent)
            text = f"[a {entry.msg_type} message of {_size(entry.size)} was left out: {why}]\n"
            self.say_notice(text, _valid_parent(parent))
        if entry.channel != "iopub" and entry.msg_type.endswith("_reply"):
            error: dict[str, Any] = {"ename": "MessageLeftOut", "evalue": why, "traceback": []}
            content = {"status": "error", "execution_count": None, **error}
            session = self._kernel.own_session
            parts = make_message(entry.msg_type, content, session=session, parent_header=_valid_parent(parent))
            self.say(entry.channel, parts)

    def _say_lost(self, following: Entry) -> None:
        journal = self._kernel.journal
        until = journal.held_from(self.cursor)
        if until <= self._told_lost:
            return  # walking through what is kept of a gap that was told
        messages, size = journal.lost(self.cursor, self._total)
        self._told_lost = until
        if messages > 0:
            why = "more was said than is kept for a client that is slow or away"
            text = f"[{messages} messages ({_size(size)}) of output were lost here: {why}]\n"
            self.say_notice(text, _valid_parent(following.parts[1]))

    # -- client to kernel -----------------------------------------------------------------------------------

    def on_message(self, opcode: Opcode, payload: bytes) -> None:
        if self.closed:
            return
        self._silent = 0.0
        try:
            message = decode(opcode, payload, self._connection.subprotocol)
        except ValueError as error:
            logger.debug("dropped a client's message: %s", error)
            if opcode is Opcode.TEXT and not _is_utf8(payload):
                self.close(CLOSE_BAD_DATA, "a text frame that is not UTF-8")
            elif not self._deaf:  # nonsense is shorter than what is said of it
                self.say_notice(f"[a message of {_size(len(payload))} was dropped: {error}]\n", b"{}")
            return
        self._kernel.submit(self, message)
        self._unconfirmed += len(payload)
        if self._unconfirmed >= CONFIRM and self._ping is None:
            self._ping_soon()

    def hold(self, size: int) -> None:
        """The kernel holds so much more for this client; from 1 MiB on its socket is not read."""
        self._held += size
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self.closed:
            return
        if self._reading and (self._deaf or self._held > HELD_LIMIT):
            self._reading = False
            self._connection.pause_reading()
        elif not self._reading and not self._deaf and self._held <= HELD_LIMIT // 2:
            self._reading = True
            self._connection.resume_reading()

    # -- the socket -----------------------------------------------------------------------------------------

    def on_pong(self, payload: bytes) -> None:
        self._silent = 0.0
        if payload != self._ping:
            return
        self._ping = None
        self._flown = 0
        if self._ping_number:
            self.session.note_acked(self._loop.time(), self._ping_number)
        if self._fresh:
            self._ping_soon()
        if self.session.suspects is not None:
            self.pump()

    def on_drain(self) -> None:
        self._deaf = False
        self._read_or_not()
        self.pump()

    def on_close(self) -> None:
        if not self.closed:
            self.closed = True
            first = self._flown or self._fresh
            self.session.leave(self, (first, self._last) if first else None)
        self._kernel.on_detached(self)

    def replaced(self) -> None:
        """Its link goes on elsewhere; nothing that still comes on this one counts."""
        self._connection.abort()
        self.on_close()

    def close(self, code: int, reason: str) -> None:
        if not self.closed:
            self._connection.close(code, reason)
            self.on_close()

    def beat(self, now: float) -> None:
        """A ping when there was none for long; the end after long silence."""
        if self.closed:
            return
        # Counted in beats: a process that was stopped for a while must not blame its clients.
        self._silent += min(now - self._beaten, _LONGEST_BEAT) if self._reading else -self._silent
        self._beaten = now
        if not self._interval:
            return
        if self._silent >= self._longest_silence and self._ping is not None:
            self.close(CLOSE_SILENT, f"nothing was heard from this client for {self._longest_silence:g} s")
        elif self._ping is None and now - self._pinged >= self._interval:
            self._ping_now(now)

    def _ping_soon(self) -> None:
        if not self._ping_due:
            self._ping_due = True
            self._loop.call_at(self._pinged + PING_GAP, self._ping_if_due)

    def _ping_if_due(self) -> None:
        self._ping_due = False
        if self._ping is None and not self.closed and (self._fresh or self._unconfirmed):
            self._ping_now(self._loop.time())

    def _ping_now(self, now: float) -> None:
        """At most one is in flight. It says what was sent before it, and what has come from there."""
        if self._ping is not None:
            return
        place = self.cursor - 1 if self._replay is None else None
        serial = self.trace.ping(place)
        self._ping_number = place or 0
        epoch = self._kernel.journal.epoch
        self._ping = ping_payload(epoch, self._ping_number, 0 if place is None else serial, self.received)
        self._flown, self._fresh = self._fresh, 0
        self._pinged = now
        self._unconfirmed = 0
        self._connection.ping(self._ping)


def _is_utf8(text: bytes) -> bool:
    try:
        str(text, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _valid_parent(parent: bytes) -> bytes:
    """A parent header that may go into a text frame."""
    if parent[:1] != b"{" or parent[-1:] != b"}":
        return b"{}"
    return parent if _is_utf8(parent) else b"{}"


def _size(size: int) -> str:
    return (
        f"{size / 1048576:.1f} MiB"
        if size >= 1048576
        else f"{size / 1024:.1f} KiB"
        if size >= 1024
        else f"{size} bytes"
    )
