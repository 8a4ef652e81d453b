"""The steps of a gateway under test: which it has taken, and making it wait at one (``stepping_gateway.py``)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from eg_integration.waiting import wait_until


class Steps:
    """A point is a step's name and number and ``before`` or ``after``, such as ``launcher start 1 before``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "at").mkdir(parents=True)

    def plan(self, kernel_id: str, *stops: str) -> None:
        """From now on count the steps of an operation on this kernel, and wait at those points."""
        self.clear()
        self._write(uuid.uuid4().hex, kernel_id, stops)

    def stop_at(self, *stops: str) -> None:
        """Wait there, in the operation that is planned already."""
        plan = json.loads((self.folder / "plan").read_text())
        self._write(plan["operation"], plan["kernel"], stops)

    def _write(self, operation: str, kernel_id: str, stops: tuple[str, ...]) -> None:
        new = self.folder / "new"
        new.write_text(json.dumps({"operation": operation, "kernel": kernel_id, "stops": stops}))
        new.replace(self.folder / "plan")

    def clear(self) -> None:
        """Nothing counts any more, nobody waits."""
        for path in (self.folder / "plan", self.folder / "trace", *(self.folder / "at").iterdir()):
            path.unlink(missing_ok=True)

    def wait_at(self, point: str, timeout: float = 30.0) -> None:
        try:
            wait_until((self.folder / "at" / point).exists, f"the gateway to come to {point!r}", timeout, 0.01)
        except AssertionError as error:
            raise AssertionError(f"{error}; it came to: {self}") from None

    def go_on(self) -> None:
        """Whoever waits goes on."""
        for path in (self.folder / "at").iterdir():
            path.unlink(missing_ok=True)

    def trace(self) -> list[str]:
        """The points that were reached, in order."""
        trace = self.folder / "trace"
        return trace.read_text().splitlines() if trace.exists() else []

    def __str__(self) -> str:
        return ", ".join(self.trace()) or "none"
