"""A client whose kernel is not there yet: its frames wait here, raw, masked and in order.

The upgrade is answered at once, whatever the kernel does. Until there is a launcher to splice with, ``Hold`` answers
pings, obeys a Close, pings the client, and keeps data frames up to 1 MiB; then it stops reading and TCP holds the rest.
``obituary`` is what a client is told when the kernel never comes, or its launcher is gone: every request it made ends,
so nobody waits for ever.
"""

from __future__ import annotations

import contextlib
import json
import socket
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from eg_core.handlers.leg import HIGH_WATER, LOW_WATER, Farewell, Leg, Switchboard
from eg_core.handlers.splice import CLOSE_GRACE, close_frame, control_frame
from eg_launcher import frames
from eg_launcher.websocket import (
    FrameReader,
    MessageReader,
    Opcode,
    ProtocolError,
    frame_header,
    parse_close,
)
from eg_launcher.wire import MAX_MESSAGE

HELD_MAX = 1024 * 1024

_ANSWERING = ("shell", "control")


class HoldOwner(Protocol):
    def ended(self) -> None:
        """The client has gone or said Close."""


class Hold:
    def __init__(self, board: Switchboard, sock: socket.socket, owner: HoldOwner) -> None:
        self._board = board
        self._leg = Leg(board, sock, self)
        self._owner = owner
        self._reader = FrameReader(max_message=MAX_MESSAGE, masked=True, keep_raw=True)
        self._frames = bytearray()  # one after the other: as objects of their own small ones take many times their size
        self._size = 0
        self._timer = board.timers.after(board.ping_every, self._ping)

    def start(self, ahead: bytes, first_words: bytes) -> None:
        """``ahead`` is what was read beyond the upgrade request, ``first_words`` are whole frames for the client."""
        if first_words:
            self._leg.send(first_words)
        if ahead:
            self._feed(ahead)
        self._read_or_not()

    def held(self) -> list[bytes]:
        """What the client has sent, to the byte."""
        return [bytes(self._frames), self._reader.pending]

    def release(self) -> Leg:
        """Hand the leg over."""
        self._timer.cancel()
        self._leg.pause()
        return self._leg

    def finish(self, words: bytes, code: int, reason: str) -> None:
        """Say ``words`` and Close, and let the socket go."""
        self._timer.cancel()
        self._leg.send(words + close_frame(code, reason))
        if not self._leg.closed:
            Farewell(self._leg, grace=CLOSE_GRACE)

    # -- the leg's calls -------------------------------------------------------------------------------------

    def readable(self, leg: Leg) -> None:
        size = leg.fill(self._board.view)
        if size:
            self._feed(bytes(self._board.view[:size]))
        if leg.owner is not self:  # it said Close, or what it sent was wrong
            return
        if leg.eof:
            self._end()
            return
        self._read_or_not()
        if size == len(self._board.view):
            leg.again()

    def drained(self, leg: Leg) -> None:
        if len(leg.out) <= LOW_WATER:
            self._read_or_not()

    def broken(self, leg: Leg) -> None:
        del leg
        self._end()

    def _read_or_not(self) -> None:
        """Not while as much is held as may be, nor while the client asks for pongs and reads none."""
        if self._leg.closed or self._leg.owner is not self:
            return
        if self._size >= HELD_MAX or len(self._leg.out) > HIGH_WATER:
            self._leg.pause()
        else:
            self._leg.resume()

    # -- frames ----------------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        self._size += len(data)
        try:
            for frame in self._reader.feed(data):
                if frame.opcode < Opcode.CLOSE:
                    self._frames += frame.raw
                    continue
                self._size -= len(frame.raw)
                if frame.opcode is Opcode.PING:
                    self._leg.send(control_frame(Opcode.PONG, frame.payload))
                elif frame.opcode is Opcode.CLOSE:
                    self._answer_close(frame.payload)
                if self._leg.owner is not self or self._leg.closed:
                    return
        except ProtocolError as error:
            self._leg.send(close_frame(error.code, str(error)))
            self._end(grace=CLOSE_GRACE, at_once=False)

    def _answer_close(self, payload: bytes) -> None:
        code, _ = parse_close(payload)
        self._leg.send(control_frame(Opcode.CLOSE, payload[:2] if code != 1005 else b""))
        self._end(grace=CLOSE_GRACE)

    def _ping(self) -> None:
        self._leg.send(control_frame(Opcode.PING, b"held"))
        if self._leg.owner is self and not self._leg.closed:
            self._timer = self._board.timers.after(self._board.ping_every, self._ping)

    def _end(self, *, grace: float = 0.0, at_once: bool = True) -> None:
        self._timer.cancel()
        if self._leg.owner is not self or self._leg.closed:
            return
        if grace and not self._leg.failed:
            Farewell(self._leg, grace=grace, at_once=at_once)
        else:
            self._leg.close()
        self._owner.ended()


# -- what the gateway itself says -----------------------------------------------------------------------------


def message(
    channel: str,
    msg_type: str,
    content: dict[str, Any],
    *,
    session: str,
    subprotocol: str | None,
    parent: bytes = b"{}",
) -> bytes:
    """A whole frame for the client. ``parent`` is the parent's header as JSON.

    ``session`` is the kernel's own, as far as it is known: JupyterLab drops what it has queued when it changes.
    """
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "session": session,
        "username": "gateway",
        "date": datetime.now(timezone.utc).isoformat(),
        "version": "5.3",
    }
    parts = [json.dumps(header).encode(), parent, b"{}", json.dumps(content).encode()]
    opcode, buffers = frames.encode(channel, parts, subprotocol)
    return frame_header(opcode, sum(map(len, buffers))) + b"".join(buffers)


def status(state: str, *, session: str, subprotocol: str | None) -> bytes:
    return message("iopub", "status", {"execution_state": state}, session=session, subprotocol=subprotocol)


@dataclass(frozen=True)
class Asked:
    """A request that waits for its end; ``header`` is its own, as JSON."""

    channel: str
    msg_id: str
    msg_type: str
    header: bytes


def asked_in(held: list[bytes], subprotocol: str | None) -> Iterator[Asked]:
    """The requests among whole raw frames of a client."""
    reader = MessageReader(max_message=MAX_MESSAGE, masked=True)
    for raw in held:
        try:
            messages = list(reader.feed(raw))
        except ProtocolError:
            return
        for opcode, payload in messages:
            with contextlib.suppress(ValueError):  # nobody waits for an answer to what is no message
                said = frames.decode(opcode, payload, subprotocol)
                header = said.header
                yield Asked(said.channel, str(header["msg_id"]), str(header["msg_type"]), said.parts[0])


def waiting(described: Any, client: str) -> Iterator[Asked]:
    """What a launcher has told of a client's requests (the protocol's *waiting*)."""
    for each in described if isinstance(described, list) else []:
        if each.get("client") == client:
            header = {"msg_id": each["msg_id"], "msg_type": each["msg_type"], "session": client, "version": "5.3"}
            yield Asked(each["channel"], each["msg_id"], each["msg_type"], json.dumps(header).encode())


def obituary(requests: Iterable[Asked], name: str, why: str, *, session: str, subprotocol: str | None) -> bytes:
    """End every request, in words, and then say that the kernel is dead. ``name`` is the error's."""
    said: list[bytes] = []
    for request in {request.msg_id: request for request in requests}.values():
        said += _end_request(request, name, why, session, subprotocol)
    said.append(status("dead", session=session, subprotocol=subprotocol))
    return b"".join(said)


def _end_request(request: Asked, name: str, why: str, session: str, subprotocol: str | None) -> Iterator[bytes]:
    kind, is_request, _ = request.msg_type.rpartition("_request")
    if not is_request or request.channel not in _ANSWERING:
        return
    parent = request.header
    error = {"ename": name, "evalue": why, "traceback": [f"{name}: {why}"]}
    reply: dict[str, Any] = {"status": "error", **error}
    if kind == "execute":
        reply |= {"execution_count": 0, "payload": [], "user_expressions": {}}
        yield message("iopub", "error", error, session=session, subprotocol=subprotocol, parent=parent)
    yield message(request.channel, f"{kind}_reply", reply, session=session, subprotocol=subprotocol, parent=parent)
    idle = {"execution_state": "idle"}
    yield message("iopub", "status", idle, session=session, subprotocol=subprotocol, parent=parent)
