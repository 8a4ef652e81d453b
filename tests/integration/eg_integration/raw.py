"""Requests and frames to the byte, right or wrong, as no client library would send them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from eg_integration.gateway import Gateway

KEY = "eHh4eHh4eHh4eHh4eHh4eA=="


def head(gateway: Gateway, line: str, *headers: str) -> bytes:
    """A request's head with Host and token."""
    where = urlsplit(gateway.url).netloc
    return "\r\n".join([line, f"Host: {where}", f"Authorization: token {gateway.token}", *headers, "", ""]).encode()


@contextmanager
def raw_socket(gateway: Gateway) -> Iterator[socket.socket]:
    where = urlsplit(gateway.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as sock:
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """Up to the connection's end."""
    data = bytearray()
    with suppress(ConnectionError):
        while part := sock.recv(65536):
            data += part
    return bytes(data)


def upgrade(gateway: Gateway, kernel_id: str, *headers: str, query: str = "") -> bytes:
    line = f"GET /api/kernels/{kernel_id}/channels{query} HTTP/1.1"
    return head(gateway, line, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                f"Sec-WebSocket-Key: {KEY}", *headers)  # fmt: skip


def frame(opcode: int, payload: bytes, *, first: int = 0x80) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes([first | opcode]) + length + bytes(4) + payload


def read_until(sock: socket.socket, words: bytes) -> bytes:
    data = b""
    while words not in data:
        part = sock.recv(65536)
        assert part, f"the connection ended before {words!r}: {data!r}"
        data += part
    return data
