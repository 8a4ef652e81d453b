"""What the local backend knows of this host's processes: where here is, who lives, how to end one.

A process is its pid *and* its start time, so that a recycled pid is never mistaken for what it was. A place is
host, boot and pid namespace: outside it a pid means nothing.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAUSE = 0.02
PROC = Path("/proc")


@dataclass(frozen=True)
class Place:
    """Where a pid has its meaning."""

    host: str
    boot: str
    namespace: str

    @classmethod
    def here(cls) -> Place:
        return cls(socket.gethostname(), _read(PROC / "sys/kernel/random/boot_id"), _namespace())

    @classmethod
    def of(cls, stored: Any) -> Place | None:
        """The place a handle's state names, or None."""
        if not isinstance(stored, Mapping):
            return None
        return cls(*(str(stored.get(name, "")) for name in ("host", "boot", "namespace")))

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def same_boot(self, other: Place) -> bool:
        """Whether pids of the other place mean the same here (a host may have been renamed meanwhile)."""
        return (self.boot, self.namespace) == (other.boot, other.namespace)


def started(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot; None when there is none, or only its zombie.

    Where there is no ``/proc`` (macOS) it is 0 for every living process.
    """
    if not PROC.joinpath("self").exists():
        return 0 if _exists(pid) else None
    stat = _read(PROC / str(pid) / "stat")
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in {"Z", "X"}:
        return None
    return int(fields[19])


def user() -> str:
    """Who this process runs as: the name of its uid, or the uid where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def alive(pid: int | None, start: int | None) -> bool:
    """Whether that very process lives."""
    return pid is not None and pid > 1 and start is not None and started(pid) == start


async def end(pid: int, start: int, grace: float, *, group: int | None = None) -> None:
    """End a process, or its whole group: SIGTERM, and SIGKILL when ``grace`` is over. Returns when it is gone."""
    until = time.monotonic() + grace
    if grace > 0:
        _signal(pid, start, signal.SIGTERM, group)
        while alive(pid, start) and time.monotonic() < until:  # noqa: ASYNC110 - /proc tells nobody
            await asyncio.sleep(PAUSE)
    while alive(pid, start):
        _signal(pid, start, signal.SIGKILL, group)
        await asyncio.sleep(PAUSE)


def _signal(pid: int, start: int, signum: int, group: int | None) -> None:
    if not alive(pid, start):
        return
    try:
        if group is not None and group > 1:
            os.killpg(group, signum)
        else:
            os.kill(pid, signum)
    except ProcessLookupError:
        pass  # ended between the two lines


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _namespace() -> str:
    try:
        return str(PROC.joinpath("self/ns/pid").readlink())
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
