"""CPU time and memory of a kernel's processes, from /proc. No state, no sampling; some 20 µs a process and thread."""

from __future__ import annotations

import os
from typing import Optional, Union

from eg_launcher import linux


def session_usage(pid: int) -> Optional[dict[str, Union[int, float]]]:
    """``cpu_seconds`` and ``memory_bytes`` of the kernel ``pid`` and all it has started; None when it is gone.

    CPU time counts children that have ended and were waited for. Memory that processes share counts once.
    """
    leader = linux.read_stat(pid)
    if leader is None or not leader.living:
        return None
    processes = linux.subtrees([pid, *_orphans(leader)])
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    private, shared = 0, 0
    for stat in processes.values():
        common = min(_shared_pages(stat.pid), stat.resident_pages)
        private += stat.resident_pages - common
        shared = max(shared, common)
    cpu = sum(stat.cpu_ticks for stat in processes.values())
    return {"cpu_seconds": cpu / ticks, "memory_bytes": (private + shared) * page}


def _orphans(leader: linux.ProcessStat) -> list[int]:
    """Processes of the session whose parents have ended: the spawner is their parent now."""
    found = []
    for pid in linux.children(leader.ppid):
        try:
            if pid != leader.pid and os.getsid(pid) == leader.pid:
                found.append(pid)
        except OSError:
            pass  # it has ended
    return found


def _shared_pages(pid: int) -> int:
    fields = (linux.read_file(f"/proc/{pid}/statm") or b"").split()
    return int(fields[2]) if len(fields) > 2 else 0
