"""The HTTP server: every bound of what is read before a handler sees it.

A body that is too large is read to its end, or to a bound, and thrown away, so that its sender reads why it was
refused. Nothing of the body of a request without the token is kept.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.web import Application

from eg_core.handlers import credential

MAX_HEAD = 64 * 1024
MAX_BODY = 1024 * 1024
MAX_DISCARDED = 16 * 1024 * 1024
"""Bytes of a body that is too large which are read all the same; beyond them the connection is cut."""
BODY_WITHIN = 30.0
HEAD_WITHIN = 60.0
"""Seconds in which a request's head must come, also the next one of a connection that is kept."""

REST = 0.5
"""Seconds in which nobody is accepted once there is no descriptor for them."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_BOUND = 1 << 60  # tornado's own answer to a large body has no words
_DIGITS = re.compile(r"[0-9]{1,18}")


class GatewayServer(HTTPServer):
    def initialize(self, application: Application, **kwargs: Any) -> None:  # type: ignore[override]
        self._application = application
        super().initialize(application, **kwargs)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        super().add_sockets([_Listener(fileno=sock.detach()) for sock in sockets])

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        inner = super().start_request(server_conn, request_conn)
        return _Bounded(inner, request_conn, self._application.settings)


def make_server(
    application: Application,
    *,
    tls: ssl.SSLContext | None = None,
    trust_xheaders: bool = False,
    head_within: float = HEAD_WITHIN,
    body_within: float = BODY_WITHIN,
) -> GatewayServer:
    return GatewayServer(
        application,
        ssl_options=tls,
        xheaders=trust_xheaders,
        max_header_size=MAX_HEAD,
        max_body_size=_NO_BOUND,
        body_timeout=body_within,
        idle_connection_timeout=head_within,
    )


class _Listener(socket.socket):
    """When there is no descriptor for one more, the loop would call again at once, for ever: rest a while, and who
    waits to be accepted waits in the backlog."""

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            loop = IOLoop.current()
            loop.update_handler(self, 0)
            loop.call_later(REST, self._go_on, loop)
            raise BlockingIOError from error  # tornado takes it for "nobody waits"

    def _go_on(self, loop: IOLoop) -> None:
        if self.fileno() >= 0:  # else it was closed meanwhile
            loop.update_handler(self, IOLoop.READ)


class _Bounded(HTTPMessageDelegate):
    """One request on its way to the application: its body within bounds, or not at all."""

    def __init__(self, inner: HTTPMessageDelegate, connection: HTTPConnection, settings: dict[str, Any]) -> None:
        self._inner = inner
        self._connection = connection
        self._settings = settings
        self._keep: bool | None = None
        self._start: RequestStartLine | None = None
        self._headers = HTTPHeaders()
        self._size = 0
        self._refused = False
        self._ended = False

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> Any:
        assert isinstance(start_line, RequestStartLine)
        self._start, self._headers = start_line, headers
        length = headers.get("Content-Length", "0")
        if _DIGITS.fullmatch(length) and int(length) > MAX_BODY:
            at_once = "Expect" in headers  # nothing of it is sent yet
            self._refuse(close=at_once or int(length) > MAX_DISCARDED)
            if at_once:
                self._end()
            return None
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        self._size += len(chunk)
        if self._size > MAX_BODY and not self._refused:
            self._inner.on_connection_close()
            self._refuse()
        if self._refused:
            if self._size > MAX_DISCARDED:
                self._end()
            return None
        if self._keep is None:
            self._keep = self._has_token()
        return self._inner.data_received(chunk) if self._keep else None

    def finish(self) -> None:
        if self._refused:
            self._end()
        else:
            self._inner.finish()

    def on_connection_close(self) -> None:
        if not self._refused:
            self._inner.on_connection_close()

    def _has_token(self) -> bool:
        assert self._start is not None
        try:
            query = urlsplit(self._start.path).query
        except ValueError:
            query = ""
        return credential.is_right(credential.given_token(query, self._headers), self._settings["auth_token"])

    def _refuse(self, *, close: bool = False) -> None:
        """Say why at once. The answer ends when the body has passed: closing the connection under a body, as tornado
        does then, can take the answer along."""
        self._refused = True
        assert self._start is not None
        method, path = self._start.method, self._start.path.partition("?")[0]
        self._settings["log"].warning("413 %s %s", method, path)
        message = f"The request's body is larger than {MAX_BODY} bytes, which is the most that is read."
        body = json.dumps({"reason": "Request Entity Too Large", "message": message}).encode()
        headers = HTTPHeaders({"Content-Type": "application/json", "Content-Length": str(len(body))})
        if close:
            headers["Connection"] = "close"
        start_line = ResponseStartLine("HTTP/1.1", 413, "Request Entity Too Large")
        self._connection.write_headers(start_line, headers, None if method == "HEAD" else body)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._connection.finish()
