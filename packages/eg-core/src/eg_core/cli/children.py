"""The programs that ``eg lab`` runs: each a child in a session of its own (a Ctrl-C reaches only the parent), its
output in a log file, told to end when the parent does, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL = 0.05


class ChildError(Exception):
    """A child ended, or did not get ready in time; the message has the last lines of its log."""


class Child:
    """One program. A context manager: it is told to end by ``end_signal``, and killed after ``grace`` seconds."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        end_signal: signal.Signals = signal.SIGTERM,
        grace: float = 30.0,
    ) -> None:
        self.name = name
        self.log = log
        self._end_signal = end_signal
        self._grace = grace
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(end_signal),  # noqa: PLW1509 - there is one thread
            )
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(self._end_signal)
        try:
            self._process.wait(self._grace)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: it shall be quick
            self._process.kill()
            self._process.wait()

    def ended(self) -> bool:
        return self._process.poll() is not None

    def check(self) -> None:
        """Raise ChildError when it has ended."""
        if self.ended():
            raise ChildError(f"The {self.name} ended (exit code {self._process.returncode}).{self._tail()}")

    def wait_until(self, look: Callable[[], str | None], timeout: float) -> str:
        """Poll ``look`` until it has an answer."""
        deadline = time.monotonic() + timeout
        while (found := look()) is None:
            self.check()
            if time.monotonic() > deadline:
                raise ChildError(f"The {self.name} was not ready within {timeout:g} s.{self._tail()}")
            time.sleep(POLL)
        return found

    def find_in_log(self, pattern: str) -> str | None:
        match = re.search(pattern, self.log.read_text(errors="replace"))
        return match.group(1) if match else None

    def _tail(self, lines: int = 20) -> str:
        said = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "".join(["\nIts last lines:", *(f"\n  {line}" for line in said)]) if said else ""


def _end_with_parent(end_signal: signal.Signals) -> Callable[[], None] | None:
    """For ``preexec_fn``: the signal when the parent dies. Only Linux has it; elsewhere the children stay."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, end_signal)
        if os.getppid() != parent:
            os.kill(os.getpid(), end_signal)

    return prepare
