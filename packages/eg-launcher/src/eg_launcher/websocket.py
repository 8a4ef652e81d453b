"""RFC 6455 framing, both ways, as pure functions and two readers: no I/O, no HTTP.

``FrameReader`` cuts a byte stream into frames and checks everything the RFC lets a peer get wrong; ``MessageReader``
also joins fragments. No extension is ever spoken, so a set RSV bit is an error. The gateway uses this module too.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import struct
from dataclasses import dataclass

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASK_CHUNK = 64 * 1024  # XOR of integers this long stays in the cache
_MAX_REASON = 123  # a control frame holds 125 bytes, two of them are the code

CLOSE_PROTOCOL_ERROR = 1002
CLOSE_BAD_DATA = 1007
CLOSE_TOO_BIG = 1009
_NEVER_SENT = (1004, 1005, 1006)


class Opcode(enum.IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_OPCODES = {int(opcode): opcode for opcode in Opcode}


class ProtocolError(Exception):
    """The peer broke the protocol; ``code`` is what to say in the Close frame."""

    def __init__(self, message: str, code: int = CLOSE_PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


def accept_key(key: str) -> str:
    """``Sec-WebSocket-Accept`` for a client's ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode("ascii") + _GUID).digest()).decode("ascii")  # noqa: S324 - the RFC's


def apply_mask(mask: bytes, data: bytes) -> bytes:
    """Mask or unmask (it is the same)."""
    size = len(data)
    if size <= _MASK_CHUNK:
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
        return (int.from_bytes(data, "little") ^ key).to_bytes(size, "little")
    return b"".join(apply_mask(mask, data[i : i + _MASK_CHUNK]) for i in range(0, size, _MASK_CHUNK))


def frame_header(opcode: int, length: int, *, mask: bytes | None = None, fin: bool = True) -> bytes:
    first = (0x80 if fin else 0) | opcode
    bit = 0x80 if mask is not None else 0
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head if mask is None else head + mask


def close_payload(code: int, reason: str = "") -> bytes:
    """Code and reason; the reason is cut to what a control frame holds, never within a character."""
    cut = reason.encode("utf-8", "replace")[:_MAX_REASON]
    return struct.pack("!H", code) + cut.decode("utf-8", "ignore").encode("utf-8")


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a received Close frame; 1005 when it says nothing."""
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise ProtocolError("a Close frame's payload of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _NEVER_SENT:
        raise ProtocolError(f"a Close frame with the code {code}, which nobody may send")
    try:
        return code, payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("a Close frame's reason that is not UTF-8", CLOSE_BAD_DATA) from None


@dataclass(frozen=True)
class Frame:
    """One frame, unmasked. ``raw`` holds it as it was received, when the reader was told to keep it."""

    fin: bool
    opcode: Opcode
    payload: bytes
    raw: bytes = b""


class FrameReader:
    """A byte stream in, frames out; fragments stay apart.

    ``masked`` says what the peer must do: True when it is a client. A frame longer than ``max_message`` is refused
    as soon as its header is there, so what is held is bounded by that plus one read.
    """

    def __init__(self, *, max_message: int, masked: bool, keep_raw: bool = False) -> None:
        self._max = max_message
        self._masked = masked
        self._keep_raw = keep_raw
        self._buffer = bytearray()
        self._need = 2
        self._fragmented = False

    @property
    def pending(self) -> bytes:
        """The unfinished tail."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        if len(buffer) < self._need:
            return frames
        at = 0
        while True:
            head = self._head(at)
            if isinstance(head, int):
                self._need = head
                break
            fin, opcode, start, length = head
            end = start + length
            if len(buffer) < end:
                self._need = end - at
                break
            payload = bytes(memoryview(buffer)[start:end])
            if self._masked:
                payload = apply_mask(bytes(buffer[start - 4 : start]), payload)
            frames.append(Frame(fin, opcode, payload, bytes(buffer[at:end]) if self._keep_raw else b""))
            if opcode < Opcode.CLOSE:
                self._fragmented = not fin
            at = end
        del buffer[:at]
        return frames

    def _head(self, at: int) -> tuple[bool, Opcode, int, int] | int:
        """The frame's fin, opcode, start of payload and length; or how many bytes of it are needed to tell."""
        buffer = self._buffer
        have = len(buffer) - at
        if have < 2:
            return 2
        first, second = buffer[at], buffer[at + 1]
        length = second & 0x7F
        extra = 2 if length == 126 else 8 if length == 127 else 0
        size = 2 + extra + (4 if self._masked else 0)
        fin, opcode = self._check(first, second, length)
        if have < size:
            return size
        if extra:
            length = int.from_bytes(buffer[at + 2 : at + 2 + extra], "big")
        if length > self._max:
            raise ProtocolError(f"a frame of {length} bytes; the limit is {self._max}", CLOSE_TOO_BIG)
        return fin, opcode, at + size, length

    def _check(self, first: int, second: int, length: int) -> tuple[bool, Opcode]:
        fin = bool(first & 0x80)
        opcode = _OPCODES.get(first & 0x0F)
        if first & 0x70:
            raise ProtocolError("an RSV bit is set, but no extension was agreed on")
        if opcode is None:
            raise ProtocolError(f"unknown opcode {first & 0x0F}")
        if bool(second & 0x80) is not self._masked:
            raise ProtocolError("a client's frame must be masked" if self._masked else "a server's frame is masked")
        if opcode >= Opcode.CLOSE:
            if not fin or length > 125:
                raise ProtocolError("a control frame is fragmented or longer than 125 bytes")
        elif (opcode is Opcode.CONTINUATION) is not self._fragmented:
            raise ProtocolError("a continuation without a beginning, or a message within a message")
        return fin, opcode


class MessageReader:
    """A byte stream in, whole messages and control frames out, in order of their ends."""

    def __init__(self, *, max_message: int, masked: bool) -> None:
        self._frames = FrameReader(max_message=max_message, masked=masked)
        self._max = max_message
        self._opcode = Opcode.CONTINUATION
        self._parts: list[bytes] = []
        self._size = 0
        self.received = 0
        """Data frames of the messages handed out."""

    def feed(self, data: bytes) -> list[tuple[Opcode, bytes]]:
        messages: list[tuple[Opcode, bytes]] = []
        for frame in self._frames.feed(data):
            if frame.opcode >= Opcode.CLOSE or (frame.fin and frame.opcode is not Opcode.CONTINUATION):
                messages.append((frame.opcode, frame.payload))
                self.received += frame.opcode < Opcode.CLOSE
                continue
            if frame.opcode is not Opcode.CONTINUATION:
                self._opcode = frame.opcode
            self._parts.append(frame.payload)
            self._size += len(frame.payload)
            if self._size > self._max or len(self._parts) > self._max // 1024 + 1024:
                raise ProtocolError(f"a message of more than {self._max} bytes or too many fragments", CLOSE_TOO_BIG)
            if frame.fin:
                messages.append((self._opcode, b"".join(self._parts)))
                self.received += len(self._parts)
                self._parts, self._size = [], 0
        return messages
