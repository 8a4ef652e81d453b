"""What /proc says, and the flags of this process, each tried in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eg_launcher import linux


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_stat_of_a_program_with_an_odd_name(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to(sys.executable)
    with subprocess.Popen([odd, "-c", "input()"], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        while b"a) R 1 (b" not in (linux.read_file(f"/proc/{process.pid}/stat") or b""):
            assert time.monotonic() < deadline
        stat = linux.read_stat(process.pid)
        process.kill()
    assert stat is not None
    assert (stat.ppid, stat.sid) == (os.getpid(), os.getsid(0))
    assert stat.started > 0


def test_what_is_not_there() -> None:
    none = 2**22 + 1  # above the largest pid there is
    assert linux.read_stat(none) is None
    assert linux.start_time(none) == 0
    assert linux.descendants(none) == {}
    assert linux.children(none) == []
    assert not linux.environment_holds(none, "A=1")
    assert linux.read_file("/no/such/file") is None


@pytest.mark.parametrize("look", [linux.descendants, linux._descendants_by_parent])
def test_descendants_both_ways(look: object) -> None:
    assert callable(look)
    with subprocess.Popen(["sh", "-c", "sleep 1000 & echo; sleep 1000; true"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 10
        while len(look(process.pid)) < 2:
            assert time.monotonic() < deadline
        found = look(process.pid)
        process.kill()
        for pid in found:
            os.kill(pid, 9)
    assert {stat.ppid for stat in found.values()} == {process.pid}


def test_subreaper_flag() -> None:
    code = "from eg_launcher import linux as l; print(l.is_subreaper(), l.become_subreaper(), l.is_subreaper())"
    assert run(code) == "False True True"


def test_an_undumpable_process_still_reads_others() -> None:
    code = "import os; from eg_launcher import linux as l; print(l.make_undumpable(), l.has_proc(), "
    code += "l.start_time(os.getppid()) > 0, l.start_time(os.getpid()) > 0)"
    assert run(code) == "True True True True"


def test_nofile_is_raised_and_the_old_limit_told() -> None:
    code = "import resource as r; from eg_launcher import linux as l; h = r.getrlimit(r.RLIMIT_NOFILE)[1]; "
    code += "r.setrlimit(r.RLIMIT_NOFILE, (100, h)); print(l.raise_nofile_limit(200), r.getrlimit(r.RLIMIT_NOFILE)[0], "
    code += "l.raise_nofile_limit(50), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    assert run(code) == "100 200 200 200"
