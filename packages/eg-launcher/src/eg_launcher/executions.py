"""Requests that wait for their end: who asked, whether the main shell is busy, and how to end them all in words.

Pure book-keeping, no I/O. A request is over when its reply and its ``idle`` have both been seen (they come on
different sockets, in any order). ``state`` is that of the *main* shell: what runs on a subshell or on control doesn't
make a kernel busy or idle.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from eg_launcher.frames import ClientMessage
from eg_launcher.signing import make_message

MAX_PENDING = 10_000
MAX_TOLD = 64
MAX_TOLD_ID = 256
"""Of what is told of who waits: requests, and characters of an id."""

_CONTROL_TYPES = frozenset(
    {
        "interrupt_request",
        "shutdown_request",
        "debug_request",
        "usage_request",
        "create_subshell_request",
        "delete_subshell_request",
        "list_subshell_request",
    }
)


@dataclass
class Request:
    """``target`` is the client that asked; ``header`` its raw header, the parent of all that answers it."""

    msg_id: str
    msg_type: str
    channel: str
    target: str
    header: bytes
    main: bool
    generation: int = 0
    replied: bool = False
    idle: bool = False

    @property
    def is_request(self) -> bool:
        return self.msg_type.endswith("_request")

    @property
    def over(self) -> bool:
        return self.idle and (self.replied or not self.is_request)

    def as_dict(self) -> dict[str, str]:
        return {"msg_id": self.msg_id, "msg_type": self.msg_type, "channel": self.channel, "client": self.target}


def request_of(message: ClientMessage, target: str, generation: int = 0) -> Request:
    header = message.header
    return Request(
        msg_id=header["msg_id"],
        msg_type=header["msg_type"],
        channel=message.channel,
        target=target,
        header=message.parts[0],
        main=message.channel == "shell" and not header.get("subshell_id"),
        generation=generation,
    )


@dataclass(frozen=True)
class Ending:
    """A message that ends a request, ready for the journal."""

    channel: str
    msg_type: str
    parts: list[bytes]
    target: str | None


class Executions:
    """``generation`` stamps what begins: a restart makes it grow, and ends what is older."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.generation = 0
        self.begun = 0
        """Requests so far."""
        self._clock = clock
        self._state = "idle"
        self._busy_since = 0.0
        self._pending: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def state(self) -> str:
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        if state == "busy" and self._state != "busy":
            self._busy_since = self._clock()
        self._state = state

    @property
    def busy_age(self) -> float | None:
        """Seconds since the main shell began what it runs; None: it runs nothing."""
        return self._clock() - self._busy_since if self._state == "busy" else None

    def begin(self, message: ClientMessage, target: str) -> Request:
        request = request_of(message, target, self.generation)
        if message.channel != "stdin":  # an input_reply is answered by nothing
            self.begun += request.is_request
            self._pending.pop(request.msg_id, None)
            self._pending[request.msg_id] = request
            if len(self._pending) > MAX_PENDING:
                del self._pending[next(iter(self._pending))]
        return request

    def answered(self, channel: str, msg_type: str, parent: Mapping[str, Any]) -> str | None:
        """A message on shell, control or stdin: whom it is for. None: nobody known, so everybody."""
        request = self._pending.get(_text(parent, "msg_id"))
        if request is None:
            return None
        if channel == request.channel and msg_type.endswith("_reply"):
            request.replied = True
            self._drop_if_over(request)
        return request.target

    def status(self, parent: Mapping[str, Any], execution_state: str) -> bool:
        """A kernel's status. True when the main shell's state changed by it."""
        request = self._pending.get(_text(parent, "msg_id"))
        main = request.main if request is not None else _on_main_shell(parent)
        if request is not None and execution_state == "idle":
            request.idle = True
            self._drop_if_over(request)
        if not main or execution_state not in ("busy", "idle") or execution_state == self.state:
            return False
        self.state = execution_state
        return True

    def waiting(self) -> list[dict[str, str]]:
        """Who waits for a reply, the protocol's *waiting*: what ends the requests if this launcher dies."""
        asked = [request for request in self._pending.values() if not request.replied and request.is_request]
        return [request.as_dict() for request in asked[:MAX_TOLD] if len(request.msg_id) <= MAX_TOLD_ID]

    def end_all(self, session: str, name: str, message: str, *, older: bool = False) -> list[Ending]:
        """End all that wait (``older``: of earlier generations). ``name`` is the error's, ``message`` says why."""
        ended = [request for request in self._pending.values() if not older or request.generation < self.generation]
        for request in ended:
            del self._pending[request.msg_id]
        self.state = "idle"
        return [ending for request in ended for ending in end(request, session, name, message)]

    def _drop_if_over(self, request: Request) -> None:
        if request.over:
            self._pending.pop(request.msg_id, None)


def end(request: Request, session: str, name: str, message: str) -> list[Ending]:
    """What is still missing of a request's end: error, reply and idle, under its own header."""
    endings = []
    error: dict[str, Any] = {"ename": name, "evalue": message, "traceback": [message]}

    def say(channel: str, msg_type: str, content: dict[str, Any], target: str | None) -> None:
        parts = make_message(msg_type, content, session=session, parent_header=request.header)
        endings.append(Ending(channel, msg_type, parts, target))

    if not request.replied and request.msg_type == "execute_request" and not request.idle:
        say("iopub", "error", error, None)
    if not request.replied and request.msg_type.endswith("_request"):
        reply = {**error, "status": "error"}
        if request.msg_type == "execute_request":
            reply.update(execution_count=None, user_expressions={}, payload=[])
        say(request.channel, request.msg_type[: -len("request")] + "reply", reply, request.target)
    if not request.idle:
        say("iopub", "status", {"execution_state": "idle"}, None)
    return endings


def parse_object(part: bytes) -> dict[str, Any]:
    """A JSON object; empty when it is something else."""
    try:
        value = json.loads(part)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _on_main_shell(parent: Mapping[str, Any]) -> bool:
    """Of a request we did not carry: another client's, on a kernel that is attached."""
    return not parent.get("subshell_id") and parent.get("msg_type") not in _CONTROL_TYPES


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key)
    return value if isinstance(value, str) else ""
