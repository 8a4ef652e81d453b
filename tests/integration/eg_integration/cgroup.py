"""A cgroup with a memory limit, of version 1 or 2, where this host lets us make one."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryCgroup:
    folder: Path

    @classmethod
    def create(cls, limit: int) -> MemoryCgroup | None:
        """None where that is not possible."""
        version1 = (ROOT / "memory").is_dir()
        folder = (ROOT / "memory" if version1 else ROOT) / f"eg-test-{secrets.token_hex(4)}"
        try:
            folder.mkdir()
            (folder / ("memory.limit_in_bytes" if version1 else "memory.max")).write_text(str(limit))
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            return None
        return cls(folder)

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that runs what follows within it."""
        return ("sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh")

    def remove(self) -> None:
        """When its processes have ended, which the caller sees to."""
        deadline = time.monotonic() + 10
        while True:
            try:
                self.folder.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
