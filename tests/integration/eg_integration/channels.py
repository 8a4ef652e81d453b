"""One WebSocket to a kernel, in either of Jupyter's sub-protocols, blocking.

Written from the protocols' documents and with nothing of the code under test, so that both cannot share a mistake.
"""

from __future__ import annotations

import json
import struct
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

import websocket

V1 = "v1.kernel.websocket.jupyter.org"


@dataclass(frozen=True)
class Message:
    channel: str
    header: dict[str, Any]
    parent: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[bytes]
    at: float = field(default_factory=time.monotonic, compare=False)

    @property
    def type(self) -> str:
        return str(self.header.get("msg_type"))

    @property
    def parent_id(self) -> str | None:
        return self.parent.get("msg_id")


@dataclass
class Execution:
    """What one request has brought: its reply and its iopub messages, in order."""

    reply: dict[str, Any]
    iopub: list[Message]

    @property
    def text(self) -> str:
        return "".join(m.content["text"] for m in self.iopub if m.type == "stream")

    @property
    def error(self) -> dict[str, Any] | None:
        return next((m.content for m in self.iopub if m.type == "error"), None)


class Closed(Exception):
    """The other side closed: ``code`` and ``reason`` of its Close frame, 1006 without one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason!r}")
        self.code, self.reason = code, reason


class Channels:
    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        session: str | None = None,
        subprotocol: str | None = None,
        timeout: float = 20.0,
        sockopt: Sequence[tuple[int, int, int]] = (),
        query: str = "",
    ) -> None:
        self.session = session or uuid.uuid4().hex
        header = [f"Authorization: token {token}"] if token else []
        self.socket = websocket.create_connection(
            f"{url}?session_id={self.session}{query}",
            timeout=timeout,
            header=header,
            subprotocols=[subprotocol] if subprotocol else None,
            sockopt=list(sockopt),
            suppress_origin=True,
            enable_multithread=True,
            skip_utf8_validation=True,  # pure Python there, and slower than any kernel
        )
        self.subprotocol = self.socket.getsubprotocol()
        self.seen: list[Message] = []

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.shutdown()

    # -- sending

    def send(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        buffers: Sequence[bytes] = (),
        parent: dict[str, Any] | None = None,
        subshell_id: str | None = None,
    ) -> str:
        """Send one message; its msg_id."""
        header = new_header(msg_type, self.session, subshell_id)
        data = pack(self.subprotocol, channel, [header, parent or {}, {}, content], buffers)
        if isinstance(data, bytes):
            self.socket.send_binary(data)
        else:
            self.socket.send(data)
        return header["msg_id"]

    def execute(self, code: str, **more: Any) -> str:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        return self.send("execute_request", {**content, "user_expressions": {}, **more})

    # -- receiving

    def receive(self, timeout: float) -> Message | None:
        """The next message, or None when none came in time; also kept in ``seen``."""
        self.socket.settimeout(max(timeout, 0.001))
        try:
            opcode, payload = self.socket.recv_data(control_frame=False)
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketConnectionClosedException, ConnectionError) as error:
            raise Closed(1006, str(error)) from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
            raise Closed(code, payload[2:].decode(errors="replace"))
        message = unpack(self.subprotocol, opcode == websocket.ABNF.OPCODE_BINARY, payload)
        self.seen.append(message)
        return message

    def wait_for(self, wanted: Callable[[Message], bool], what: str, timeout: float = 20.0) -> Message:
        """The first *new* message that is wanted."""
        deadline = time.monotonic() + timeout
        count = len(self.seen)
        while (left := deadline - time.monotonic()) > 0:
            message = self.receive(left)
            if message is not None and wanted(message):
                return message
        last = [(m.channel, m.type, str(m.content)[:100]) for m in self.seen[count:][-5:]]
        raise AssertionError(f"not within {timeout:g} s: {what}; {len(self.seen) - count} other messages, last {last}")

    def finish(self, msg_id: str, timeout: float = 30.0) -> Execution:
        """Read until the request has its reply *and* its idle."""
        mine = [m for m in self.seen if m.parent_id == msg_id]
        deadline = time.monotonic() + timeout
        while not (any(replies(m) for m in mine) and any(idles(m) for m in mine)):
            left = max(deadline - time.monotonic(), 0)
            mine.append(self.wait_for(lambda m: m.parent_id == msg_id, f"the end of request {msg_id}", left))
        reply = next(m for m in mine if replies(m))
        return Execution(reply.content, [m for m in mine if m.channel == "iopub"])

    def run(self, code: str, timeout: float = 30.0, **more: Any) -> Execution:
        return self.finish(self.execute(code, **more), timeout)

    def value(self, expression: str, timeout: float = 30.0) -> Any:
        """A Python value out of the kernel, by way of JSON."""
        done = self.run(f"import json as _j; print(_j.dumps({expression}))", timeout, store_history=False)
        assert done.reply["status"] == "ok", done.reply
        return json.loads(done.text)

    def until_closed(self, timeout: float = 20.0) -> Closed:
        """Read on until the other side closes; what it said."""
        deadline = time.monotonic() + timeout
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.receive(left)
        except Closed as closed:
            return closed
        raise AssertionError(f"the socket was not closed within {timeout:g} s")


def new_header(msg_type: str, session: str, subshell_id: str | None = None) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "username": "test",
        "session": session,
        "date": datetime.now(tz=timezone.utc).isoformat(),
        "version": "5.3",
    }
    return header if subshell_id is None else {**header, "subshell_id": subshell_id}


def pack(
    subprotocol: str | None, channel: str, parts: Sequence[dict[str, Any]], buffers: Sequence[bytes] = ()
) -> str | bytes:
    """One message as the payload of a frame, text or binary. ``parts``: header, parent, metadata, content."""
    if subprotocol == V1:
        return _pack_v1(channel, [json.dumps(part).encode() for part in parts], buffers)
    names = ("header", "parent_header", "metadata", "content")
    text = json.dumps({"channel": channel, "buffers": [], **dict(zip(names, parts, strict=True))})
    return _pack_default(text.encode(), buffers) if buffers else text


def unpack(subprotocol: str | None, binary: bool, payload: bytes) -> Message:
    if subprotocol == V1:
        count = int.from_bytes(payload[:8], "little")
        offsets = struct.unpack(f"<{count}Q", payload[8 : 8 * (count + 1)])
        channel, *parts = (payload[a:b] for a, b in pairwise(offsets))
        header, parent, metadata, content = (json.loads(part) for part in parts[:4])
        return Message(channel.decode(), header, parent, metadata, content, parts[4:])
    buffers: list[bytes] = []
    if binary:
        count = int.from_bytes(payload[:4], "big")
        offsets = (*struct.unpack(f"!{count}I", payload[4 : 4 * (count + 1)]), len(payload))
        buffers = [payload[a:b] for a, b in pairwise(offsets[1:])]
        payload = payload[offsets[0] : offsets[1]]
    whole = json.loads(payload)
    return Message(
        whole["channel"], whole["header"], whole["parent_header"], whole["metadata"], whole["content"], buffers
    )


def replies(message: Message) -> bool:
    return message.channel in {"shell", "control"} and message.type.endswith("_reply")


def idles(message: Message) -> bool:
    return message.type == "status" and message.content["execution_state"] == "idle"


def _pack_v1(channel: str, parts: list[bytes], buffers: Sequence[bytes]) -> bytes:
    pieces = [channel.encode(), *parts, *buffers]
    offsets = [8 * (len(pieces) + 2)]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(pieces)


def _pack_default(text: bytes, buffers: Sequence[bytes]) -> bytes:
    pieces = [text, *buffers]
    offsets = [4 * (len(pieces) + 1)]
    for piece in pieces[:-1]:
        offsets.append(offsets[-1] + len(piece))
    return struct.pack(f"!{len(pieces) + 1}I", len(pieces), *offsets) + b"".join(pieces)
