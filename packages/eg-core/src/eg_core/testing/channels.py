"""One kernel's WebSocket as an exact peer uses it: cut, it comes back and misses nothing, and has nothing twice.

Jupyter's default sub-protocol over ``websocket-client``. The launcher's pings say where the client stands; it counts
the messages since, and says both when it comes back (``after`` and ``skip``, docs/developers/launcher-protocol.md).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import websocket

from eg_launcher.wire import CLOSE_RESTART, parse_ping

TIMEOUT = 30.0
_RETRY_FIRST, _RETRY_MOST = 0.05, 1.0


@dataclass
class Execution:
    """What one request has brought: outputs as in a notebook, and the reply."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.reply.get("status", ""))

    @property
    def text(self) -> str:
        """Streams and plain results, joined."""
        parts = (out.get("text") or out.get("data", {}).get("text/plain", "") for out in self.outputs)
        return "".join(parts)

    @property
    def error(self) -> str:
        """``ename: evalue``, empty if there was none."""
        return next((f"{o['ename']}: {o['evalue']}" for o in self.outputs if o["output_type"] == "error"), "")


class Channels:
    """``dial`` opens the WebSocket with a query; a living kernel's is dialled again when it is cut, unless
    ``comes_back`` is False. What was sent and is lost with a connection is not sent again."""

    def __init__(self, dial: Callable[[str], websocket.WebSocket], *, comes_back: bool = True) -> None:
        self.session = uuid.uuid4().hex
        self.cuts = 0
        self._dial = dial
        self._comes_back = comes_back
        self._place = ""
        self._behind = 0  # messages since the ping that told the place
        self._socket = dial(self._query())

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close(timeout=1)
        # What the other side has closed is left open by that.
        self._socket.shutdown()  # type: ignore[no-untyped-call]

    def send(self, channel: str, msg_type: str, content: dict[str, Any]) -> str:
        """Send one message; its id."""
        msg_id = uuid.uuid4().hex
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": self.session,
            "username": "test",
            "version": "5.3",
            "date": "2000-01-01T00:00:00.000000Z",
        }
        message = {"channel": channel, "header": header, "parent_header": {}, "metadata": {}, "content": content}
        try:
            self._socket.send(json.dumps(message | {"buffers": []}))
        except (OSError, websocket.WebSocketConnectionClosedException) as error:
            self._come_back(error, time.monotonic() + TIMEOUT)
            self._socket.send(json.dumps(message | {"buffers": []}))
        return msg_id

    def receive(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The next message; TimeoutError if there is none in time, ConnectionError with code and reason at a Close."""
        until = time.monotonic() + timeout
        while True:
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                opcode, data = self._socket.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException as error:
                raise TimeoutError(f"no message in {timeout:.1f} s") from error
            except (OSError, websocket.WebSocketConnectionClosedException) as error:
                self._come_back(error, until)
                continue
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                self._closed(data, until)
            elif opcode == websocket.ABNF.OPCODE_PING:  # answered by the library
                self._heard(data)
            elif opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
                self._behind += 1
                if opcode == websocket.ABNF.OPCODE_BINARY:
                    data = data[int.from_bytes(data[4:8], "big") :].split(b"\0", 1)[0]
                return dict(json.loads(data))

    def _heard(self, payload: bytes) -> None:
        ping = parse_ping(payload)
        if ping is not None:
            epoch, number, serial, _ = ping
            self._place = f"{epoch}.{number}.{serial}" if serial else ""
            self._behind = 0

    def _query(self) -> str:
        at = f"&after={self._place}&skip={self._behind}" if self._place else ""
        return f"session_id={self.session}{at}"

    def _closed(self, data: bytes, until: float) -> None:
        code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
        error = ConnectionError(f"closed with {code}: {data[2:].decode(errors='replace')}")
        if code != CLOSE_RESTART:
            raise error
        self._come_back(error, until)

    def _come_back(self, why: Exception, until: float) -> None:
        """Raises ConnectionError when it may not, or cannot by then."""
        self._socket.shutdown()  # type: ignore[no-untyped-call]
        self.cuts += 1
        delay = _RETRY_FIRST
        while self._comes_back and time.monotonic() < until:
            try:
                self._socket = self._dial(self._query())
            except websocket.WebSocketBadStatusException as refused:
                raise ConnectionError(f"not taken back: {refused}") from refused
            except (OSError, websocket.WebSocketException):
                time.sleep(delay)
                delay = min(2 * delay, _RETRY_MOST)
            else:
                return
        raise ConnectionError(str(why)) from why

    def request(self, code: str, **content: Any) -> str:
        """Send an ``execute_request``; its id."""
        defaults = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        return self.send("shell", "execute_request", defaults | {"allow_stdin": False, "stop_on_error": True} | content)

    def result(self, msg_id: str, timeout: float = TIMEOUT) -> Execution:
        """Collect what belongs to a request until it is idle and replied to."""
        execution, idle, until = Execution(), False, time.monotonic() + timeout
        while not (idle and execution.reply):
            message = self.receive(until - time.monotonic())
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "execute_reply":
                execution.reply = content
            elif kind == "status":
                idle = content["execution_state"] == "idle"
            elif kind in {"stream", "display_data", "execute_result", "error"}:
                execution.outputs.append({"output_type": kind, **content})
        return execution

    def execute(self, code: str, timeout: float = TIMEOUT) -> Execution:
        """Run code and return what it brought."""
        return self.result(self.request(code), timeout)
