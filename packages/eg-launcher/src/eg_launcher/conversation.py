"""What a kernel and its clients say to each other: the journal, the requests that wait, what is held for the kernel.

It outlives incarnations and knows no process. Messages the launcher makes itself carry the kernel's own session: one
with another session would make JupyterLab throw away what it has queued.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Callable, Sequence

from eg_launcher.executions import Executions, end, parse_object, request_of
from eg_launcher.frames import ClientMessage
from eg_launcher.journal import Journal
from eg_launcher.limits import Gate
from eg_launcher.outbox import Outbox
from eg_launcher.relay import CLIENT_CHANNELS
from eg_launcher.signing import make_message

if TYPE_CHECKING:
    from eg_launcher.channels import Channel

Send = Callable[[str, Sequence[bytes]], bool]


class Conversation:
    """``session`` is the kernel's ``header.session``, once it is known."""

    def __init__(self, gate: Gate | None = None) -> None:
        self._gate = gate
        self.journal = Journal()
        self.channels: set[Channel] = set()
        self.executions = Executions()
        self.session: str | None = None
        self._outbox = Outbox()
        self._fallback_session = uuid.uuid4().hex

    @property
    def own_session(self) -> str:
        """For messages made here; before the kernel's session is known, one that never changes."""
        return self.session or self._fallback_session

    # -- kernel to clients ----------------------------------------------------------------------------------

    def take(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None:
        """A kernel's message, for whom it concerns. ``pump`` delivers."""
        msg_type = str(header.get("msg_type", ""))
        target = None
        if channel != "iopub":
            target = self.executions.answered(channel, msg_type, parse_object(parts[1]))
        elif msg_type == "status":
            parent, state = parse_object(parts[1]), parse_object(parts[3]).get("execution_state")
            if not parent and state == "starting":
                return  # it comes at any time; `idle` is said when it is ready
            self.executions.status(parent, str(state))
        if self._gate is not None:
            passed = self._gate.lets_out(channel, msg_type, parts)
            self._say_notice(parts[1])
            if passed is None:
                return
            parts = passed
        self.journal.add(channel, str(header.get("msg_id", "")), msg_type, parts, target)

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
        self._outbox.clear()

    def _record(self, channel: str, msg_type: str, parts: list[bytes], target: str | None) -> None:
        self.journal.add(channel, str(parse_object(parts[0]).get("msg_id", "")), msg_type, parts, target)

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
        self._outbox.put(message.channel, message.parts, channel)
        return True

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
