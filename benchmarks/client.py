"""The measuring client: blocking sockets, standard library, both sub-protocols; it is light, so that it is no limit.

Nothing of the project is used here: the contestants are judged by code that is neither's. ``Channels`` is one
WebSocket; ``burst`` counts messages without decoding them, at well under a microsecond each.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from typing import Any

V1 = "v1.kernel.websocket.jupyter.org"
JSON = ""
PROTOCOLS = {"v1": V1, "json": JSON}
ANSWER_WITHIN = 20.0
"""Seconds. Enterprise Gateway now and then loses a new kernel's first output when many start: then that is said."""
SLOWEST = 200
"""Messages of a burst a second: who is slower is not measured to the end."""
LOOK = 1024
"""In so many bytes of a message its type stands."""


class Failed(Exception):
    """A contestant did not do what was asked of it."""


def call(port: int, method: str, path: str, body: Any = None, timeout: float = 120.0) -> tuple[int, Any]:
    """One request on a connection of its own, as the stock clients do. Status and JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"{method} {path}: {error!r}") from error
    finally:
        connection.close()
    return response.status, json.loads(text) if text else None


class Unspoken(Failed):
    """It does not speak this sub-protocol."""


@dataclass(frozen=True)
class Burst:
    """``count`` stream messages: how long from the request to the last, bytes of payload, this client's CPU."""

    count: int
    seconds: float
    payload: int
    client_cpu: float


class Channels:
    """One kernel's WebSocket. Whatever is waited for comes by a deadline, or ``Failed`` is raised."""

    def __init__(
        self, port: int, path: str, protocol: str, timeout: float = ANSWER_WITHIN, *, session: str = ""
    ) -> None:
        self._v1 = protocol == V1
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self.session = session or uuid.uuid4().hex
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._made = 0
        try:
            self._upgrade(port, f"{path}?session_id={self.session}", protocol)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _upgrade(self, port: int, path: str, protocol: str) -> None:
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer[:] = rest
        if not head.startswith(b"HTTP/1.1 101"):
            raise Failed(f"{path}: {head.splitlines()[0].decode()}")
        if protocol and protocol.encode() not in head:
            raise Unspoken(f"{protocol} was offered and not chosen")

    def _receive(self) -> None:
        self._in_time()
        data = self._socket.recv(1 << 20)
        if not data:
            raise Failed("the socket was closed")
        self._buffer += data

    def _in_time(self) -> None:
        """The socket's own timeout is not enough: pings go on."""
        if time.monotonic() > self._deadline:
            raise Failed(f"what was asked for did not come within {self._timeout:g} s")

    # -- one message at a time ---------------------------------------------------------------------------------

    def execute(self, code: str) -> str:
        """Send a request; its msg_id."""
        self._deadline = time.monotonic() + self._timeout
        self._made += 1
        msg_id = f"{self.session}_{self._made}"
        header = {
            "msg_id": msg_id,
            "msg_type": "execute_request",
            "username": "bench",
            "session": self.session,
            "date": "2026-01-01T00:00:00.000000Z",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        self._send_frame(*encode(header, content, v1=self._v1))
        return msg_id

    def message(self) -> dict[str, Any]:
        """The next message, with its ``channel``, ``header``, ``parent_header`` and ``content``."""
        while True:
            opcode, payload = self._frame()
            if opcode == 9:
                self._send_frame(10, payload)
            elif opcode == 8:
                raise Failed(f"the socket was closed: {payload[:2].hex()} {payload[2:].decode(errors='replace')}")
            elif opcode in (1, 2):
                return decode(payload, v1=self._v1)

    def round_trip(self, code: str = "echo") -> float:
        """Seconds from a request until its reply, its output and its ``idle`` have come."""
        began = time.perf_counter()
        msg_id = self.execute(code)
        missing = {"execute_reply", "stream", "idle"}
        while missing:
            message = self.message()
            if message["parent_header"].get("msg_id") == msg_id:
                missing -= {message["header"]["msg_type"], message["content"].get("execution_state", "")}
        return time.perf_counter() - began

    def first_output(self, code: str) -> str:
        """Run this; the text that it writes first."""
        msg_id = self.execute(code)
        while True:
            message = self.message()
            if message["header"]["msg_type"] == "stream" and message["parent_header"].get("msg_id") == msg_id:
                return str(message["content"]["text"])

    def _frame(self) -> tuple[int, bytes]:
        buffer = self._buffer
        while True:
            head, length = frame_head(buffer, 0, len(buffer))
            if head and len(buffer) >= head + length:
                opcode, payload = buffer[0] & 15, bytes(buffer[head : head + length])
                del buffer[: head + length]
                return opcode, payload
            self._receive()

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        """The mask is zero: a client may choose it, and this one has nothing to hide from a proxy."""
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size))
        else:
            head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
        self._socket.sendall(head + bytes(4) + payload)

    # -- many --------------------------------------------------------------------------------------------------

    def prepare(self, count: int, size: int) -> None:
        """Have the stub kernel make so many messages of so much text, for the burst that comes next."""
        self.round_trip(f"prepare {count} {size}")

    def burst(self, count: int) -> Burst:
        """Have them sent, and count them."""
        spent, began = time.thread_time(), time.perf_counter()
        self.execute("blast")
        self._deadline += count / SLOWEST
        buffer = bytearray(1 << 20)
        view = memoryview(buffer)
        have = len(self._buffer)
        buffer[:have] = self._buffer
        self._buffer.clear()
        seen = skip = payload = 0
        while seen < count or skip:
            self._in_time()
            got = self._socket.recv_into(view[have:])
            if not got:
                raise Failed(f"the socket was closed after {seen} of {count} messages")
            have += got
            at = 0
            while True:
                step = min(skip, have - at)
                at, skip = at + step, skip - step
                if skip:
                    break
                head, length = frame_head(buffer, at, have)
                if not head or have - at < head + min(length, LOOK):
                    break
                opcode = buffer[at] & 15
                if opcode == 9:
                    self._send_frame(10, bytes(buffer[at + head : at + head + length]))
                elif buffer.find(b'"stream"', at + head, at + head + min(length, LOOK)) >= 0:
                    seen += 1
                    payload += length
                at, skip = at + head, length
            view[: have - at] = view[at:have]
            have -= at
        took = time.perf_counter() - began
        self._buffer += view[:have]
        return Burst(seen, took, payload, time.thread_time() - spent)


def frame_head(buffer: bytearray, at: int, end: int) -> tuple[int, int]:
    """Length of an unmasked frame's head and of its payload; (0, 0) when the head is not whole."""
    if end - at < 2:
        return 0, 0
    length = buffer[at + 1]
    if length < 126:
        return 2, length
    head = 4 if length == 126 else 10
    if end - at < head:
        return 0, 0
    return head, int.from_bytes(buffer[at + 2 : at + head], "big")


def encode(header: dict[str, Any], content: dict[str, Any], *, v1: bool) -> tuple[int, bytes]:
    """A message on the shell channel: opcode and payload."""
    if not v1:
        message = {
            "channel": "shell",
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "buffers": [],
        }
        return 1, json.dumps(message).encode()
    parts = [b"shell", json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode()]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    numbers = (len(offsets), *offsets)
    return 2, b"".join([*(number.to_bytes(8, "little") for number in numbers), *parts])


def decode(payload: bytes, *, v1: bool) -> dict[str, Any]:
    if not v1:
        message: dict[str, Any] = json.loads(payload)
        return message
    number = int.from_bytes(payload[:8], "little")
    offsets = [int.from_bytes(payload[8 * at : 8 * at + 8], "little") for at in range(1, number + 1)]
    channel, header, parent, _, content = (
        payload[start:end]
        for start, end in zip(offsets[:5], offsets[1:6], strict=True)  # noqa: RUF007 - five of them
    )
    return {
        "channel": channel.decode(),
        "header": json.loads(header),
        "parent_header": json.loads(parent),
        "content": json.loads(content),
    }
