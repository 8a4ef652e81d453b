"""The local backend against launchers named after how they fail; the real one is the contract suite's."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from eg_core.builtin import folder as folders
from eg_core.builtin import processes, starter
from eg_core.errors import GatewayError, InvalidRequest, LaunchFailed, LaunchTimeout
from eg_core.hooks import Hooks
from eg_core.plugins import PluginError, PluginManager
from eg_core.types import (
    GatewayInfo,
    KernelHandle,
    KernelStart,
    LauncherFiles,
    LaunchRequest,
    Liveness,
    ProcessInfo,
    Progress,
)

PREAMBLE = """
import json, os, socket, sys, time
args = dict(zip(sys.argv, sys.argv[1:]))
credentials = json.loads(sys.stdin.readline())
def listen():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(args["--unix"])
    listener.listen()
    return listener
def ready(**more):
    said = {"ready": True, "pid": os.getpid(), "launcher_id": credentials["launcher_id"], "protocol": 1, **more}
    print(json.dumps(said), flush=True)
def serve(listener):
    while True:
        peer, _ = listener.accept()
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 401 Unauthorized\\r\\nContent-Length: 0\\r\\n\\r\\n")
        peer.close()
def report(path):
    facts = {"environ": dict(os.environ), "argv": sys.argv, "credentials": credentials, "cwd": os.getcwd()}
    facts |= {"sid": os.getsid(0), "fds": sorted(os.listdir("/proc/self/fd"))}
    open(path + ".tmp", "w").write(json.dumps(facts))
    os.rename(path + ".tmp", path)
"""

LAUNCHERS = {
    "Serves": "listener = listen(); report(args['--unix'] + '.facts'); ready(); serve(listener)",
    "IsOlder": "listener = listen(); ready(protocol=0); serve(listener)",
    "IsTooNew": "listener = listen(); ready(protocol=2); serve(listener)",
    "IsTooOld": "listener = listen(); ready(protocol=-1); serve(listener)",
    "DoesNotSayWhatItSpeaks": "listener = listen(); ready(protocol=None); serve(listener)",
    "SlowToStart": "time.sleep(0.5); listener = listen(); ready(); serve(listener)",
    "ExitsAtOnce": "sys.exit('the disk is on fire')",
    "KillsItself": "os.kill(os.getpid(), 9)",
    "NeverSaysReady": "listener = listen(); print('warming up', file=sys.stderr, flush=True); time.sleep(600)",
    "SaysGarbage": "print('Welcome to the launcher!', flush=True); time.sleep(600)",
    "SaysItIsNotReady": "print(json.dumps({'ready': False}), flush=True); time.sleep(600)",
    "SaysTooMuch": "sys.stdout.write('x' * 1000000); sys.stdout.flush(); time.sleep(600)",
    "ClosesItsMouth": "os.close(1); time.sleep(600)",
    "HangsWhenAsked": "listener = listen(); ready(); time.sleep(600)",
    "StopsListening": "listener = listen(); ready(); listener.close(); os.unlink(args['--unix']); time.sleep(600)",
}


@pytest.fixture
def runtime_dir():
    """A short private folder. Whatever was started in it is ended, also after a failure."""
    path = Path(tempfile.mkdtemp(prefix="eg-t-"))
    yield path
    for proc in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(path) in proc.read_bytes():
                os.kill(int(proc.parent.name), signal.SIGKILL)
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def launcher(runtime_dir):
    """Writes a launcher of that name; gives the command that runs it."""

    def write(name):
        script = runtime_dir / f"{name}.py"
        script.write_text(textwrap.dedent(PREAMBLE) + LAUNCHERS[name])
        return [sys.executable, str(script)]

    return write


@pytest.fixture
async def make(runtime_dir):
    """Gives hooks over local backends; several of them are several gateways."""
    started = []

    async def make(command=None, gateway="g", name="local", environ=None, **traits):
        traits = {"runtime_dir": str(runtime_dir), "start_timeout": 20.0, "stray_age": 0.0, **traits}
        if command is not None:
            traits["launcher_command"] = command
        entry = {"type": "eg_core.builtin.local:LocalBackend", **traits}
        environ = {"PATH": os.environ["PATH"]} if environ is None else environ
        plugins = PluginManager(entry_points=[], backends={name: entry}, environ=environ, log=logging.getLogger("test"))
        hooks = Hooks(plugins)
        await hooks.startup(GatewayInfo(gateway, "0", runtime_dir))
        started.append(hooks)
        return hooks

    yield make
    for hooks in started:
        await hooks.shutdown()


def request(kernel_id=None, backend="local", deadline=20.0, **changes):
    launcher_id = uuid.uuid4().hex
    credentials = json.dumps({"launcher_id": launcher_id, "token": "t0ken", "certificate": None, "key": None})
    fields = {
        "kernel_id": kernel_id or str(uuid.uuid4()),
        "kernelspec": "python3",
        "backend": backend,
        "owner": "ann",
        "run_as": None,
        "options": {},
        "labels": {},
        "deadline": time.monotonic() + deadline,
        "kernel": KernelStart(["python"], {"SECRET": "of the kernel"}),
        "launcher": LauncherFiles(launcher_id, (), credentials, 7.0),
    }
    return LaunchRequest(**fields | changes)


async def launch(hooks, wanted=None):
    """The handles of a launch, in order."""
    async with contextlib.aclosing(hooks.launch_kernel(wanted or request())) as steps:
        return [step async for step in steps if isinstance(step, KernelHandle)]


async def status(hooks, handle):
    return (await hooks.poll_kernels(handle.backend, [handle])).statuses[handle.kernel_id]


def alive(handle):
    return processes.alive(handle.state["pid"], handle.state["started"])


def mine(runtime_dir):
    """Living processes that name the folder in their command line, with ages out of account."""
    found = []
    for proc in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(runtime_dir) in proc.read_bytes() and processes.started(int(proc.parent.name)) is not None:
                found.append(int(proc.parent.name))
    return found


async def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        await asyncio.sleep(0.01)


# -- starting and joining ----------------------------------------------------------------------------------------


async def test_a_handle_comes_before_anything_exists_and_grows(make, launcher, runtime_dir):
    hooks = await make(launcher("Serves"))
    wanted = request()
    async with contextlib.aclosing(hooks.launch_kernel(wanted)) as steps:
        first = await anext(steps)
        assert isinstance(first, KernelHandle)
        assert (first.launcher_id, first.state["pid"]) == (wanted.launcher.launcher_id, None)
        assert mine(runtime_dir) == []
        assert (await status(hooks, first)).state is Liveness.STARTING
        rest = [step async for step in steps]
    assert rest[0] == Progress("starting a launcher on this host")
    assert alive(rest[-1])
    assert json.loads(json.dumps(rest[-1].state)) == rest[-1].state
    assert "t0ken" not in json.dumps(rest[-1].state)
    assert (await status(hooks, rest[-1])).state is Liveness.RUNNING


async def test_the_launcher_is_detached_and_gets_nothing_of_the_gateways_own(make, launcher):
    environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "EG_AUTH_TOKEN": "s3cret", "HOME": "/h", "AWS_KEY": "x"}
    listening = os.pipe()
    os.set_inheritable(listening[0], True)
    try:
        hooks = await make(launcher("Serves"), environ=environ)
        (*_, handle) = await launch(hooks)
    finally:
        os.close(listening[0])
        os.close(listening[1])
    facts = json.loads(Path(handle.state["endpoint"]["path"] + ".facts").read_text())
    assert set(facts["environ"]) - {"LC_CTYPE"} == {"PATH", "LANG", "HOME"}
    assert facts["sid"] == handle.state["pid"] != os.getsid(0)
    assert facts["cwd"] == "/"
    assert facts["credentials"]["token"] == "t0ken"
    assert "t0ken" not in str(facts["argv"])
    assert facts["argv"][1:4] == ["spawn", "--credentials", "-"]
    assert facts["argv"][-2:] == ["--lease", "7"]
    assert len(facts["fds"]) == 5  # stdin, stdout, stderr, its listener and the listing itself


async def test_the_cores_own_arguments_are_taken_as_they_are(make, launcher):
    wanted = request()
    files = LauncherFiles(wanted.launcher.launcher_id, ("--lease", "99"), wanted.launcher.credentials, 7.0)
    (*_, handle) = await launch(await make(launcher("Serves")), request(launcher=files))
    facts = json.loads(Path(handle.state["endpoint"]["path"] + ".facts").read_text())
    assert facts["argv"].count("--lease") == 1
    assert facts["argv"][-2:] == ["--lease", "99"]


async def test_launches_side_by_side_share_one_launcher(make, launcher, runtime_dir):
    hooks = await make(launcher("SlowToStart"))
    launched = await asyncio.gather(*(launch(hooks) for _ in range(5)))
    assert len({handles[-1].launcher_id for handles in launched}) == 1
    assert len({handles[-1].kernel_id for handles in launched}) == 5
    assert len(mine(runtime_dir)) == 1


async def test_two_gateways_of_one_store_share_a_launcher(make, launcher):
    one, two = await make(launcher("SlowToStart")), await make(launcher("SlowToStart"))
    first, second = await asyncio.gather(launch(one), launch(two))
    assert first[-1].launcher_id == second[-1].launcher_id


@pytest.mark.parametrize("other", [{"gateway": "h"}, {"name": "second"}])
async def test_two_gateways_or_two_instances_never_meet(make, launcher, other):
    one, two = await make(launcher("Serves")), await make(launcher("Serves"), **other)
    (*_, first) = await launch(one)
    (*_, second) = await launch(two, request(backend=two.backends[0]))
    assert first.launcher_id != second.launcher_id
    assert (await one.poll_kernels("local", [first])).strays == ()
    assert (await two.poll_kernels(two.backends[0], [second])).strays == ()


@pytest.mark.parametrize("name", ["HangsWhenAsked", "StopsListening"])
async def test_a_launcher_that_does_not_answer_is_not_joined(make, launcher, monkeypatch, name):
    monkeypatch.setattr(starter, "ANSWER_TIMEOUT", 0.2)
    (*_, first) = await launch(await make(launcher(name)))
    (*_, second) = await launch(await make(launcher("Serves")))
    assert first.launcher_id != second.launcher_id
    assert alive(first)  # it may hold kernels: it is left alone
    assert alive(second)


async def test_a_launcher_of_the_version_before_serves_what_it_holds_and_is_not_joined(make, launcher):
    hooks = await make(launcher("IsOlder"))
    (*_, first) = await launch(hooks)
    (*_, second) = await launch(await make(launcher("Serves")))
    assert first.launcher_id != second.launcher_id
    assert alive(first)
    (*_, third) = await launch(hooks)
    assert third.launcher_id == second.launcher_id


async def test_a_dead_launcher_is_not_joined_nor_a_recycled_pid_taken_for_it(make, launcher, runtime_dir):
    hooks = await make(launcher("Serves"))
    (*_, first) = await launch(hooks)
    os.kill(first.state["pid"], signal.SIGKILL)
    await until(lambda: not alive(first))
    (*_, second) = await launch(hooks)
    assert second.launcher_id != first.launcher_id
    record = next(runtime_dir.glob("*/*.json"))
    stored = json.loads(record.read_text())
    record.write_text(json.dumps(stored | {"started": stored["started"] - 1}))
    (*_, third) = await launch(hooks)
    assert third.launcher_id != second.launcher_id


async def test_a_launcher_of_another_protocol_version_is_not_joined_but_polled(make, launcher, runtime_dir):
    hooks = await make(launcher("Serves"))
    (*_, old) = await launch(hooks)
    record = next(runtime_dir.glob("*/*.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"protocol": 99}))
    (*_, new) = await launch(hooks)
    assert new.launcher_id != old.launcher_id
    assert (await status(hooks, old)).state is Liveness.RUNNING


async def test_garbage_in_the_folder_harms_nobody(make, launcher, runtime_dir):
    hooks = await make(launcher("Serves"))
    (*_, first) = await launch(hooks)
    folder = next(runtime_dir.glob("*/*.json")).parent
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_text("[]")
    (folder / "c.json").write_bytes(b"\xff" * 100000)
    (*_, second) = await launch(hooks)
    assert first.launcher_id == second.launcher_id


# -- failing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ExitsAtOnce", r"ended with code 1 before it was ready\. It said: the disk is on fire"),
        ("KillsItself", r"was killed by SIGKILL before it was ready"),
        ("SaysGarbage", r"said 'Welcome to the launcher!' instead"),
        ("SaysItIsNotReady", r"instead of that it is ready"),
        ("SaysTooMuch", r"said 'xxx"),
        ("IsTooNew", r"speaks the launcher protocol 2; this gateway speaks 1 and 0"),
        ("IsTooOld", r"speaks the launcher protocol -1; this gateway speaks 1 and 0"),
        ("DoesNotSayWhatItSpeaks", r"speaks the launcher protocol None"),
    ],
)
async def test_a_failed_launcher_says_why_and_leaves_nothing(make, launcher, runtime_dir, name, said):
    hooks = await make(launcher(name))
    with pytest.raises(LaunchFailed, match=said):
        await launch(hooks)
    assert mine(runtime_dir) == []
    assert list(runtime_dir.glob("*/*.json")) == []
    assert list(runtime_dir.glob("*/*.sock")) == []


async def test_a_launcher_that_closes_stdout_and_goes_on_is_ended(make, launcher, runtime_dir, monkeypatch):
    monkeypatch.setattr(starter, "LAST_WORDS", 0.1)
    with pytest.raises(LaunchFailed):
        await launch(await make(launcher("ClosesItsMouth")))
    assert mine(runtime_dir) == []


async def test_a_launcher_that_cannot_be_executed_is_named(make):
    with pytest.raises(LaunchFailed, match=r"/no/such/launcher cannot be executed: No such file"):
        await launch(await make(["/no/such/launcher"]))


async def test_a_late_launcher_is_ended_and_its_last_words_are_told(make, launcher, runtime_dir):
    hooks = await make(launcher("NeverSaysReady"), start_timeout=1.0)
    with pytest.raises(LaunchTimeout, match=r"not ready after 1 s\. It said: warming up"):
        await launch(hooks)
    assert mine(runtime_dir) == []


async def test_the_requests_own_deadline_counts_too(make, launcher, runtime_dir):
    with pytest.raises(LaunchTimeout):
        await launch(await make(launcher("NeverSaysReady")), request(deadline=0.5))
    assert mine(runtime_dir) == []


async def test_a_cancelled_launch_leaves_nothing_and_the_next_one_works(make, launcher, runtime_dir):
    hooks = await make(launcher("NeverSaysReady"))
    task = asyncio.create_task(launch(hooks))
    await until(lambda: mine(runtime_dir))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mine(runtime_dir) == []
    assert alive((await launch(await make(launcher("Serves"))))[-1])


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_cancelled_at_any_turn_of_the_loop_it_leaves_nothing(make, launcher, runtime_dir, turns):
    task = asyncio.create_task(launch(await make(launcher("NeverSaysReady"))))
    for _ in range(turns):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: mine(runtime_dir) == [], 2.0)


async def test_a_failed_launch_does_not_hold_up_the_one_that_waits_for_it(make, launcher, runtime_dir):
    hooks = await make(launcher("NeverSaysReady"), start_timeout=1.0)
    first, second = await asyncio.gather(launch(hooks), launch(hooks), return_exceptions=True)
    assert isinstance(first, LaunchTimeout)
    assert isinstance(second, LaunchTimeout)
    assert mine(runtime_dir) == []


async def test_another_user_is_refused_in_words(make, launcher):
    with pytest.raises(InvalidRequest, match="not as 'somebody-else'"):
        await launch(await make(launcher("Serves")), request(run_as="somebody-else"))


# -- poll and kill ------------------------------------------------------------------------------------------------


async def test_poll_says_lost_with_the_last_words(make, launcher, runtime_dir):
    hooks = await make(launcher("Serves"))
    (*_, handle) = await launch(hooks)
    log = Path(handle.state["endpoint"]["path"]).with_suffix(".log")
    log.write_text("2026-01-01 00:00:00,000 INFO eg_launcher.app: kernel ann's was started\nout of descriptors\n")
    os.kill(handle.state["pid"], signal.SIGKILL)
    await until(lambda: not alive(handle))
    said = await status(hooks, handle)
    assert (said.state, said.reason) == (Liveness.EXITED, "lost")
    assert "out of descriptors" in said.detail
    assert "ann's" not in said.detail


async def test_a_restarted_gateway_finds_it_by_the_handle(make, launcher):
    (*_, handle) = await launch(await make(launcher("Serves")))
    again = await make(launcher("Serves"))
    assert (await status(again, handle)).state is Liveness.RUNNING
    with await again.connect_launcher(handle, await again.discover_connection(handle)) as sock:
        assert sock.getpeername() == handle.state["endpoint"]["path"]


async def test_other_hosts_are_unknown_and_other_boots_are_over(make, launcher):
    hooks = await make(launcher("Serves"))
    (*_, handle) = await launch(hooks)
    place = handle.state["place"]

    def moved(**changes):
        return KernelHandle("k", handle.launcher_id, "local", {**handle.state, "place": place | changes})

    assert (await status(hooks, moved(host="elsewhere", boot="x"))).state is Liveness.UNKNOWN
    assert (await status(hooks, moved(boot="x"))).state is Liveness.EXITED
    assert (await status(hooks, moved(host="renamed"))).state is Liveness.RUNNING
    assert (await status(hooks, KernelHandle("k", "l", "local", {}))).state is Liveness.EXITED
    await hooks.kill_kernel(moved(host="elsewhere", boot="x"), None, 0, "x")
    assert alive(handle)


async def test_a_launcher_that_no_handle_names_is_a_stray_and_can_be_ended(make, launcher, runtime_dir):
    hooks = await make(launcher("Serves"))
    (*_, handle) = await launch(hooks)
    assert (await hooks.poll_kernels("local", [handle])).strays == ()
    (stray,) = (await hooks.poll_kernels("local", [])).strays
    assert (stray.kernel_id, stray.launcher_id) == ("", handle.launcher_id)
    await hooks.kill_kernel(stray, None, 0.0, "stray")
    assert not alive(handle)
    assert (await hooks.poll_kernels("local", [])).strays == ()
    await hooks.kill_kernel(stray, None, 0.0, "stray")
    assert list(runtime_dir.glob("*/*.json")) == []


async def test_a_launcher_that_was_joined_lately_is_no_stray(make, launcher):
    hooks = await make(launcher("Serves"), stray_age=60.0)
    (*_, handle) = await launch(hooks)
    assert (await hooks.poll_kernels("local", [])).strays == ()
    stray = KernelHandle("", handle.launcher_id, "local", handle.state)
    await hooks.kill_kernel(stray, None, 0.0, "stray")
    assert alive(handle)


async def test_killing_one_kernel_leaves_the_shared_launcher(make, launcher):
    hooks = await make(launcher("Serves"))
    (*_, handle) = await launch(hooks)
    for _ in range(2):
        await hooks.kill_kernel(handle, ProcessInfo(os.getpid(), os.getpgid(0), 1, "h"), 0.1, "shutdown")
    assert alive(handle)


async def test_a_kernel_whose_launcher_is_gone_is_ended_with_its_group_if_it_is_that_very_process(make, launcher):
    hooks = await make(launcher("Serves"))
    (*_, handle) = await launch(hooks)
    os.kill(handle.state["pid"], signal.SIGKILL)
    await until(lambda: not alive(handle))
    script = "import subprocess, sys, time; c = subprocess.Popen(['sleep', '600']); print(c.pid, flush=True); c.wait()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as kernel:
        try:
            child = int(kernel.stdout.readline())
            started, child_started = processes.started(kernel.pid), processes.started(child)
            wrong = ProcessInfo(kernel.pid, kernel.pid, started + 1, handle.state["place"]["host"])
            await hooks.kill_kernel(handle, wrong, 0.0, "lost")
            assert processes.alive(kernel.pid, started)
            right = ProcessInfo(kernel.pid, kernel.pid, started, handle.state["place"]["host"])
            await hooks.kill_kernel(handle, right, 0.0, "lost")
            assert not processes.alive(kernel.pid, started)
            await until(lambda: not processes.alive(child, child_started))
            await hooks.kill_kernel(handle, right, 0.0, "lost")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(kernel.pid, signal.SIGKILL)


async def test_a_process_that_ignores_sigterm_gets_its_grace_and_then_ends():
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        start, began = processes.started(process.pid), time.monotonic()
        await processes.end(process.pid, start, 0.3)
        assert time.monotonic() - began >= 0.3
        assert process.wait() == -signal.SIGKILL


async def test_launchers_outlive_the_gateway(make, launcher):
    hooks = await make(launcher("Serves"))
    (*_, handle) = await launch(hooks)
    await hooks.shutdown()
    assert alive(handle)


# -- the folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
async def test_a_folder_that_others_can_enter_is_refused(make, launcher, runtime_dir, mode):
    given = runtime_dir / "open"
    given.mkdir()
    given.chmod(mode)
    with pytest.raises(PluginError, match=rf"'local' cannot start.*can be entered by others \(mode {mode:04o}"):
        await make(launcher("Serves"), runtime_dir=str(given))


async def test_a_link_to_a_folder_is_refused(make, launcher, runtime_dir):
    target = runtime_dir / "target"
    target.mkdir(mode=0o700)
    (runtime_dir / "link").symlink_to(target)
    with pytest.raises(PluginError, match="is not a folder"):
        await make(launcher("Serves"), runtime_dir=str(runtime_dir / "link"))


async def test_a_path_too_long_for_a_socket_is_refused(make, launcher, runtime_dir):
    with pytest.raises(PluginError, match="too long for a socket"):
        await make(launcher("Serves"), runtime_dir=str(runtime_dir / ("x" * 100)))


def test_another_users_folder_is_refused(runtime_dir, monkeypatch):
    monkeypatch.setattr(folders.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(ValueError, match="belongs to another user"):
        folders.require_private(runtime_dir)


def test_without_a_word_the_runtime_folder_is_taken_or_one_in_tmp(runtime_dir, monkeypatch):
    monkeypatch.setattr(folders.tempfile, "gettempdir", lambda: str(runtime_dir))
    given = {"XDG_RUNTIME_DIR": str(runtime_dir / "run")}
    assert folders.choose_runtime_dir("", given) == runtime_dir / "run" / "eg"
    assert folders.choose_runtime_dir("", {}) == runtime_dir / f"eg-{os.getuid()}"
    too_long = {"XDG_RUNTIME_DIR": str(runtime_dir / ("x" * 100))}
    assert folders.choose_runtime_dir("", too_long) == runtime_dir / f"eg-{os.getuid()}"
    (runtime_dir / "run" / "eg").chmod(0o755)
    assert folders.choose_runtime_dir("", given) == runtime_dir / f"eg-{os.getuid()}"


async def test_what_is_in_the_folder_is_the_users_alone(make, launcher, runtime_dir):
    await launch(await make(launcher("Serves")))
    for path in runtime_dir.glob("*/*"):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


async def test_a_folder_that_vanished_is_a_failure_in_words(make, launcher, runtime_dir):
    hooks = await make(launcher("Serves"))
    subprocess.run(["rm", "-rf", *map(str, runtime_dir.iterdir())], check=True)
    with pytest.raises(GatewayError, match="folder cannot be used"):
        await launch(hooks)


def test_old_logs_go_with_their_launchers(runtime_dir):
    folder = folders.PrivateFolder.open(runtime_dir, ("key",))
    for name in ("old", "new", "used"):
        folder.log(name).write_text(name)
        folder.errors(name).write_text(name)
        os.utime(folder.log(name), (0, 0))
        os.utime(folder.errors(name), (0, 0))
    os.utime(folder.log("new"))
    os.utime(folder.errors("new"))
    for name in ("old", "used"):
        Path(f"{folder.log(name)}.1").write_text(name)
        os.utime(f"{folder.log(name)}.1", (0, 0))
    folder.write(folders.LauncherFile("used", "/s", 1))
    folder.sweep(60)
    assert [path.name for path in folder.path.glob("*.log.1")] == ["used.log.1"]
    assert sorted(path.stem for path in folder.path.glob("*.log")) == ["new", "used"]
    assert sorted(path.stem for path in folder.path.glob("*.err")) == ["new", "used"]


def test_a_zombie_does_not_live():
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert processes.started(process.pid) is None
    assert processes.started(os.getpid()) is not None
    assert not processes.alive(1, processes.started(1))
