"""How a gateway is told to end: by signals, and by a question on the terminal. Used by ``app`` only."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

CONFIRM_WITHIN = 5.0
"""Seconds for an answer to the question whether Ctrl-C was meant; none is a no, as in Jupyter Server."""


class EndSignals:
    """SIGTERM ends the gateway and leaves its kernels. Ctrl-C ends them, too, once it is confirmed where there is a
    terminal to ask at; a second Ctrl-C confirms as well. SIGHUP, a terminal that closes, is nothing."""

    def __init__(self, running: Callable[[], int], log: logging.Logger | Any) -> None:
        self._running = running
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[bool] = self._loop.create_future()
        self._hurry: asyncio.Future[None] = self._loop.create_future()
        self._asking: asyncio.TimerHandle | None = None

    async def wait(self) -> bool:
        """Until it is told to end. True: with its kernels."""
        self._loop.add_signal_handler(signal.SIGTERM, self._terminated)
        self._loop.add_signal_handler(signal.SIGINT, self._interrupted)
        self._loop.add_signal_handler(signal.SIGHUP, lambda: None)
        return await self._told

    async def hurry(self) -> None:
        """Until it is told once more: who waits for an end in order waits no longer."""
        await asyncio.shield(self._hurry)

    def _terminated(self) -> None:
        self._end(with_kernels=False)

    def _interrupted(self) -> None:
        running = self._running()
        if running == 0 or self._asking is not None or self._told.done() or not _is_terminal():
            self._end(with_kernels=True)
            return
        are = "1 kernel is" if running == 1 else f"{running} kernels are"
        print(f"\n{are} running. Shut down this gateway and its kernels (y/[n])? ", end="", file=sys.stderr, flush=True)
        self._asking = self._loop.call_later(CONFIRM_WITHIN, self._resume, f"no answer for {CONFIRM_WITHIN:g} s")
        self._loop.add_reader(sys.stdin.fileno(), self._answered)

    def _answered(self) -> None:
        answer = os.read(sys.stdin.fileno(), 1024).decode(errors="replace").strip().lower()
        if answer.startswith("y"):
            self._log.warning("Shutdown confirmed")
            self._end(with_kernels=True)
        else:
            self._resume("the answer was no")

    def _resume(self, why: str) -> None:
        self._ask_no_more()
        self._log.warning("The gateway goes on: %s. SIGTERM ends it and leaves its kernels running.", why)

    def _ask_no_more(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
            self._loop.remove_reader(sys.stdin.fileno())

    def _end(self, *, with_kernels: bool) -> None:
        self._ask_no_more()
        if not self._told.done():
            self._told.set_result(with_kernels)
        elif not self._hurry.done():
            self._hurry.set_result(None)


def _is_terminal() -> bool:
    try:
        return sys.stdin.isatty() and os.getpgrp() == os.tcgetpgrp(sys.stdin.fileno())
    except (OSError, ValueError):  # closed, or none
        return False
