"""What a kernel and its clients say to each other: the journal, the requests that wait, what is held for the kernel.

It outlives incarnations and knows no process. Messages the launcher makes itself carry the kernel's own session: one
with another session would make JupyterLab throw away what it has queued.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Sequence

from eg_launcher.executions import Executions, end, parse_object, request_of
from eg_launcher.frames import ClientMessage
from eg_launcher.journal import Entry, Journal, JournalLimits
from eg_launcher.limits import Gate
from eg_launcher.outbox import Outbox
from eg_launcher.outputs import outputs_of
from eg_launcher.relay import CLIENT_CHANNELS
from eg_launcher.sessions import Left, Session, Sessions
from eg_launcher.signing import make_message
from eg_launcher.spill import Room
from eg_launcher.trace import walk

if TYPE_CHECKING:
    from eg_launcher.channels import Channel

_LARGEST_METADATA = 64 * 1024

Send = Callable[[str, Sequence[bytes]], bool]


class NotResumable(Exception):
    """A link cannot go on where the last one ended, exactly."""


@dataclass(frozen=True)
class After:
    """What a peer has had: ``skip`` data frames behind a ping (``parse_ping``)."""

    epoch: str
    number: int
    serial: int
    skip: int


@dataclass(frozen=True)
class Opening:
    """How a socket begins: ``cursor`` where it is said exactly, else at what its session may have missed."""

    session: Session
    known: bool
    link: str
    cursor: int | None = None
    left: Left | None = None
    """What the link's last socket has left, when it goes on."""


class Conversation:
    """``session`` is the kernel's ``header.session``, once it is known."""

    def __init__(self, gate: Gate | None = None, limits: JournalLimits | None = None, room: Room | None = None) -> None:
        self._gate = gate
        self.journal = Journal(limits or JournalLimits(), room)
        self.sessions = Sessions()
        self._parent_part = b""
        self._parent: dict[str, Any] = {}
        self.channels: set[Channel] = set()
        self.executions = Executions()
        self.session: str | None = None
        self._outbox = Outbox()
        self._fallback_session = uuid.uuid4().hex

    @property
    def own_session(self) -> str:
        """For messages made here; before the kernel's session is known, one that never changes."""
        return self.session or self._fallback_session

    # -- sockets --------------------------------------------------------------------------------------------

    def opening(self, *, session_id: str | None, link: str | None, after: After | None) -> Opening:
        """For a socket that comes. Raises NotResumable when ``link`` cannot be gone on with."""
        journal, link = self.journal, link or uuid.uuid4().hex
        session, known = self.sessions.of(
            session_id or f"link-{link}",
            lasting=session_id is not None,
            sent=journal.next - 1,
            total=journal.total,
        )
        if after is None:
            return Opening(session, known and session.lasting, link)
        for channel in session.channels:
            if channel.link == link:
                channel.replaced()
                break
        left = session.links.get(link)

        def wanted(entry: Entry) -> bool:
            return entry.target is None or entry.target == session.target

        if left is not None:
            cursor = (
                left.trace.after(journal, after.serial, after.skip, wanted) if after.epoch == journal.epoch else None
            )
            if cursor is None:
                raise NotResumable("It cannot be said for certain what was sent on this link already.")
            session.forgive()
            return Opening(session, known, link, cursor, left)
        if after.epoch != journal.epoch:  # an earlier launcher's; all that this one has is new
            return Opening(session, known, link, 1)
        number = min(after.number, journal.next - 1)
        # Its last socket may still be here, as one that is half-open.
        traces = [*(one.trace for one in session.channels), *(one.trace for one in session.links.values())]
        known_by = [trace for trace in traces if trace.knows(after.serial)]
        cursor = known_by[0].find(journal, after.serial, after.skip, wanted) if known_by else None
        if cursor is None:
            cursor = walk(journal, number, after.skip, wanted, deque())
        return Opening(session, known, link, cursor or number + 1)

    def outputs(self, *, parent: str | None, cell: str | None) -> dict[str, Any] | None:
        """What a request has put out so far; None when it is not known any more."""
        asked = self.sessions.find(parent=parent, cell=cell)
        if asked is None:
            return None
        begin = max(asked.first, self.journal.first)
        told = outputs_of(self.journal.entries(begin, asked.last + 1) if asked.first else (), asked.msg_id)
        told["truncated"] = told["truncated"] or (
            asked.first > 0 and not self.journal.whole(asked.first, asked.last + 1)
        )
        return {"parent": asked.msg_id, **told}

    def beat(self, now: float) -> None:
        self.journal.expire(now)
        self.sessions.expire(now, self.journal.limits.age)

    # -- kernel to clients ----------------------------------------------------------------------------------

    def take(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None:
        """A kernel's message, for whom it concerns. ``pump`` delivers."""
        msg_type = str(header.get("msg_type", ""))
        target = None
        if parts[1] != self._parent_part:  # those of one cell's output are all the same
            self._parent_part, self._parent = parts[1], parse_object(parts[1])
        parent = self._parent
        if channel != "iopub":
            target = self.executions.answered(channel, msg_type, parent)
        elif msg_type == "status":
            state = parse_object(parts[3]).get("execution_state")
            if not parent and state == "starting":
                return  # it comes at any time; `idle` is said when it is ready
            self.executions.status(parent, str(state))
        if self._gate is not None:
            passed = self._gate.lets_out(channel, msg_type, parts)
            self._say_notice(parts[1])
            if passed is None:
                return
            parts = passed
        self._add(channel, str(header.get("msg_id", "")), msg_type, parts, target, parent)

    def _add(  # noqa: PLR0917 - for every message
        self,
        channel: str,
        msg_id: str,
        msg_type: str,
        parts: Sequence[bytes],
        target: str | None,
        parent: dict[str, Any],
    ) -> None:
        parent_id = parent.get("msg_id")
        if not isinstance(parent_id, str):
            parent_id = ""
        entry = self.journal.add(channel, msg_id, msg_type, parts, target, parent_id)
        self.sessions.answer(entry.number, msg_type, target, parent_id)

    def _say_notice(self, parent_header: bytes) -> None:
        """What the gate has to say of it, to everybody, where its output would be."""
        assert self._gate is not None
        notice, self._gate.notice = self._gate.notice, None
        if notice is not None:
            content = {"name": "stderr", "text": notice}
            message = make_message("stream", content, session=self.own_session, parent_header=parent_header)
            self._record("iopub", "stream", message, None)

    def pump(self) -> None:
        """Deliver to every client what it takes."""
        cursor = self.journal.next
        for channel in tuple(self.channels):
            channel.pump()
            cursor = min(cursor, channel.cursor)
        self.journal.release_frames(cursor)

    def status(self, state: str) -> list[bytes]:
        return make_message("status", {"execution_state": state}, session=self.own_session)

    def say_status(self, state: str) -> None:
        """Tell everybody, under no request."""
        self._record("iopub", "status", self.status(state), None)
        self.pump()

    def end_requests(self, name: str, message: str, *, older: bool = False) -> None:
        """Whoever waits is told that it is over, and why. ``older``: those from before ``begin_anew``."""
        if not older:
            self._outbox.clear()
        for ending in self.executions.end_all(self.own_session, name, message, older=older):
            self._record(ending.channel, ending.msg_type, ending.parts, ending.target)
        self.pump()

    def begin_anew(self) -> None:
        """A restart begins: what comes from now on is for the next incarnation, what was held is not."""
        self.executions.generation += 1
        self.sessions.restarted(self.journal.next - 1)
        self._outbox.clear()

    def _record(self, channel: str, msg_type: str, parts: list[bytes], target: str | None) -> None:
        msg_id = str(parse_object(parts[0]).get("msg_id", ""))
        self._add(channel, msg_id, msg_type, parts, target, parse_object(parts[1]))

    # -- clients to kernel ----------------------------------------------------------------------------------

    def accept(self, channel: Channel, message: ClientMessage) -> bool:
        """Hold a client's message until ``send_held``. False: it was dropped, and the client told."""
        if message.channel not in CLIENT_CHANNELS:
            name = message.channel[:40]
            text = f"[a message on channel {name!r} was dropped: clients send on shell, control, stdin]\n"
            channel.say_notice(text, message.parts[0])
            return False
        if self._gate is not None and not self._gate.lets_in(message.header["msg_type"]):
            self._refuse(channel, message)
            return False
        self.executions.begin(message, channel.target)
        self._note(channel.target, message)
        self._outbox.put(message.channel, message.parts, channel)
        return True

    def _note(self, target: str, message: ClientMessage) -> None:
        session = self.sessions.by_target.get(target)
        if session is not None:
            session.note_spoken(time.monotonic())
            if message.channel == "stdin":
                session.prompt = 0
        if message.channel != "stdin":
            cell = None
            if message.header["msg_type"] == "execute_request" and len(message.parts[2]) <= _LARGEST_METADATA:
                cell = parse_object(message.parts[2]).get("cellId")
            self.sessions.ask(target, message.header, message.parts[0], cell if isinstance(cell, str) else None)

    def _refuse(self, channel: Channel, message: ClientMessage) -> None:
        """It may not be sent here: whoever waits for its answer gets one, nobody else is told."""
        text = f"Messages of the type {message.header['msg_type'][:80]!r} are not allowed here."
        channel.say_notice(f"[{text}]\n", message.parts[0])
        if message.header["msg_type"].endswith("_request"):
            for ending in end(request_of(message, channel.target), self.own_session, "MessageNotAllowed", text):
                channel.say(ending.channel, ending.parts)

    def send_held(self, send: Send, channels: Sequence[str] = CLIENT_CHANNELS) -> None:
        for channel in channels:
            self._outbox.flush(channel, send)
