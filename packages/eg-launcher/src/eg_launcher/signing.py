"""Jupyter's message signatures, over raw parts, and the messages the launcher makes itself."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from datetime import datetime, timezone
from typing import Any, Mapping, Sequence

PROTOCOL_VERSION = "5.3"


class Signer:
    """HMAC over header, parent header, metadata and content. An empty key means that nothing is signed."""

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        kind, _, digest = scheme.partition("-")
        if kind != "hmac" or digest not in hashlib.algorithms_available:
            raise ValueError(f"signature scheme {scheme!r} is unknown; hmac-sha256 is the usual one")
        # RFC 2104 by hand: hmac's objects cost as much again, and this is done for every message.
        inner, outer = hashlib.new(digest), hashlib.new(digest)
        self.signs = bool(key)
        key = hashlib.new(digest, key).digest() if len(key) > inner.block_size else key
        inner.update(bytes(byte ^ 0x36 for byte in key.ljust(inner.block_size, b"\0")))
        outer.update(bytes(byte ^ 0x5C for byte in key.ljust(outer.block_size, b"\0")))
        self._inner, self._outer = inner, outer

    def sign(self, parts: Sequence[bytes]) -> bytes:
        if not self.signs:
            return b""
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts[:4]:
            inner.update(part)
        outer.update(inner.digest())
        return outer.hexdigest().encode("ascii")

    def verify(self, signature: bytes, parts: Sequence[bytes]) -> bool:
        return not self.signs or hmac.compare_digest(self.sign(parts), signature)


def make_message(
    msg_type: str,
    content: Mapping[str, Any],
    *,
    session: str,
    parent_header: bytes = b"{}",
    username: str = "eg",
) -> list[bytes]:
    """The four JSON parts of a message of our own."""
    header = {
        "msg_id": f"{session}_{uuid.uuid4().hex}",
        "msg_type": msg_type,
        "username": username,
        "session": session,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "version": PROTOCOL_VERSION,
    }
    return [json.dumps(header).encode("ascii"), parent_header, b"{}", json.dumps(content).encode("ascii")]
