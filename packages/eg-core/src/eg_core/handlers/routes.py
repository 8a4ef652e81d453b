"""Every URL of the gateway, in one list."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from tornado import web

from eg_core.handlers.base import NotFoundHandler
from eg_core.handlers.channels import ChannelsHandler
from eg_core.handlers.kernels import (
    KernelActionHandler,
    KernelHandler,
    KernelLogHandler,
    KernelOutputsHandler,
    KernelsHandler,
)
from eg_core.handlers.kernelspecs import KernelspecHandler, KernelspecsHandler, ResourceHandler
from eg_core.handlers.metrics import MetricsHandler
from eg_core.handlers.openapi import OpenApiHandler
from eg_core.handlers.sessions import SessionHandler, SessionsHandler
from eg_core.handlers.status import ApiHandler, HealthHandler, PageHandler, StatusHandler
from eg_core.kernels.sessions import Sessions

KERNEL = r"api/kernels/(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)"
NAME = r"(?P<name>[\w.\-%]+)"

ROUTES: list[tuple[str, type[web.RequestHandler]]] = [
    (r"", PageHandler),
    (r"healthz", HealthHandler),
    (r"metrics", MetricsHandler),
    (r"api", ApiHandler),
    (r"api/status", StatusHandler),
    (r"api/swagger\.(?P<form>json|yaml)", OpenApiHandler),
    (r"api/kernelspecs", KernelspecsHandler),
    (rf"api/kernelspecs/{NAME}", KernelspecHandler),
    (rf"kernelspecs/{NAME}/(?P<path>.+)", ResourceHandler),
    (r"api/kernels", KernelsHandler),
    (KERNEL, KernelHandler),
    (rf"{KERNEL}/(?P<action>interrupt|restart)", KernelActionHandler),
    (rf"{KERNEL}/log", KernelLogHandler),
    (rf"{KERNEL}/outputs", KernelOutputsHandler),
    (rf"{KERNEL}/channels", ChannelsHandler),
    (r"api/sessions", SessionsHandler),
    (r"api/sessions/(?P<session_id>\w+-\w+-\w+-\w+-\w+)", SessionHandler),
]


def _prefix(base_url: str, handler: type[web.RequestHandler]) -> str:
    """jupyter_server's gateway client writes the URL of a WebSocket in lower case, whatever it is."""
    base = re.escape(base_url)
    return f"(?i:{base})" if handler is ChannelsHandler else base


def application(base_url: str, **settings: Any) -> web.Application:
    """The tornado application; ``settings`` are what the handlers read (``base.py``)."""
    return web.Application(
        [(f"{_prefix(base_url, handler)}{pattern}", handler) for pattern, handler in ROUTES],
        default_handler_class=NotFoundHandler,
        base_url=base_url,
        started=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        sessions=Sessions(settings["registry"]),
        **settings,
    )
