"""Which processes belong to a gateway under test, as far as this host's /proc tells.

Each gateway under test has a folder of its own, which is its HOME and that of all it starts: a process belongs to it
if that folder stands in its environment or command line, or if an ancestor does. Nothing else is ever signalled.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eg_integration.waiting import wait_until


@dataclass(frozen=True)
class Found:
    pid: int
    parent: int
    started: int
    command: str
    environ: str

    def alive(self) -> bool:
        now = _look(self.pid)
        return now is not None and now.started == self.started


def processes_of(folder: Path) -> list[Found]:
    """All living processes (no zombies) that belong to ``folder``, the calling process excepted."""
    everything = {found.pid: found for pid in Path("/proc").glob("[0-9]*") if (found := _look(int(pid.name)))}
    mark = str(folder)
    mine = {pid for pid, found in everything.items() if mark in found.environ or mark in found.command}
    while more := {pid for pid, found in everything.items() if found.parent in mine and pid not in mine}:
        mine |= more
    mine.discard(os.getpid())
    return [everything[pid] for pid in sorted(mine)]


def kernels_of(folder: Path) -> list[Found]:
    """Those of them that run ipykernel itself."""
    return [found for found in processes_of(folder) if "ipykernel" in found.command and "bash" not in found.command]


def wait_gone(found: Iterable[Found], timeout: float = 15.0) -> None:
    """Until none of these processes is left; a recycled pid is not mistaken for one."""
    rest = list(found)
    wait_until(
        lambda: not [one for one in rest if one.alive()],
        f"these processes to be gone: {[(one.pid, one.command[:80]) for one in rest]}",
        timeout,
    )


def end_all(folder: Path) -> list[Found]:
    """SIGKILL whatever still belongs to ``folder``; what that was."""
    ended: list[Found] = []
    while found := processes_of(folder):
        for one in found:
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        ended += found
        wait_gone(found)
    return ended


def resident(pid: int) -> int:
    """Memory of one process in bytes, without what it shares with files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no RssAnon of process {pid}")


def _look(pid: int) -> Found | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:  # another user's, or not dumpable
        environ = ""
    state, parent, *rest = stat.rpartition(")")[2].split()
    if state in "ZX":
        return None
    return Found(pid, int(parent), int(rest[17]), command, environ)
