"""CPU time and memory of a kernel's processes, measured on real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from eg_launcher import linux
from eg_launcher.usage import session_usage

HUNGRY = """
import os, signal, sys, time
memory = b"x" * (50 << 20)
if os.fork() == 0:
    own = bytearray(os.urandom(1 << 20) * 50)
    if os.fork():
        os._exit(0) if "--orphan" in sys.argv else os.wait()
while time.process_time() < 0.3:
    pass
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def parent(request: pytest.FixtureRequest) -> Iterator[int]:
    """A subreaper with one kernel below it, as the spawner is; the kernel's pid."""
    code = "import os, subprocess, sys\nfrom eg_launcher import linux\nlinux.become_subreaper()\n"
    code += "kernel = subprocess.Popen([sys.executable, '-I', '-S', '-c', *sys.argv[1:]], start_new_session=True)\n"
    code += "print(kernel.pid, flush=True)\nkernel.wait()\nos.wait()"
    command = [sys.executable, "-c", code, HUNGRY, *getattr(request, "param", [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        kernel = int(process.stdout.readline())
        try:
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
            yield kernel
        finally:
            os.killpg(kernel, signal.SIGKILL)
            process.kill()


@pytest.mark.parametrize("parent", [[], ["--orphan"]], indirect=True)
def test_all_of_the_session_counts(parent: int) -> None:
    usage = session_usage(parent)
    assert usage is not None
    assert 0.5 <= usage["cpu_seconds"] < 10
    assert 140 << 20 < usage["memory_bytes"] < 400 << 20


def test_none_when_it_is_gone() -> None:
    process = subprocess.Popen(["true"])
    while (stat := linux.read_stat(process.pid)) is not None and stat.living:
        pass
    assert session_usage(process.pid) is None  # a zombie
    process.wait()
    assert session_usage(process.pid) is None
