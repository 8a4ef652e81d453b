"""What a site allows: message types that clients may send, tracebacks that they may see, how much a kernel may say.

``Limits`` is the *limits* of ``POST start``, checked. ``Gate`` applies it to one kernel's messages: it looks at the
header that is parsed anyway, and there is none where everything is allowed. Pure, but for the clock it is given.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from dataclasses import dataclass, fields
from typing import Any, Callable, Deque

from eg_launcher.executions import parse_object

MAX_TYPES = 256
MAX_TEXT = 4096
MAX_RATE = 1e12
MAX_SECONDS = 86400.0
RESUME_BELOW = 0.8
"""Of a limit: what was stopped goes on when there is so much less of it."""

_UNCOUNTED = frozenset({"status", "comm_open", "execute_input"})


@dataclass(frozen=True)
class Limits:
    """Names and meanings are Jupyter Server's. A rate of 0 is none; both count over ``rate_limit_window`` seconds."""

    allow_tracebacks: bool = True
    traceback_replacement_message: str = "An exception occurred at runtime, which is not shown due to security reasons."
    allowed_message_types: tuple[str, ...] = ()
    iopub_msg_rate_limit: float = 0.0
    iopub_data_rate_limit: float = 0.0
    rate_limit_window: float = 3.0
    ws_ping_interval: float = 30.0

    @property
    def rated(self) -> bool:
        return self.iopub_msg_rate_limit > 0 or self.iopub_data_rate_limit > 0


def check_limits(value: Any) -> Limits:
    """A ValueError names the field. Fields it does not know are passed over."""
    if not isinstance(value, dict):
        raise ValueError("'limits' must be an object")
    known = {field.name: field for field in fields(Limits)}
    return Limits(**{name: _checked(name, given) for name, given in value.items() if name in known})


def _checked(name: str, value: Any) -> Any:
    where = f"limits.{name}"
    if name == "allow_tracebacks":
        if not isinstance(value, bool):
            raise ValueError(f"'{where}' must be true or false")
        return value
    if name == "traceback_replacement_message":
        return _text(where, value)
    if name == "allowed_message_types":
        if not isinstance(value, list) or len(value) > MAX_TYPES:
            raise ValueError(f"'{where}' must be a list of at most {MAX_TYPES} names")
        return tuple(_text(where, item) for item in value)
    return _number(where, value, MAX_RATE if name.startswith("iopub") else MAX_SECONDS, name == "rate_limit_window")


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"'{where}' must hold text of at most {MAX_TEXT} characters")
    return value


def _number(where: str, value: Any, most: float, positive: bool) -> float:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not right or not 0 <= value <= most or (positive and value == 0):
        raise ValueError(f"'{where}' must be a number {'above' if positive else 'from'} 0, at most {most:g}")
    return float(value)


class Gate:
    """One kernel's. ``notice``, after a message was stopped, is what to say instead, once."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._allowed = frozenset(limits.allowed_message_types)
        self._clock = clock
        self._window: Deque[tuple[float, int]] = deque()
        self._bytes = 0
        self._stopped: set[str] = set()
        self.notice: str | None = None

    @classmethod
    def of(cls, limits: Limits) -> Gate | None:
        """None: nothing is limited."""
        needed = limits.allowed_message_types or limits.rated or not limits.allow_tracebacks
        return cls(limits) if needed else None

    def lets_in(self, msg_type: str) -> bool:
        """Whether a client may send it."""
        return not self._allowed or msg_type in self._allowed

    def lets_out(self, channel: str, msg_type: str, parts: list[bytes]) -> list[bytes] | None:
        """A kernel's message, as it may be seen; None: it is one too many."""
        if not self._limits.allow_tracebacks and (msg_type == "error" or msg_type.endswith("_reply")):
            parts = self._without_traceback(msg_type, parts)
        if channel == "iopub" and self._limits.rated:
            if msg_type == "status":
                self._on_status(parts)
            elif msg_type not in _UNCOUNTED and self._exceeds(msg_type, sum(map(len, parts))):
                return None
        return parts

    def _without_traceback(self, msg_type: str, parts: list[bytes]) -> list[bytes]:
        content = parse_object(parts[3])
        if msg_type != "error" and content.get("status") != "error":
            return parts
        words = self._limits.traceback_replacement_message
        content.update(ename="ExecutionError", evalue="Execution error", traceback=[words])
        return [*parts[:3], json.dumps(content).encode("ascii"), *parts[4:]]

    def _on_status(self, parts: list[bytes]) -> None:
        """A cell has ended: the next one starts afresh, so that "Run All" is not punished for its length."""
        if b'"idle"' in parts[3]:
            self._window.clear()
            self._bytes = 0
            self._stopped.clear()

    def _exceeds(self, msg_type: str, size: int) -> bool:
        limits, now = self._limits, self._clock()
        while self._window and self._window[0][0] <= now:
            self._bytes -= self._window.popleft()[1]
        size = size if msg_type == "stream" else 0
        window = limits.rate_limit_window
        self._judge("message", (len(self._window) + 1) / window, limits.iopub_msg_rate_limit, "iopub_msg_rate_limit")
        self._judge("data", (self._bytes + size) / window, limits.iopub_data_rate_limit, "iopub_data_rate_limit")
        if self._stopped:
            return True
        self._window.append((now + window, size))
        self._bytes += size
        return False

    def _judge(self, what: str, rate: float, limit: float, option: str) -> None:
        if limit <= 0:
            return
        if rate > limit and what not in self._stopped:
            self._stopped.add(what)
            unit = "messages" if what == "message" else "bytes"
            self.notice = (
                f"IOPub {what} rate exceeded: more than {limit:g} {unit} a second, over "
                f"{self._limits.rate_limit_window:g} s.\nWhat comes beyond that is not shown, so that it does not "
                f"stop the client.\nThe gateway's option {option} sets the limit.\n"
            )
        elif rate < RESUME_BELOW * limit:
            self._stopped.discard(what)
