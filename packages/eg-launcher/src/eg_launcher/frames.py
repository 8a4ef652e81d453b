"""Jupyter's two WebSocket protocols, pure: a kernel's raw parts to a frame's payload, and back.

*Parts* are a message's JSON as bytes (header, parent header, metadata, content), then its buffers. The default
protocol is spliced from them, never parsed and dumped; ``v1`` carries them behind a table of offsets. Payloads are
lists of buffers, so that a large part is handed on without a copy.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from itertools import accumulate
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Mapping, Sequence

from eg_launcher.websocket import Opcode
from eg_launcher.wire import V1_SUBPROTOCOL

_LARGE = 64 * 1024  # parts from this size on are not copied into one buffer with the others
_MAX_PARTS = 65536
_pack_v1_table = struct.Struct("<7Q").pack  # of a message without buffers
_WHITESPACE = b" \t\r\n"  # JSON's; a text may stand between it


@dataclass(frozen=True)
class ClientMessage:
    """What a client sent: the channel, the parsed header, and the parts as raw JSON bytes and buffers."""

    channel: str
    header: dict[str, Any]
    parts: list[bytes]


def encode(
    channel: str,
    parts: Sequence[bytes],
    subprotocol: str | None,
    *,
    header: Mapping[str, Any] | None = None,
) -> tuple[Opcode, list[bytes]]:
    """A kernel's message as a frame's opcode and payload. ``header`` is ``parts[0]`` parsed, where it is known.

    ValueError when the default protocol cannot carry the parts: what isn't JSON in UTF-8 never becomes a text frame.
    """
    if len(parts) < 4:
        raise ValueError(f"a message has at least 4 parts, not {len(parts)}")
    if subprotocol == V1_SUBPROTOCOL:
        return Opcode.BINARY, _gather([_v1_table(channel, parts), channel.encode("ascii"), *parts])
    text = _splice(channel, parts, header if header is not None else json.loads(parts[0]))
    if len(parts) == 4:
        return Opcode.TEXT, _gather(text)
    return Opcode.BINARY, _gather([_buffer_table(text, parts[4:]), *text, *parts[4:]])


def decode(opcode: Opcode, payload: bytes, subprotocol: str | None) -> ClientMessage:
    """A client's frame. ValueError says in words what is wrong with it.

    A text frame is always the default protocol's, as nothing else can be meant.
    """
    if opcode == Opcode.TEXT:
        return _from_json(payload, [])
    if opcode != Opcode.BINARY:
        raise ValueError("neither a text nor a binary message")
    if subprotocol == V1_SUBPROTOCOL:
        return _from_v1(payload)
    offsets = _offsets(payload, "!I", 4)
    ends = [*offsets[1:], len(payload)]
    chunks = [payload[start:end] for start, end in zip(offsets, ends)]
    return _from_json(chunks[0], chunks[1:])


# -- kernel to client ---------------------------------------------------------------------------------------


def _splice(channel: str, parts: Sequence[bytes], header: Mapping[str, Any]) -> list[bytes]:
    for name, part in zip(("header", "parent_header", "metadata", "content"), parts):
        if (part[:1] != b"{" or part[-1:] != b"}") and not _is_object(part.strip(_WHITESPACE)):
            raise ValueError(f"the message's {name} is not a JSON object")
        if not part.isascii():
            _check_utf8(name, part)
    msg_id, msg_type = quote(str(header.get("msg_id", ""))), quote(str(header.get("msg_type", "")))
    ids = f',"msg_id":{msg_id},"msg_type":{msg_type},"parent_header":'.encode("ascii")
    tail = b',"buffers":[],"channel":"' + channel.encode("ascii") + b'"}'
    return [b'{"header":', parts[0], ids, parts[1], b',"metadata":', parts[2], b',"content":', parts[3], tail]


def _is_object(part: bytes) -> bool:
    return part[:1] == b"{" and part[-1:] == b"}"


def _check_utf8(name: str, part: bytes) -> None:
    try:
        str(part, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the message's {name} is not UTF-8: {error.reason} at byte {error.start}") from None


def _v1_table(channel: str, parts: Sequence[bytes]) -> bytes:
    count = len(parts) + 2
    at = 8 * (count + 1)
    ends = accumulate(map(len, parts), initial=at + len(channel))
    pack = _pack_v1_table if count == 6 else struct.Struct(f"<{count + 1}Q").pack
    return pack(count, at, *ends)


def _buffer_table(text: Sequence[bytes], buffers: Sequence[bytes]) -> bytes:
    count = len(buffers) + 1
    at = 4 * (count + 1)
    offsets = [at]
    at += sum(map(len, text))
    for part in buffers:
        offsets.append(at)
        at += len(part)
    if at >= 1 << 32:
        raise ValueError(f"a message of {at} bytes; the default protocol carries less than 4 GiB")
    return struct.pack(f"!{count + 1}I", count, *offsets)


def _gather(pieces: Sequence[bytes]) -> list[bytes]:
    """Join what is small; leave what is large alone."""
    if sum(map(len, pieces)) < _LARGE:
        return [b"".join(pieces)]
    gathered: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < _LARGE:
            small.append(piece)
            continue
        if small:
            gathered.append(b"".join(small))
            small = []
        gathered.append(piece)
    if small:
        gathered.append(b"".join(small))
    return gathered


# -- client to kernel ---------------------------------------------------------------------------------------


def _from_json(text: bytes, buffers: list[bytes]) -> ClientMessage:
    message = _load_object(text, "message")
    channel = message.get("channel")
    if channel is None:  # jupyter_server's kernel client (nbclient's) names none, and means shell
        channel = "shell"
    header = message.get("header")
    if not isinstance(header, dict):
        raise ValueError("the message has no header object")
    parts = []
    for name in ("header", "parent_header", "metadata", "content"):
        value = message.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ValueError(f"the message's {name} is not an object")
        parts.append(json.dumps(value, separators=(",", ":")).encode("ascii"))
    return _checked(channel, header, parts + buffers)


def _from_v1(payload: bytes) -> ClientMessage:
    offsets = _offsets(payload, "<Q", 8)
    chunks = [payload[start:end] for start, end in zip(offsets, offsets[1:])]
    if len(chunks) < 5:
        raise ValueError(f"the message has {len(chunks)} parts; channel and four are needed")
    header = chunks[1].strip(_WHITESPACE)
    return _checked(chunks[0].decode("ascii", "replace"), _load_object(header, "header"), [header, *chunks[2:]])


def _checked(channel: object, header: dict[str, Any], parts: list[bytes]) -> ClientMessage:
    if not isinstance(channel, str):
        raise ValueError("the message has no channel")
    for name in ("msg_id", "msg_type"):
        if not isinstance(header.get(name), str):
            raise ValueError(f"the message's header has no {name}")
    return ClientMessage(channel, header, parts)


def _load_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"the {what} is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise ValueError(f"the {what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"the {what} is not a JSON object")
    return value


def _offsets(payload: bytes, code: str, width: int) -> list[int]:
    """The table at the start of a binary message: a count, then so many ascending offsets."""
    if len(payload) < width:
        raise ValueError("the binary message is too short for its table of offsets")
    (count,) = struct.unpack_from(code, payload)
    if not 0 < count <= _MAX_PARTS or len(payload) < width * (count + 1):
        raise ValueError(f"the binary message has a table of {count} offsets, which cannot be")
    offsets = list(struct.unpack_from(f"{code[0]}{count}{code[1]}", payload, width))
    bounds = [width * (count + 1), *offsets, len(payload)]
    if any(start > end for start, end in zip(bounds, bounds[1:])):
        raise ValueError("the binary message's offsets are not ascending, or beyond its end")
    return offsets
