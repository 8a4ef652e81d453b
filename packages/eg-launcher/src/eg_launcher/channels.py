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
import uuid
from typing import TYPE_CHECKING, Any, Protocol, Sequence

from eg_launcher.frames import decode, encode
from eg_launcher.signing import make_message
from eg_launcher.websocket import CLOSE_BAD_DATA, Opcode
from eg_launcher.wire import CLOSE_SILENT, GWCLIENT_MAX_MESSAGE, PEER_GWCLIENT

if TYPE_CHECKING:
    from eg_launcher.journal import Entry
    from eg_launcher.kernels import Kernel

HANDED_PER_TURN = 1024 * 1024
HELD_LIMIT = 1024 * 1024
SILENCE_LIMIT = 90.0
_LONGEST_BEAT = 10.0

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """One accepted WebSocket, the server's."""

    @property
    def subprotocol(self) -> str | None: ...

    @property
    def paused(self) -> bool:
        """Its transport holds more than it should: send nothing until ``on_drain``."""

    def send(self, opcode: Opcode, buffers: Sequence[bytes | memoryview]) -> None: ...

    def ping(self, payload: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Channel:
    """``target`` is who a reply is for: a session that comes back (same ``session_id``) is the same target."""

    def __init__(self, kernel: Kernel, connection: Connection, *, session_id: str | None, peer: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._kernel = kernel
        self._connection = connection
        self._peer = peer
        self.target = session_id or f"socket-{uuid.uuid4().hex}"
        self.cursor = kernel.journal.next
        self.closed = False
        self._total = kernel.journal.total
        self._told_lost = 0
        self._told_left_out: set[bytes] = set()
        self._held = 0
        self._reading = True
        self._deaf = False  # it was told more than it reads
        self._resuming = False
        self._interval = kernel.limits.ws_ping_interval
        self._longest_silence = max(SILENCE_LIMIT, 3 * self._interval)
        self._silent = 0.0
        self._pinged = self._beaten = self._loop.time()
        self._ping: bytes | None = None
        kernel.channels.add(self)
        kernel.on_attached(self)

    # -- kernel to client -----------------------------------------------------------------------------------

    def pump(self) -> None:
        """Hand over what is new, while the connection takes it."""
        if self._resuming or self.closed:
            return
        journal, connection, budget = self._kernel.journal, self._connection, HANDED_PER_TURN
        while self.cursor < journal.next and not connection.paused:
            if self.cursor < journal.first:
                self._say_lost()
            entry = journal.next_entry(self.cursor)
            if entry is None:
                break
            self.cursor = entry.number + 1
            self._total = max(self._total, entry.total)
            if entry.target is not None and entry.target != self.target:
                continue
            budget -= self._deliver(entry)
            if budget <= 0:
                self._resuming = True
                self._loop.call_soon(self._resume)
                return

    def say(self, channel: str, parts: list[bytes]) -> None:
        """A message for this client alone, outside the journal. Who does not read the answers is not read either."""
        if self.closed:
            return
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
        return size

    def _leave_out(self, entry: Entry, why: str) -> None:
        """Say it once per request; a reply is replaced, as somebody waits for it."""
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

    def _say_lost(self) -> None:
        journal = self._kernel.journal
        if journal.first <= self._told_lost:
            return  # walking through what is kept of a gap that was told
        messages, size = journal.lost(self.cursor, self._total)
        self._told_lost = journal.first
        if messages <= 0:
            return
        following = journal.next_entry(self.cursor)
        parent = following.parts[1] if following is not None else b"{}"
        text = (
            f"[{messages} messages ({_size(size)}) of output were lost here: this client was too slow to take them]\n"
        )
        self.say_notice(text, _valid_parent(parent))

    # -- client to kernel -----------------------------------------------------------------------------------

    def on_message(self, opcode: Opcode, payload: bytes) -> None:
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
        if payload == self._ping:
            self._ping = None

    def on_drain(self) -> None:
        self._deaf = False
        self._read_or_not()
        self.pump()

    def on_close(self) -> None:
        self.closed = True
        self._kernel.on_detached(self)

    def close(self, code: int, reason: str) -> None:
        if not self.closed:
            self._connection.close(code, reason)
            self.on_close()

    def beat(self, now: float) -> None:
        """A ping with the number of the last message sent, at most one in flight; the end after long silence."""
        if self.closed:
            return
        # Counted in beats: a process that was stopped for a while must not blame its clients.
        self._silent += min(now - self._beaten, _LONGEST_BEAT) if self._reading else -self._silent
        self._beaten = now
        if self._silent >= self._longest_silence and self._ping is not None:
            self.close(CLOSE_SILENT, f"nothing was heard from this client for {self._longest_silence:g} s")
        elif self._interval and self._ping is None and now - self._pinged >= self._interval:
            self._ping = (self.cursor - 1).to_bytes(8, "big")
            self._pinged = now
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
