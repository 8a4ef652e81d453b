"""Why a kernel ended, in one word for programs and one sentence for whoever ran the notebook. Pure, but for reading
the count of processes that were killed because memory had run out, which the system keeps per control group."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any, Callable, Optional

from eg_launcher import linux
from eg_launcher.spawner import ExitStatus

LAST_LINES = 3
MAX_LAST_OUTPUT = 600
TOGETHER = 5.0

_SIGNALS = {
    "SIGSEGV": "it used memory that is not its own; the cause is most often a compiled library",
    "SIGBUS": "it used memory that could not be had; a full /dev/shm or a file cut short does this",
    "SIGABRT": "a library it uses gave up",
    "SIGILL": "a compiled library uses instructions this CPU does not have",
    "SIGFPE": "a compiled library divided by zero",
    "SIGXCPU": "its limit of CPU time is used up",
    "SIGTERM": "somebody or something asked it to end",
    "SIGINT": "it was interrupted while it could not handle that",
    "SIGHUP": "its terminal or its host's session has ended",
}


def describe_exit(
    status: ExitStatus,
    *,
    stderr: list[str],
    oom_before: Optional[int],
    oom_after: Optional[int],
    asked: bool,
    never_answered: Optional[float] = None,
) -> dict[str, Any]:
    """The protocol's *exit* object.

    ``asked``: a shutdown or restart was asked for. ``never_answered``: it was killed because it was not ready
    after so many seconds. The counts are what ``OutOfMemory.at_death`` says.
    """
    name, killed = _signal_name(status), _killed_for_memory(status, oom_before, oom_after)
    if asked:
        reason, sentence = "shutdown", "The kernel was shut down."
    elif never_answered is not None:
        reason, sentence = "never_answered", f"The kernel did not answer within {never_answered:g} seconds."
    elif killed:
        plural = "process" if killed == 1 else "processes"
        sentence = (
            f"The kernel was killed because its machine or container ran out of memory ({killed} {plural} killed)."
        )
        reason = "out_of_memory"
    elif name is not None:
        reason, sentence = "signal", _signal_sentence(name, oom_after)
    elif status.code is not None:
        reason, sentence = "exited", _code_sentence(status.code)
    else:
        reason, sentence = "lost", "The kernel is gone: the process that had started it has ended."
    output = _last_output(stderr)
    if output and not asked:
        sentence = f"{sentence} Last output: {output}"
    return {"reason": reason, "code": status.code, "signal": name, "stderr": list(stderr), "message": sentence}


def without_process(message: str, *, reason: str = "exited") -> dict[str, Any]:
    """The *exit* of a kernel that has no process of ours (any more)."""
    return {"reason": reason, "code": None, "signal": None, "stderr": [], "message": message}


def _killed_for_memory(status: ExitStatus, before: Optional[int], after: Optional[int]) -> int:
    """How many processes were killed for want of memory, if that ended the kernel."""
    if not was_killed(status) or before is None or after is None:
        return 0
    return max(0, after - before)


def was_killed(status: ExitStatus) -> bool:
    """By SIGKILL: itself, or the one a shell ran for it."""
    return signal.SIGKILL in (status.signal, (status.code or 0) - 128)


def _signal_name(status: ExitStatus) -> Optional[str]:
    if status.signal is None:
        return None
    try:
        return signal.Signals(status.signal).name
    except ValueError:
        return f"signal {status.signal}"  # a real-time one


def _signal_sentence(name: str, oom_after: Optional[int]) -> str:
    if name == "SIGKILL":
        likely = "somebody or something" if oom_after is not None else "somebody, or the system when memory ran out,"
        return f"The kernel was killed by SIGKILL: {likely} ended it from outside."
    meaning = _SIGNALS.get(name)
    return f"The kernel was ended by {name}{': ' + meaning if meaning else ''}."


def _code_sentence(code: int) -> str:
    if code == 0:
        return "The kernel ended by itself, without an error (exit code 0)."
    hint = {126: ": a command could not be executed", 127: ": a command was not found"}.get(code, "")
    if not hint and 128 < code < 160:
        try:
            hint = f": a process of it was ended by {signal.Signals(code - 128).name}"
        except ValueError:
            pass  # not a shell's way of telling a signal, then
    return f"The kernel ended with exit code {code}{hint}."


def _last_output(lines: list[str]) -> str:
    kept = [line.strip() for line in lines if line.strip()][-LAST_LINES:]
    text = " | ".join(kept)
    return text if len(text) <= MAX_LAST_OUTPUT else "…" + text[-MAX_LAST_OUTPUT:]


class OutOfMemory:
    """One launcher's view of the count, read whenever one of its kernels has ended, and now and then: a kill explains
    one death, and only one that follows within ``TOGETHER`` seconds of being seen."""

    def __init__(
        self,
        count: Optional[Callable[[], Optional[int]]] = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = count or oom_kill_count
        self._monotonic = monotonic
        self._seen = self._read()
        self._spare = 0
        self._spare_until = 0.0

    def at_death(self, status: ExitStatus) -> tuple[Optional[int], Optional[int]]:
        """The count before and after what may have ended this kernel."""
        now = self.look()
        if now is None:
            return None, None
        before = now - self._spare
        if self._spare and was_killed(status):
            self._spare -= 1
        return before, now

    def look(self) -> Optional[int]:
        """The count now. To be called every few seconds: what it finds was no kernel's end when none has ended."""
        now, seen = self._read(), self._seen
        self._seen = now
        moment = self._monotonic()
        if moment > self._spare_until:
            self._spare = 0
        if now is not None and seen is not None and now > seen:
            self._spare += now - seen
            self._spare_until = moment + TOGETHER
        return now


def oom_kill_count() -> Optional[int]:
    """Processes of this control group that were killed for want of memory, since it was made.

    Of the whole machine where the launcher is in no group with a count of its own; None where nobody counts.
    """
    for path in _count_files():
        count = _read_count(path)
        if count is not None:
            return count
    return _read_count("/proc/vmstat")


def _read_count(path: str) -> Optional[int]:
    data = linux.read_file(path)
    match = re.search(rb"^oom_kill (\d+)$", data, re.MULTILINE) if data else None
    return int(match[1]) if match else None


def _count_files() -> list[str]:
    """Where the count may be: this process's groups (v1 names its controllers, v2 has none), below their mounts."""
    groups = linux.read_file("/proc/self/cgroup") or b""
    mounts = linux.read_file("/proc/self/mountinfo", limit=1 << 20) or b""
    return count_files(groups.decode(errors="replace"), mounts.decode(errors="replace"))


def count_files(groups: str, mounts: str) -> list[str]:
    files = []
    for line in groups.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if "memory" in controllers.split(","):
            kind, option, name = "cgroup", "memory", "memory.oom_control"
        elif hierarchy == "0" and not controllers:
            kind, option, name = "cgroup2", "", "memory.events"
        else:
            continue
        for root, point in _mounts_of(mounts, kind, option):
            # In a container the mount shows only the group's own part of the tree, and `root` is where that begins.
            inside = os.path.relpath(group, root) if group.startswith(root) else "."
            files.append(os.path.normpath(f"{point}/{inside}/{name}"))
    return files


def _mounts_of(mounts: str, kind: str, option: str) -> list[tuple[str, str]]:
    found = []
    for line in mounts.splitlines():
        fields, _, tail = line.partition(" - ")
        described = tail.split()
        if len(described) >= 3 and described[0] == kind and (not option or option in described[2].split(",")):
            parts = fields.split()
            found.append((parts[3], parts[4]))
    return found
