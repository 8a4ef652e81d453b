"""HTTP/1.1 as far as the launcher needs it: request heads in, responses out. Pure; strict; bounded by its caller.

What a proxy might read differently from us (folded or repeated framing headers, chunked bodies, control characters)
is refused rather than understood.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from eg_launcher import wire

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_LENGTH = re.compile(r"[0-9]{1,15}\Z")
_MAX_QUERY_FIELDS = 32
_ONCE = {"content-length", "host", "authorization", "sec-websocket-key", "sec-websocket-version", "eg-protocol"}


class HttpError(Exception):
    """A refusal: a status, one word for programs and a sentence for people."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def response(self) -> Response:
        body = {"reason": self.reason, "message": self.message, **self.more}
        return Response.of_json(body, self.status, headers=self.headers)


@dataclass(frozen=True)
class Head:
    """A request without its body. Header names are lower case; ``path`` is split and percent-decoded."""

    method: str
    path: tuple[str, ...]
    query: dict[str, str] = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    keep_alive: bool = True
    length: int = 0

    def lists(self, name: str) -> list[str]:
        """The items of a comma-separated header."""
        return [item.strip() for item in self.headers.get(name, "").split(",") if item.strip()]

    @property
    def wants_websocket(self) -> bool:
        return "websocket" in [item.lower() for item in self.lists("upgrade")] and "upgrade" in [
            item.lower() for item in self.lists("connection")
        ]


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, value: Any, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
        # Non-ASCII stays escaped, so that a lone surrogate of a kernel's output cannot make the answer unencodable.
        return cls(status, json.dumps(value, separators=(",", ":")).encode(), JSON, headers or {})

    @classmethod
    def of_text(cls, text: str, status: int = 200) -> Response:
        return cls(status, text.encode(), TEXT)

    def encode(self, *, keep_alive: bool) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}"]
        if self.status != HTTPStatus.NO_CONTENT:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += ["Cache-Control: no-store", f"Connection: {'keep-alive' if keep_alive else 'close'}", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


def parse_head(data: bytes) -> Head:
    """Read a head (without its final empty line). Raises HttpError."""
    first, *rest = data.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not _TOKEN.match(parts[0]) or not parts[2].startswith("HTTP/"):
        raise HttpError(400, "bad_request", "The request line is not HTTP: it must read METHOD PATH HTTP/1.1.")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(400, "bad_request", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    headers = _headers(rest)
    path, query = _target(target)
    tokens = [item.strip().lower() for item in headers.get("connection", "").split(",")]
    return Head(method, path, query, headers, version == "HTTP/1.1" and "close" not in tokens, _length(headers))


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon or not _TOKEN.match(name) or any(ord(c) < 32 and c != "\t" for c in value):
            raise HttpError(400, "bad_request", "A header line is malformed.")
        name = name.lower()
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise HttpError(400, "bad_request", f"The header {name} stands twice.")
        else:
            headers[name] += ", " + value
    return headers


def _length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise HttpError(411, "length_required", "Chunked bodies are not read: send Content-Length.")
    text = headers.get("content-length", "0")
    if not _LENGTH.match(text):
        raise HttpError(400, "bad_request", "Content-Length is not a number.")
    if int(text) > wire.MAX_BODY:
        raise HttpError(413, "too_large", f"The body has {text} bytes; at most {wire.MAX_BODY} are read.")
    return int(text)


def _target(target: str) -> tuple[tuple[str, ...], dict[str, str]]:
    try:
        parts = urlsplit(target)
        path = tuple(unquote(segment, errors="strict") for segment in parts.path.split("/") if segment)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:  # UnicodeDecodeError is one
        raise HttpError(400, "bad_request", "The request's path or query cannot be read.") from None
    if not parts.path.startswith("/") or any(ord(c) < 33 or ord(c) == 127 for c in target):
        raise HttpError(400, "bad_request", "The request's path must begin with a slash.")
    return path, query


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
