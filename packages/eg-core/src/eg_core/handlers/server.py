"""The HTTP server: every bound of what is read before a handler sees it."""

from __future__ import annotations

import ssl

from tornado.httpserver import HTTPServer
from tornado.web import Application

MAX_HEAD = 64 * 1024
MAX_BODY = 1024 * 1024
BODY_WITHIN = 30.0
HEAD_WITHIN = 60.0
"""Seconds in which a request's head must come, also the next one of a connection that is kept."""


def make_server(
    application: Application,
    *,
    tls: ssl.SSLContext | None = None,
    trust_xheaders: bool = False,
    head_within: float = HEAD_WITHIN,
    body_within: float = BODY_WITHIN,
) -> HTTPServer:
    return HTTPServer(
        application,
        ssl_options=tls,
        xheaders=trust_xheaders,
        max_header_size=MAX_HEAD,
        max_body_size=MAX_BODY,
        body_timeout=body_within,
        idle_connection_timeout=head_within,
    )
