"""Why a kernel ended: the words, the count of the system, and a real process that runs out of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from eg_launcher.death import OutOfMemory, count_files, describe_exit, oom_kill_count
from eg_launcher.spawner import ExitStatus

KILLED = ExitStatus(None, signal.SIGKILL)
CGROUP_V1 = Path("/sys/fs/cgroup/memory")
CGROUP_V2 = Path("/sys/fs/cgroup")


def describe(status: ExitStatus, **others: Any) -> dict[str, Any]:
    given = {"stderr": [], "oom_before": 0, "oom_after": 0, "asked": False, **others}
    return describe_exit(status, **given)


def test_an_exit_code_with_its_last_words() -> None:
    lines = ["Traceback", "  File", "", "ModuleNotFoundError: No module named 'ipykernel'"]
    exit_ = describe(ExitStatus(1, None), stderr=lines)
    assert (exit_["reason"], exit_["code"], exit_["signal"], exit_["stderr"]) == ("exited", 1, None, lines)
    assert exit_["message"] == (
        "The kernel ended with exit code 1. Last output: "
        "Traceback | File | ModuleNotFoundError: No module named 'ipykernel'"
    )


@pytest.mark.parametrize(
    ("status", "others", "reason", "words"),
    [
        (ExitStatus(0, None), {}, "exited", "without an error"),
        (ExitStatus(127, None), {}, "exited", "127: a command was not found"),
        (ExitStatus(139, None), {}, "exited", "139: a process of it was ended by SIGSEGV"),
        (ExitStatus(255, None), {}, "exited", "exit code 255."),
        (ExitStatus(None, signal.SIGSEGV), {}, "signal", "SIGSEGV: it used memory that is not its own"),
        (ExitStatus(None, signal.SIGKILL), {}, "signal", "SIGKILL: somebody or something ended it from outside"),
        (ExitStatus(None, signal.SIGKILL), {"oom_after": None}, "signal", "or the system when memory ran out"),
        (ExitStatus(None, signal.SIGUSR1), {}, "signal", "ended by SIGUSR1."),
        (ExitStatus(None, 40), {}, "signal", "ended by signal 40"),
        (ExitStatus(None, signal.SIGKILL), {"oom_after": 1}, "out_of_memory", "ran out of memory (1 process killed)"),
        (ExitStatus(None, signal.SIGKILL), {"oom_after": 2}, "out_of_memory", "(2 processes killed)"),
        (ExitStatus(137, None), {"oom_after": 1}, "out_of_memory", "ran out of memory"),
        (ExitStatus(1, None), {"oom_after": 1}, "exited", "exit code 1"),
        (ExitStatus(None, signal.SIGKILL), {"never_answered": 60.0}, "never_answered", "within 60 seconds"),
        (ExitStatus(None, signal.SIGKILL), {"asked": True, "stderr": ["x"]}, "shutdown", "The kernel was shut down."),
        (ExitStatus(None, None), {}, "lost", "The kernel is gone"),
    ],
)
def test_reason_and_sentence(status: ExitStatus, others: dict[str, Any], reason: str, words: str) -> None:
    exit_ = describe(status, **others)
    assert exit_["reason"] == reason
    assert words in exit_["message"]
    assert "\n" not in exit_["message"]
    json.dumps(exit_)


def test_the_last_output_is_bounded() -> None:
    assert len(describe(ExitStatus(1, None), stderr=["x" * 1000] * 20)["message"]) < 700


def test_where_the_count_is() -> None:
    v1 = "9:name=systemd:/a\n4:cpu,memory:/docker/abc\n0::/docker/abc\n"
    v1_mounts = (
        "30 20 0:26 /docker/abc /sys/fs/cgroup/memory ro,nosuid shared:1 - cgroup cgroup rw,memory\n"
        "31 20 0:27 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
    )
    assert count_files(v1, v1_mounts) == ["/sys/fs/cgroup/memory/memory.oom_control"]
    host = "30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert count_files(v1, host) == ["/sys/fs/cgroup/memory/docker/abc/memory.oom_control"]
    v2_mounts = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    assert count_files("0::/user.slice/a\n", v2_mounts) == ["/sys/fs/cgroup/user.slice/a/memory.events"]
    assert count_files("0::/\n", v2_mounts) == ["/sys/fs/cgroup/memory.events"]
    assert count_files("", "") == []
    assert count_files("0::/../outside\n", "") == []


def test_the_count_of_this_machine_is_a_number_where_there_is_one() -> None:
    count = oom_kill_count()
    if not Path("/proc/vmstat").exists():
        pytest.skip("no /proc/vmstat: nobody counts here")
    assert isinstance(count, int)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 64 MiB that a process may enter; needs root and a memory controller."""
    name = f"eg-test-{uuid.uuid4().hex[:12]}"
    version_1 = (CGROUP_V1 / "memory.oom_control").exists()
    group = (CGROUP_V1 if version_1 else CGROUP_V2) / name
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(64 << 20))
        swap = group / ("memory.memsw.limit_in_bytes" if version_1 else "memory.swap.max")
        if swap.exists():
            swap.write_text(str(64 << 20) if version_1 else "0")
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group of its own can be made here: {error}")
    yield group
    group.rmdir()


OUT_OF_MEMORY = """
import asyncio, json, os, signal, sys

async def main():
    from eg_launcher.death import describe_exit, oom_kill_count
    from eg_launcher.spawner import Spawner
    spawner = await Spawner.open()
    before, ended = oom_kill_count(), asyncio.get_running_loop().create_future()
    code = "x = []\\nwhile True: x.append(b'x' * (1 << 20))"
    process = await spawner.spawn([*sys.argv[1:], sys.executable, "-c", code], dict(os.environ), None, 2)
    spawner.watch(process.pid, ended.set_result)
    status = await ended
    exit_ = describe_exit(status, stderr=[], oom_before=before, oom_after=oom_kill_count(), asked=False)
    await spawner.close()
    print(json.dumps(exit_))

with open(os.environ["GROUP"] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
asyncio.run(main())
"""


@pytest.mark.parametrize("through", [[], ["bash", "-c", '"$@"; exit $?', "bash"]])
def test_a_kernel_that_really_runs_out_of_memory(small_group: Path, through: list[str]) -> None:
    env = {**os.environ, "GROUP": str(small_group)}
    command = [sys.executable, "-c", OUT_OF_MEMORY, *through]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 0, done.stderr  # the launcher and the spawner are alive: the kernel was taken
    exit_ = json.loads(done.stdout)
    assert exit_["reason"] == "out_of_memory"
    assert "ran out of memory (1 process killed)" in exit_["message"]


class Counter:
    """What the system would have counted; the clock goes by hand."""

    def __init__(self, count: Optional[int] = 0) -> None:
        self.count = count
        self.now = 100.0
        self.watch = OutOfMemory(lambda: self.count, lambda: self.now)

    def reason(self, status: ExitStatus = KILLED) -> str:
        before, after = self.watch.at_death(status)
        exit_ = describe_exit(status, stderr=[], oom_before=before, oom_after=after, asked=False)
        return str(exit_["reason"])


def test_a_kill_for_memory_explains_one_death() -> None:
    counter = Counter(7)
    assert counter.reason() == "signal"
    counter.count = 8
    assert counter.reason() == "out_of_memory"
    assert counter.reason() == "signal"  # of another kernel, by somebody


def test_kernels_that_memory_took_together_are_all_explained() -> None:
    counter = Counter()
    counter.count = 2
    assert counter.reason(ExitStatus(0, None)) == "exited"  # beside them; its reading does not take theirs away
    assert [counter.reason() for _ in range(3)] == ["out_of_memory", "out_of_memory", "signal"]


def test_what_memory_took_some_time_ago_was_no_kernel() -> None:
    counter = Counter()
    counter.count = 1
    counter.watch.look()
    counter.now += 4
    assert counter.watch.look() == 1
    counter.now += 2
    assert counter.reason() == "signal"


def test_where_nobody_counts_nothing_is_claimed() -> None:
    counter = Counter(None)
    assert counter.reason() == "signal"
    counter.count = 5
    assert counter.reason() == "signal"  # since when?
    counter.count = 6
    assert counter.reason() == "out_of_memory"
