"""Who holds the event loop: every callback is timed, less what the machine kept from it.

A callback holds the loop when it computed or blocked for longer than the limit. Time in which the thread was
ready to run and another process had the processor does not count, so a busy machine fails nobody.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Any

LIMIT = 0.1
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class LoopWatch:
    """Context manager; ``held`` has a line per callback that held the loop."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self.held: list[str] = []
        self._original: Any = None

    def __enter__(self) -> LoopWatch:
        original = self._original = asyncio.Handle._run

        def run(handle: asyncio.Handle) -> None:
            began, waited = time.monotonic(), _waited()
            original(handle)
            took = time.monotonic() - began
            if took > self.limit and took - (_waited() - waited) > self.limit:
                self.held.append(f"{took * 1000:.0f} ms: {handle!r}")

        asyncio.Handle._run = run  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.Handle._run = self._original  # type: ignore[method-assign]


def _waited() -> float:
    """Seconds that this thread has been ready to run and did not; 0 where the system does not tell."""
    try:
        return int(_SCHEDSTAT.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
