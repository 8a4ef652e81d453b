"""The spawner against real processes: what starts, what a kernel finds around itself, and that nothing outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from eg_launcher import linux
from eg_launcher.spawner import ExitStatus, Spawner, SpawnError

DEADLINE = 20.0
PYTHON = [sys.executable, "-I", "-S", "-c"]
SLEEP = ["sleep", "1000"]
ENV = {"PATH": os.environ["PATH"]}

# A kernel with every kind of offspring. Each says its name and pid; "ready" is last.
TREE = """
import os, signal, sys, time

def child(name, *, session=False, orphan=False, environment=None):
    reader, writer = os.pipe()
    if os.fork() == 0:
        if session:
            os.setsid()
        if orphan and os.fork():
            os._exit(0)
        print(name, os.getpid(), flush=True)
        if environment is not None:
            os.write(writer, b".")
            os.execvpe("sleep", ["sleep", "1000"], environment)
        if session and not orphan:
            if os.fork():
                signal.pause()
            print(name + "-child", os.getpid(), flush=True)
        os.write(writer, b".")
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    if orphan:
        os.wait()

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("kernel", os.getpid(), flush=True)
child("child")
child("session", session=True)
child("orphan", orphan=True)
child("daemon", session=True, orphan=True)
if "--bare" in sys.argv:
    child("bare", session=True, orphan=True, environment={"PATH": os.environ["PATH"]})
print("ready", os.getpid(), flush=True)
if "--exit" in sys.argv:
    os._exit(3)
signal.pause()
"""
KINDS = {"kernel", "child", "session", "session-child", "orphan", "daemon"}


def tree(*options: str) -> list[str]:
    """Through a shell that stays in between."""
    return ["bash", "-c", '"$@"; exit $?', "bash", *PYTHON, TREE, *options]


LIST_DESCRIPTORS = """
import os
for number in range(1024):
    try:
        os.fstat(number)
    except OSError:
        continue
    print((number, os.readlink(f"/proc/self/fd/{number}")))
"""


class Output:
    """A pipe for a kernel to write to. What it starts is known by the pids it tells, and ended at the test's end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.text = ""
        self.started: dict[int, int] = {}

    def read(self) -> str:
        try:
            while data := os.read(self.reader, 1 << 16):
                self.text += data.decode()
        except BlockingIOError:
            pass
        return self.text

    def processes(self) -> dict[str, int]:
        found = {}
        for line in self.read().splitlines():
            name, _, pid = line.partition(" ")
            if pid.isdigit() and self.text.endswith("\n"):
                found[name] = int(pid)
                self.started.setdefault(int(pid), linux.start_time(int(pid)))
        return found

    async def ready(self) -> dict[str, int]:
        await until(lambda: "ready" in self.processes() and len(self.processes()) > len(KINDS))
        processes = self.processes()
        del processes["ready"]
        return processes

    def close(self) -> None:
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(self.reader)
        os.close(self.writer)

    def living(self) -> list[int]:
        return [pid for pid, started in self.started.items() if living(pid, started)]


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def living(pid: int, started: int | None = None) -> bool:
    stat = linux.read_stat(pid)
    return stat is not None and stat.living and (started is None or stat.started == started)


async def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.005)


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    spawner = await Spawner.open()
    yield spawner
    await spawner.close()


@pytest.fixture
def output() -> Iterator[Output]:
    output = Output()
    yield output
    output.close()


@pytest.fixture
def other_output() -> Iterator[Output]:
    output = Output()
    yield output
    output.close()


async def run(spawner: Spawner, output: Output, argv: list[str], env: dict[str, str] = ENV) -> tuple[ExitStatus, str]:
    process = await spawner.spawn(argv, env, "/", output.writer)
    ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
    spawner.watch(process.pid, ended.set_result)
    status = await asyncio.wait_for(ended, DEADLINE)
    return status, output.read()


# starting


async def test_says_who_the_process_is(spawner: Spawner, output: Output) -> None:
    process = await spawner.spawn(SLEEP, ENV, None, output.writer)
    stat = linux.read_stat(process.pid)
    assert stat is not None
    assert (process.pid, process.pgid, process.started) == (stat.pid, stat.pgid, stat.started)
    assert stat.sid == process.pid
    assert set(process.as_dict()) == {"pid", "pgid", "started", "host"}


async def test_exit_code_and_output_arrive(spawner: Spawner, output: Output) -> None:
    status, text = await run(spawner, output, ["sh", "-c", "pwd; echo error >&2; exit 7"])
    assert status == ExitStatus(7, None)
    assert text == "/\nerror\n"


async def test_signal_is_told_as_signal(spawner: Spawner, output: Output) -> None:
    status, _ = await run(spawner, output, ["sh", "-c", "kill -SEGV $$"])
    assert status == ExitStatus(None, signal.SIGSEGV)


async def test_end_before_the_watch_is_told(spawner: Spawner, output: Output) -> None:
    process = await spawner.spawn(["true"], ENV, None, output.writer)
    await until(lambda: not living(process.pid))
    await spawner.signal(process.pid, 0, group=False)  # a round trip: the exit came before its answer
    seen: list[ExitStatus] = []
    spawner.watch(process.pid, seen.append)
    assert seen == []  # on the loop, never from inside watch
    await until(lambda: seen)
    assert seen == [ExitStatus(0, None)]


async def test_many_at_once(spawner: Spawner, output: Output) -> None:
    count = 30
    scripts = [["sh", "-c", f"echo line {number}; exit {number}"] for number in range(count)]
    processes = await asyncio.gather(*(spawner.spawn(argv, ENV, None, output.writer) for argv in scripts))
    codes: dict[int, ExitStatus] = {}
    for number, process in enumerate(processes):
        spawner.watch(process.pid, lambda status, number=number: codes.__setitem__(number, status))
    await until(lambda: len(codes) == count)
    assert codes == {number: ExitStatus(number, None) for number in range(count)}
    assert sorted(output.read().split()) == sorted(["line"] * count + [str(number) for number in range(count)])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-kernel"], ["'no-such-kernel'", "not found on PATH", ENV["PATH"]]),
        (["/no/such/kernel"], ["'/no/such/kernel'", "No such file"]),
        (["/"], ["'/'", "folder"]),
        (["/etc/passwd"], ["'/etc/passwd'", "may not execute"]),
        (["{tmp}/orphaned-script"], ["orphaned-script", "interpreter it names does not exist"]),
        (["{tmp}/noise"], ["noise", "neither a program for this machine nor a script"]),
        (["true"], ["working directory '/no/such/folder'", "No such file"]),
        (["true", *["x" * 100_000] * 200], ["too long", "characters"]),
    ],
)
async def test_what_cannot_start_is_told_in_words(
    spawner: Spawner, output: Output, tmp_path: Path, argv: list[str], words: list[str]
) -> None:
    for name, content in {"orphaned-script": "#!/no/such/interpreter\n", "noise": "noise"}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    argv = [argv[0].replace("{tmp}", str(tmp_path)), *argv[1:]]
    cwd = "/no/such/folder" if argv == ["true"] else None
    with pytest.raises(SpawnError) as caught:
        await spawner.spawn(argv, ENV, cwd, output.writer)
    assert caught.value.reason == "exec_failed"
    for word in words:
        assert word in str(caught.value)
    status, _ = await run(spawner, output, ["true"])  # it goes on
    assert status == ExitStatus(0, None)


async def test_a_request_over_the_limit_is_refused_before_it_is_sent(spawner: Spawner, output: Output) -> None:
    with pytest.raises(SpawnError, match="limit"):
        await spawner.spawn(["true", "x" * (33 << 20)], ENV, None, output.writer)


async def test_a_large_request_arrives_whole(spawner: Spawner, output: Output) -> None:
    env = {**ENV, **{f"NAME_{number}": "ä" * 10_000 for number in range(40)}}
    code = "import os; print(sum(len(v) for k, v in os.environ.items() if k.startswith('NAME_')))"
    status, text = await run(spawner, output, [*PYTHON, code], {**env, "LC_ALL": "C.UTF-8"})
    assert (status.code, text) == (0, "400000\n")


# what a kernel finds around itself


async def test_environment_is_what_was_given_and_a_mark(spawner: Spawner, output: Output) -> None:
    os.environ["EG_TEST_SECRET_OF_THE_LAUNCHER"] = "x"
    try:
        second = await Spawner.open()
    finally:
        del os.environ["EG_TEST_SECRET_OF_THE_LAUNCHER"]
    _, text = await run(second, output, ["/usr/bin/env"], {"A": "1", "B": "x=y\nz"})
    await second.close()
    lines = text.splitlines()
    assert lines[:-1] == ["A=1", "B=x=y", "z"]
    assert lines[-1].startswith("EG_SPAWN_ID=")


async def test_no_descriptor_is_inherited(output: Output, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        spawner = await Spawner.open()
        _, text = await run(spawner, output, [*PYTHON, LIST_DESCRIPTORS])
        await spawner.close()
    pipe = f"pipe:[{os.fstat(output.reader).st_ino}]"
    assert text.splitlines() == ["(0, '/dev/null')", f"(1, '{pipe}')", f"(2, '{pipe}')"]


async def test_signals_limits_and_oom_score_are_sane(output: Output) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    own_score = int(linux.read_file("/proc/self/oom_score_adj") or 0)
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        spawner = await Spawner.open(nofile=min(soft, 256), umask=0o027)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, previous)
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; umask"
    _, text = await run(spawner, output, ["sh", "-c", script])
    await spawner.close()
    blocked, ignored, score, files, most, umask = text.splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) == 0
    assert int(score) == min(1000, own_score + 500)
    assert int(files) == min(soft, 256)
    assert int(umask, 8) == 0o027
    assert most == ("unlimited" if hard == resource.RLIM_INFINITY else str(hard))


async def test_no_terminal_and_a_session_of_its_own(spawner: Spawner, output: Output) -> None:
    code = "import os; print(os.getsid(0) == os.getpid() == os.getpgrp(), flush=True); open('/dev/tty')"
    _, text = await run(spawner, output, [*PYTHON, code])
    assert text.startswith("True\n")
    assert "No such device or address" in text


# signals


async def test_signal_to_one_and_to_the_group(spawner: Spawner, output: Output) -> None:
    code = "import os, signal; pid = os.fork(); print('child' if pid == 0 else 'kernel', os.getpid(), flush=True)\n"
    code += "if pid and os.read(0, 1) == b'': print('ready', os.getpid(), flush=True)\n"
    code += "try: signal.pause()\nexcept KeyboardInterrupt: print('interrupted', flush=True)\nsignal.pause()"
    process = await spawner.spawn([*PYTHON, code], ENV, None, output.writer)
    await until(lambda: len(output.processes()) == 3)
    assert await spawner.signal(process.pid, signal.SIGINT, group=False)
    await until(lambda: output.read().count("interrupted") == 1)
    assert await spawner.signal(process.pid, signal.SIGTERM, group=True)
    await until(lambda: not output.living())


async def test_only_its_own_and_only_the_living_are_signalled(spawner: Spawner, output: Output) -> None:
    assert not await spawner.signal(os.getpid(), signal.SIGKILL, group=False)
    process = await spawner.spawn(["true"], ENV, None, output.writer)
    await until(lambda: not living(process.pid))
    assert not await spawner.signal(process.pid, signal.SIGTERM, group=False)
    assert not await spawner.signal(process.pid, signal.SIGTERM, group=True)
    await spawner.kill_session(os.getpid())  # not its own: nothing happens


# ends


async def test_kill_session_leaves_nothing_of_it(spawner: Spawner, output: Output) -> None:
    process = await spawner.spawn(tree(), ENV, None, output.writer)
    assert set(await output.ready()) == KINDS
    ended: list[ExitStatus] = []
    spawner.watch(process.pid, ended.append)
    await spawner.kill_session(process.pid)
    assert output.living() == []
    assert not living(process.pid)
    await until(lambda: ended)
    assert ended == [ExitStatus(None, signal.SIGKILL)]
    await spawner.kill_session(process.pid)  # once more: fine


async def test_kill_session_spares_the_others(spawner: Spawner, output: Output, other_output: Output) -> None:
    process = await spawner.spawn(tree(), ENV, None, output.writer)
    await spawner.spawn(tree(), ENV, None, other_output.writer)
    await output.ready()
    others = await other_output.ready()
    await spawner.kill_session(process.pid)
    assert output.living() == []
    assert sorted(set(others.values()) - set(other_output.living())) == []


async def test_a_dead_kernel_leaves_nothing(spawner: Spawner, output: Output, other_output: Output) -> None:
    process = await spawner.spawn(tree("--exit"), ENV, None, output.writer)
    await spawner.spawn(tree(), ENV, None, other_output.writer)
    ended: list[ExitStatus] = []
    spawner.watch(process.pid, ended.append)
    await output.ready()
    others = await other_output.ready()
    await until(lambda: ended and not output.living())
    assert ended == [ExitStatus(3, None)]
    assert set(others.values()) == set(others.values()) & set(other_output.living())


async def test_a_process_that_runs_away_is_caught(spawner: Spawner, output: Output) -> None:
    """It forks and ends faster than /proc can be read, so its number is always the last one's."""
    code = "import os\nprint('ready', os.getpid(), flush=True)\nwhile True:\n    if os.fork(): os._exit(0)"
    process = await spawner.spawn(
        ["bash", "-c", '"$@" & wait; sleep 1000', "bash", *PYTHON, code], ENV, None, output.writer
    )
    await until(lambda: "ready" in output.processes())
    await asyncio.wait_for(spawner.kill_session(process.pid), DEADLINE)
    await asyncio.sleep(0.05)  # nothing to wait for: it must not come back
    sessions = [stat for stat in linux.all_processes().values() if stat.sid == process.pid and stat.living]
    assert sessions == []


async def test_close_leaves_nothing(output: Output) -> None:
    spawner = await Spawner.open()
    await spawner.spawn(tree("--bare"), ENV, None, output.writer)
    assert set(await output.ready()) >= KINDS
    await until(lambda: "bare" in output.processes())
    await spawner.close()
    assert output.living() == []
    assert spawner.lost.done()
    with pytest.raises(SpawnError) as caught:
        await spawner.spawn(["true"], ENV, None, output.writer)
    assert caught.value.reason == "spawner_gone"
    await spawner.close()
    await spawner.kill_session(1)
    assert not await spawner.signal(1, 0, group=False)


LAUNCHER = f"""
import asyncio, os, sys
from eg_launcher import linux
from eg_launcher.spawner import Spawner

async def main():
    linux.die_with_parent(9)  # should the test run itself be killed
    linux.become_subreaper()
    linux.make_undumpable()
    spawner = await Spawner.open()
    print("spawner", spawner._child.pid, flush=True)
    for _ in range(2):
        await spawner.spawn({tree("--bare")!r}, {ENV!r}, None, 1)
    if "--lost" in sys.argv:
        await spawner.lost
    else:
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.fixture
def launcher(output: Output, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    options = getattr(request, "param", [])
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, *options], stdout=output.writer, start_new_session=True)
    yield process
    process.kill()
    process.wait(DEADLINE)


def told(output: Output, word: str) -> int:
    output.processes()
    return output.read().split().count(word)


async def all_told(output: Output) -> None:
    await until(lambda: told(output, "ready") == 2 and told(output, "bare") == 2)
    for line in output.read().splitlines():
        pid = int(line.split()[1])
        output.started.setdefault(pid, linux.start_time(pid))
    assert len(output.living()) == 1 + 2 * (len(KINDS) + 1)


async def test_a_killed_launcher_leaves_nothing(launcher: subprocess.Popen[bytes], output: Output) -> None:
    await all_told(output)
    launcher.kill()
    await until(lambda: not output.living())


@pytest.mark.parametrize("launcher", [["--lost"]], indirect=True)
async def test_a_killed_spawner_takes_all_along(launcher: subprocess.Popen[bytes], output: Output) -> None:
    await all_told(output)
    os.kill(output.processes()["spawner"], signal.SIGKILL)
    await until(lambda: launcher.poll() is not None)  # it saw `lost`
    assert launcher.returncode == 0
    assert not output.living()  # before it said so


async def test_the_spawner_ends_by_its_socket_only(spawner: Spawner, output: Output) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        spawner._child.send_signal(signum)
    status, _ = await run(spawner, output, ["true"])
    assert status == ExitStatus(0, None)


async def test_lost_is_told_to_all_who_wait(output: Output) -> None:
    spawner = await Spawner.open()
    process = await spawner.spawn(tree(), ENV, None, output.writer)
    await output.ready()
    ended: list[ExitStatus] = []
    spawner.watch(process.pid, ended.append)
    spawner._child.send_signal(signal.SIGSTOP)
    pending = asyncio.ensure_future(spawner.spawn(["true"], ENV, None, output.writer))
    large = asyncio.ensure_future(spawner.spawn(["true", "x" * (8 << 20)], ENV, None, output.writer))
    killing = asyncio.ensure_future(spawner.kill_session(process.pid))
    await asyncio.sleep(0)
    spawner._child.kill()
    for waiting in (pending, large):
        with pytest.raises(SpawnError) as caught:
            await asyncio.wait_for(waiting, DEADLINE)
        assert caught.value.reason == "spawner_gone"
    await asyncio.wait_for(killing, DEADLINE)
    await asyncio.wait_for(spawner.lost, DEADLINE)
    await until(lambda: ended)
    assert ended == [ExitStatus(None, None)]
    same_session = {pid for name, pid in output.processes().items() if name in ("kernel", "child", "orphan")}
    await until(lambda: not same_session & set(output.living()))
    await spawner.close()


async def test_a_cancelled_spawn_leaves_nothing(spawner: Spawner, output: Output) -> None:
    spawner._child.send_signal(signal.SIGSTOP)
    task = asyncio.ensure_future(spawner.spawn(tree(), ENV, None, output.writer))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    spawner._child.send_signal(signal.SIGCONT)
    await run(spawner, output, ["true"])  # after it in the queue
    await until(lambda: not [stat for stat in linux.descendants(spawner._child.pid).values() if stat.living])
    await until(lambda: not spawner._waiting and not spawner._exits)


async def test_no_descriptor_leaks(output: Output) -> None:
    gc.collect()
    before = descriptors(os.getpid())
    spawner = await Spawner.open()
    for _ in range(20):
        await run(spawner, output, ["true"])
        with pytest.raises(SpawnError):
            await spawner.spawn(["/no/such"], ENV, None, output.writer)
    child = descriptors(spawner._child.pid)
    await run(spawner, output, ["true"])
    assert descriptors(spawner._child.pid) == child <= 8
    await spawner.close()
    assert descriptors(os.getpid()) == before


async def test_zombies_are_reaped(spawner: Spawner, output: Output) -> None:
    script = "for i in 1 2 3 4 5; do (sleep 0.01 & ) ; done; echo ready 0; exec sleep 1000"
    process = await spawner.spawn(["sh", "-c", script], ENV, None, output.writer)
    await until(lambda: "ready" in output.read())
    await until(lambda: set(linux.descendants(spawner._child.pid)) == {process.pid})
