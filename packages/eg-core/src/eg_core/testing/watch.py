"""Who holds the event loop: every callback is timed, less what the machine kept from it.

A callback holds the loop when it computed or blocked for longer than the limit. Time in which the thread was
ready to run and another process had the processor does not count, so a busy machine fails nobody. A second thread
looks where a slow callback is, for a callback does not tell whose it was.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

LIMIT = 0.1
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class LoopWatch:
    """Context manager; ``held`` has a line per callback that held the loop: for how long, and where it was."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self.held: list[str] = []
        self._original: Any = None
        self._running: tuple[float, int] | None = None
        self._place = ""
        self._over = threading.Event()
        self._observer = threading.Thread(target=self._observe, daemon=True)

    def __enter__(self) -> LoopWatch:
        original = self._original = asyncio.Handle._run

        def run(handle: asyncio.Handle) -> None:
            began, waited, self._place = time.monotonic(), _waited(), ""
            self._running = (began, threading.get_ident())
            original(handle)
            self._running = None
            took = time.monotonic() - began
            if took > self.limit and took - (_waited() - waited) > self.limit:
                self.held.append(f"{took * 1000:.0f} ms: {self._place or handle!r}")

        asyncio.Handle._run = run  # type: ignore[method-assign, assignment]
        self._observer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.Handle._run = self._original  # type: ignore[method-assign]
        self._over.set()
        self._observer.join()

    def _observe(self) -> None:
        while not self._over.wait(self.limit / 4):
            running = self._running
            if running is not None and not self._place and time.monotonic() - running[0] > self.limit / 2:
                frame = sys._current_frames().get(running[1])
                self._place = "".join(traceback.format_stack(frame)[-3:]) if frame is not None else ""


def _waited() -> float:
    """Seconds that this thread has been ready to run and did not; 0 where the system does not tell."""
    try:
        return int(_SCHEDSTAT.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
