"""A client whose kernel is not there yet: its frames wait here, raw, masked and in order.

The upgrade is answered at once, whatever the kernel does. Until there is a launcher to splice with, ``Hold`` answers
pings, obeys a Close, pings the client, and keeps data frames up to 1 MiB; then it stops reading and TCP holds the rest.
``refusal`` is what a client is told when the kernel never comes: every request it made ends, so nobody waits for ever.
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
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


def refusal(held: list[bytes], *, why: str, session: str, subprotocol: str | None) -> bytes:
    """End every request among the held frames, in words, and then say that the kernel is dead."""
    said: list[bytes] = []
    for opcode, payload in _whole_messages(held):
        try:
            request = frames.decode(opcode, payload, subprotocol)
        except ValueError:
            continue  # nobody waits for an answer to what is no message
        said += _end_request(request, why, session, subprotocol)
    said.append(status("dead", session=session, subprotocol=subprotocol))
    return b"".join(said)


def _whole_messages(held: list[bytes]) -> Iterator[tuple[Opcode, bytes]]:
    reader = MessageReader(max_message=MAX_MESSAGE, masked=True)
    for raw in held:
        try:
            yield from reader.feed(raw)
        except ProtocolError:
            return


def _end_request(request: frames.ClientMessage, why: str, session: str, subprotocol: str | None) -> Iterator[bytes]:
    msg_type = str(request.header["msg_type"])
    kind, is_request, _ = msg_type.rpartition("_request")
    if not is_request or request.channel not in _ANSWERING:
        return
    parent = request.parts[0]
    error = {"ename": "KernelNotStarted", "evalue": why, "traceback": [f"KernelNotStarted: {why}"]}
    reply: dict[str, Any] = {"status": "error", **error}
    if kind == "execute":
        reply |= {"execution_count": 0, "payload": [], "user_expressions": {}}
        yield message("iopub", "error", error, session=session, subprotocol=subprotocol, parent=parent)
    yield message(request.channel, f"{kind}_reply", reply, session=session, subprotocol=subprotocol, parent=parent)
    idle = {"execution_state": "idle"}
    yield message("iopub", "status", idle, session=session, subprotocol=subprotocol, parent=parent)
