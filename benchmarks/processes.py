"""Processes that end with the run, whatever ends it, and what /proc says about them. Linux only.

The runner is a subreaper: what a gateway detaches (our launcher) or leaves behind (an incumbent's kernels) becomes
the runner's child, so "everything that descends from me" is exactly what was started here, and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Also: as many descriptors as the system allows, for this process and all that it starts."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(argv: Sequence[str], env: Mapping[str, str], log: Path, stdin: int | IO[bytes] | None = None) -> int:
    """A process in a session of its own (a Ctrl-C is the runner's business). Its id."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl, and no thread of the runner runs yet
        )
    process.returncode = 0  # reaped by end(), like everything else
    return process.pid


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])


def tree(roots: Sequence[int]) -> list[int]:
    """These processes and all that descend from them now."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    todo = list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, ())
    return found


def end(roots: Sequence[int], deadline: float = 10.0) -> None:
    """Kill these and their descendants, and wait until they are gone."""
    until = time.monotonic() + deadline
    doomed = set(tree(roots))
    while True:
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        doomed = {pid for pid in doomed if exists(pid)} | (set(tree(roots)) - set(roots))
        if not doomed or time.monotonic() > until:
            return
        time.sleep(0.01)


def end_all() -> None:
    """Everything that descends from this process."""
    me = os.getpid()
    for _ in range(20):
        left = [pid for pid in tree([me]) if pid != me]
        reap()
        if not left:
            return
        end(left)


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def exists(pid: int) -> bool:
    """A zombie is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cpu(pid: int) -> float:
    """Seconds of CPU of the threads it has now; to the nanosecond where the system keeps that."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            spent += int((task / "schedstat").read_text().split()[0])
    if spent:
        return spent / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1])
    raise ValueError(f"/proc/{pid}/status has no {field}")


def resident_kib(pid: int) -> float:
    return _status(pid, "VmRSS:")


def peak_kib(pid: int) -> float:
    return _status(pid, "VmHWM:")


def forget_peak(pid: int) -> None:
    """From now on ``peak_kib`` is the peak since now (of our launcher, which nobody may look into, only for root)."""
    with contextlib.suppress(PermissionError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int | None:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return None


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
