"""The log's lines: who asked (request id), who for (user) and about which kernel stands on every one of them.

What a line is about is a context variable: set where a request or a kernel's task begins, inherited by what it starts,
read by the formatter. Tasks that serve many kernels begin ``apart``. Two formats: for people (Enterprise Gateway's,
with milliseconds) and JSON, one object a line; secrets are masked in both.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from eg_core import redact

HUMAN = "[%(levelname)1.1s %(asctime)s.%(msecs).03d %(name)s] %(message)s"
JSON_FORMAT = "json"
HUMAN_FORMAT = "human"
OTHERS = ("tornado", "asyncio", "sqlalchemy", "alembic", "py.warnings")
"""Loggers of libraries, whose warnings are written in the same format."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+=/@-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class About:
    request_id: str | None = None
    user: str | None = None
    kernel_id: str | None = None

    def fields(self) -> dict[str, str | None]:
        return {"request_id": self.request_id, "user": self.user, "kernel_id": self.kernel_id}


_about: contextvars.ContextVar[About] = contextvars.ContextVar("eg_about", default=About())  # noqa: B039 - frozen


def bind(**fields: str | None) -> None:
    """From here on, in this task and in what it starts. Fields: those of ``About``."""
    _about.set(replace(_about.get(), **fields))


@contextlib.contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """In this block."""
    token = _about.set(replace(_about.get(), **fields))
    try:
        yield
    finally:
        _about.reset(token)


def current() -> About:
    return _about.get()


def apart(begin: Callable[[], _Result]) -> _Result:
    """Call ``begin`` in a context that is about nothing: a task it creates belongs to no request."""
    return contextvars.Context().run(begin)


def request_id(given: str | None) -> str:
    """The client's own ``X-Request-ID`` if it is a plain word of at most 128 characters, else a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class Formatter(logging.Formatter):
    """``style`` is ``human``, ``json`` or a format string of the logging module. ``secrets`` are asked line by line."""

    def __init__(
        self, style: str = HUMAN_FORMAT, datefmt: str | None = None, secrets: Callable[[], Iterable[str]] = tuple
    ) -> None:
        super().__init__(HUMAN if style in (HUMAN_FORMAT, JSON_FORMAT) else style, datefmt)
        self._json = style == JSON_FORMAT
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        for name in ("color", "end_color", "highlevel"):  # of format strings made for tornado and traitlets
            record.__dict__.setdefault(name, "")
        fields = {name: getattr(record, name, None) or value for name, value in current().fields().items()}
        return self._as_json(record, fields) if self._json else self._as_text(record, fields)

    def _as_text(self, record: logging.LogRecord, fields: dict[str, str | None]) -> str:
        first, newline, rest = super().format(record).partition("\n")
        known = " ".join(f"{name}={value}" for name, value in fields.items() if value).replace("\n", r"\n")
        if known:
            first = f"{first} {{{known}}}"
        # What a client has sent may be in a message: it must not begin a line, move the cursor or turn the text.
        text = redact.text(first + (newline + rest).replace("\n", "\n    "), *self._secrets())
        return _CONTROL.sub(_escape, text)

    def _as_json(self, record: logging.LogRecord, fields: dict[str, str | None]) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        http = getattr(record, "http", None)
        if http is not None:
            line["http"] = http
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(self._clean(line), ensure_ascii=False, default=str)

    def _clean(self, value: Any) -> Any:
        """Masked before it is JSON, which writes some characters of a secret in another way."""
        if isinstance(value, str):
            return redact.text(value, *self._secrets())
        if isinstance(value, dict):
            return {key: self._clean(each) for key, each in value.items()}
        return value


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def logging_config(config: dict[str, Any], *, style: str, datefmt: str, secrets: Callable[[], Iterable[str]]) -> Any:
    """The configuration that traitlets has for the log, with our formatter, and with the libraries' loggers."""
    config["formatters"]["console"] = {"()": Formatter, "style": style, "datefmt": datefmt, "secrets": secrets}
    for name in OTHERS:
        config["loggers"].setdefault(name, {"level": "WARNING", "handlers": ["console"]})
    return config


class RequestLog:
    """tornado's ``log_function``: one line a request (no query, which may hold a token), and its duration counted."""

    def __init__(
        self, log: logging.Logger | logging.LoggerAdapter[Any], count: Callable[[str, str, int, float], None]
    ) -> None:
        self._log = log
        self._count = count

    def __call__(self, handler: Any) -> None:
        status, request = handler.get_status(), handler.request
        seconds = request.request_time()
        self._count(type(handler).__name__, request.method, status, seconds)
        http = {
            "method": request.method,
            "path": request.path,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "remote_ip": request.remote_ip,
        }
        level = logging.INFO if status < 400 or status == 404 else logging.WARNING
        self._log.log(
            level,
            "%d %s %s %.1f ms",
            status,
            request.method,
            request.path,
            1000 * seconds,
            extra={"http": http, "request_id": getattr(handler, "request_id", None)},
        )
