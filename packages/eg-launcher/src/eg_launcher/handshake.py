"""The WebSocket handshake, the server's side of it. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Mapping

from eg_launcher.http1 import Head, HttpError
from eg_launcher.websocket import accept_key


def check_upgrade(head: Head) -> None:
    """Raise HttpError unless the head is a WebSocket handshake that can be answered."""
    if not head.wants_websocket:
        raise HttpError(400, "upgrade_required", "This address is a WebSocket: ask for an upgrade.")
    if head.headers.get("sec-websocket-version") != "13":
        headers = {"Sec-WebSocket-Version": "13"}
        raise HttpError(400, "bad_upgrade", "Only WebSocket version 13 is spoken here.", headers=headers)
    try:
        key = base64.b64decode(head.headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise HttpError(400, "bad_upgrade", "Sec-WebSocket-Key must be 16 bytes in base64.")


def switching_protocols(head: Head, subprotocol: str | None, headers: Mapping[str, str]) -> bytes:
    """The answer to a head that ``check_upgrade`` let pass."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(head.headers['sec-websocket-key'])}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")
