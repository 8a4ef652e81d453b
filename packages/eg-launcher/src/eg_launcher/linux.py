"""What Python lacks of Linux (prctl), and what /proc says of processes. Pure reading, but for the three setters.

Standard library only, no asyncio: the spawner's child imports it. Nothing here raises because a process went
away meanwhile, or because this is not Linux: the answer is then None, False or empty.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Container, Iterable
from typing import NamedTuple, Optional

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37

NOFILE_WANTED = 65536


class ProcessStat(NamedTuple):
    """The fields used here of ``/proc/PID/stat``. ``started`` and the cpu figure are in clock ticks."""

    pid: int
    state: str
    ppid: int
    pgid: int
    sid: int
    cpu_ticks: int
    started: int
    resident_pages: int

    @property
    def living(self) -> bool:
        return self.state not in "ZXx"


def become_subreaper() -> bool:
    """Orphans among this process's descendants become its children from now on."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def is_subreaper() -> bool:
    flag = ctypes.c_int(0)
    return _prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(flag)) and flag.value == 1


def make_undumpable() -> bool:
    """No other process of this user may read this one's memory or environment, and it leaves no core file.

    ``/proc/PID`` of this process then belongs to root: it can still read other processes' entries.
    """
    return _prctl(PR_SET_DUMPABLE, 0)


def die_with_parent(signum: int) -> bool:
    """A second line only: it is lost when a setuid program is executed, and is not inherited by children."""
    return _prctl(PR_SET_PDEATHSIG, signum)


def set_name(name: str) -> bool:
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    return _prctl(PR_SET_NAME, ctypes.addressof(buffer))


def raise_nofile_limit(wanted: int = NOFILE_WANTED) -> int:
    """Raise this process's soft limit of open files towards the hard one; the soft limit it had is returned."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (OSError, ValueError):
            pass  # a system that allows less than it says: the old limit stays
    return soft


def read_file(path: str, limit: int = 1 << 16) -> Optional[bytes]:
    """A small file of a pseudo file system, at most ``limit`` bytes; None when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        chunks = []
        while limit > 0:
            chunk = os.read(descriptor, min(limit, 1 << 16))
            if not chunk:
                break
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    except OSError:
        return None  # it ended while we read
    finally:
        os.close(descriptor)


def read_stat(pid: int) -> Optional[ProcessStat]:
    data = read_file(f"/proc/{pid}/stat")
    if not data:
        return None
    field = data[data.rindex(b")") + 2 :].split()  # a program's name may hold blanks and parentheses
    return ProcessStat(
        pid=pid,
        state=field[0].decode(),
        ppid=int(field[1]),
        pgid=int(field[2]),
        sid=int(field[3]),
        cpu_ticks=sum(int(value) for value in field[11:15]),  # its own, and of children it has waited for
        started=int(field[19]),
        resident_pages=int(field[21]),
    )


def start_time(pid: int) -> int:
    """Field 22 of ``/proc/PID/stat``; 0 where there is none."""
    stat = read_stat(pid)
    return stat.started if stat else 0


def descendants(root: int) -> dict[int, ProcessStat]:
    """Every process below ``root``, zombies included.

    Costs by the number of descendants, not of processes on the host, where the kernel lists children. The list
    is a moment's: who acts on it looks again until nothing is left.
    """
    if _children(root) is None:
        return _descendants_by_parent(root)
    return subtrees([root], skip={root})


def subtrees(roots: Iterable[int], skip: Container[int] = ()) -> dict[int, ProcessStat]:
    """``roots`` and everything below them; a pid in ``skip`` is followed but not told."""
    found: dict[int, ProcessStat] = {}
    queue = list(roots)
    seen = set(queue)
    while queue:
        pid = queue.pop()
        if pid not in skip:
            stat = read_stat(pid)
            if stat is None:
                continue
            found[pid] = stat
        fresh = [child for child in _children(pid) or () if child not in seen]
        seen.update(fresh)
        queue += fresh
    return found


def has_proc() -> bool:
    return read_stat(os.getpid()) is not None


def children(pid: int) -> list[int]:
    return _children(pid) or []


def all_processes() -> dict[int, ProcessStat]:
    stats = (read_stat(pid) for pid in _pids("/proc"))
    return {stat.pid: stat for stat in stats if stat is not None}


def environment_holds(pid: int, entry: str) -> bool:
    """Whether the process was executed with this NAME=value. False where it may not be read."""
    data = read_file(f"/proc/{pid}/environ", limit=8 << 20)
    return data is not None and entry.encode() in data.split(b"\0")


def _descendants_by_parent(root: int) -> dict[int, ProcessStat]:
    processes = all_processes()
    below = {root}
    grown = True
    while grown:
        more = {pid for pid, stat in processes.items() if stat.ppid in below} - below
        below |= more
        grown = bool(more)
    return {pid: processes[pid] for pid in below if pid != root and pid in processes}


def _children(pid: int) -> Optional[list[int]]:
    """Children of all threads of a process; None where the system does not list them (or it is gone)."""
    known = False
    found: list[int] = []
    for thread in _pids(f"/proc/{pid}/task"):
        data = read_file(f"/proc/{pid}/task/{thread}/children")
        if data is not None:
            known = True
            found += map(int, data.split())
    return found if known else None


def _pids(folder: str) -> list[int]:
    try:
        with os.scandir(folder) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdigit()]
    except OSError:
        return []


def _prctl(option: int, argument: int) -> bool:
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False  # not Linux
    zero = ctypes.c_ulong(0)
    return bool(prctl(option, ctypes.c_ulong(argument), zero, zero, zero) == 0)
