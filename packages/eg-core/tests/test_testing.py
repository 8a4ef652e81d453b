"""The test support itself: fakes fail as named, the watch sees, the contract can fail, the fixtures start a gateway."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from eg_core.errors import BackendUnavailable, LaunchFailed
from eg_core.testing.client import ClientError, wait_for
from eg_core.testing.plugin import gateway, gateway_client, make_gateway  # noqa: F401 - fixtures
from eg_core.testing.rig import Rig, Subject
from eg_core.testing.watch import LoopWatch
from eg_core.types import KernelHandle, Liveness, Progress


@pytest.fixture
async def make_rig(tmp_path):
    """Gives a rig over the fake of that name."""
    runtime_dir = Path(tempfile.mkdtemp(prefix="eg-f-"))
    rigs = []

    async def make(fake, **traits):
        settings = {
            "type": f"eg_core.testing.fakes:{fake}",
            "runtime_dir": str(runtime_dir),
            "stray_age": 0.0,
            **traits,
        }
        rig = Rig(Subject("fake", settings, lease=2.0), tmp_path, gateway_id=uuid.uuid4().hex, environ=dict(os.environ))
        rigs.append(rig)
        return await rig.open()

    yield make
    for rig in rigs:
        await rig.close()
        for pid in rig.processes():
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(runtime_dir, ignore_errors=True)


async def steps_of(rig, request):
    return [step async for step in rig.hooks.launch_kernel(request)]


async def test_slow_to_start_says_so_and_works(make_rig):
    rig = await make_rig("SlowToStart", delay=0.2)
    began = time.monotonic()
    kernel = await rig.start()
    assert time.monotonic() - began >= 0.2
    assert kernel.progress[0].startswith("waiting")
    await rig.end(kernel)


async def test_fails_after_handle_has_started_something(make_rig):
    rig = await make_rig("FailsAfterHandle", message="the queue is closed")
    handles = []

    async def launch():
        async for step in rig.hooks.launch_kernel(rig.request()):
            handles.extend([step] if isinstance(step, KernelHandle) else [])

    with pytest.raises(LaunchFailed, match="the queue is closed"):
        await launch()
    assert (await rig.status(handles[-1])).state is Liveness.RUNNING


async def test_never_ready_waits_for_ever(make_rig):
    rig = await make_rig("NeverReady")
    with pytest.raises(TimeoutError):
        await rig.launch(rig.request(timeout=2.0))


async def test_dies_before_ready_is_gone_when_the_core_looks(make_rig):
    rig = await make_rig("DiesBeforeReady")
    steps = await steps_of(rig, rig.request())
    handle = [step for step in steps if isinstance(step, KernelHandle)][-1]

    end = time.monotonic() + 10
    while (await rig.status(handle)).state is not Liveness.EXITED:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_refuses_to_die_twice(make_rig):
    rig = await make_rig("RefusesToDie")
    handle = KernelHandle("k", "l", "fake", {})
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            await rig.hooks.kill_kernel(handle, None, 0.0, "x")
    await rig.hooks.kill_kernel(handle, None, 0.0, "x")


async def test_loses_contact_while_the_file_is_there(make_rig, tmp_path):
    away = tmp_path / "away"
    rig = await make_rig("LosesContact", away=str(away))
    kernel = await rig.start()
    away.touch()
    assert (await rig.status(kernel.handle)).state is Liveness.UNKNOWN
    with pytest.raises(BackendUnavailable):
        await rig.hooks.discover_connection(kernel.handle)
    away.unlink()
    assert (await rig.status(kernel.handle)).state is Liveness.RUNNING
    await rig.end(kernel)


async def test_unknown_poll_never_knows(make_rig):
    rig = await make_rig("UnknownPoll")
    kernel = await rig.launch()
    assert (await rig.status(kernel.handle)).state is Liveness.UNKNOWN


# -- the watch -------------------------------------------------------------------------------------------------------


async def test_the_watch_sees_who_blocks_and_who_computes_and_nobody_else():
    async def block():
        time.sleep(0.15)

    async def compute():
        until = time.thread_time() + 0.15
        while time.thread_time() < until:
            pass

    for hold in (block, compute):
        with LoopWatch() as watch:
            await asyncio.create_task(hold())
        assert len(watch.held) == 1
        assert hold.__name__ in watch.held[0]
    with LoopWatch() as watch:
        await asyncio.create_task(asyncio.sleep(0.15))
    assert watch.held == []
    assert asyncio.Handle._run.__module__ == "asyncio.events"


# -- the contract can fail ---------------------------------------------------------------------------------------------

BAD = """
import time
import pytest
from eg_core.builtin.local import LocalBackend
from eg_core.hookspecs import hookimpl
from eg_core.testing.contract import BackendContract
from eg_core.testing.fakes import RefusesToDie, UnknownPoll
from eg_core.testing.rig import Subject
from eg_core.types import KernelHandle

class Undocumented(LocalBackend):
    pass

Undocumented.__doc__ = None

class Blocks(LocalBackend):
    '''Sleeps on the loop.'''
    @hookimpl
    async def eg_launch_kernel(self, request):
        time.sleep(0.3)
        async for step in LocalBackend.eg_launch_kernel(self, request):
            yield step

class Forgets(LocalBackend):
    '''Its handle does not survive the store.'''
    @hookimpl
    async def eg_launch_kernel(self, request):
        async for step in LocalBackend.eg_launch_kernel(self, request):
            if isinstance(step, KernelHandle):
                step = KernelHandle(step.kernel_id, step.launcher_id, step.backend, {**step.state, "tuple": (1,)})
            yield step

class Tells(LocalBackend):
    '''Puts its secrets into the handle.'''
    @hookimpl
    async def eg_launch_kernel(self, request):
        async for step in LocalBackend.eg_launch_kernel(self, request):
            if isinstance(step, KernelHandle):
                more = {"credentials": request.launcher.credentials}
                step = KernelHandle(step.kernel_id, step.launcher_id, step.backend, {**step.state, **more})
            yield step

class TestBad(BackendContract):
    @pytest.fixture
    def backend(self):
        settings = {"type": f"%(module)s:%(name)s", "runtime_dir": r"%(runtime_dir)s", "stray_age": 0.0}
        return Subject("bad", settings, lease=2.0)
"""


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("Blocks", "test_no_callback_holds_the_loop"),
        ("Forgets", "test_a_real_kernel_answers_through_the_launcher"),
        ("Tells", "test_no_secret_is_where_others_can_read_it"),
        ("RefusesToDie", "test_a_kernel_that_was_never_started_leaves_nothing"),
        ("UnknownPoll", "test_a_real_kernel_answers_through_the_launcher"),
        ("Undocumented", "test_it_says_what_it_can"),
    ],
)
def test_the_contract_refuses_a_bad_backend(tmp_path, name, test):
    runtime_dir = Path(tempfile.mkdtemp(prefix="eg-b-"))
    module = f"bad_{name.lower()}"
    (tmp_path / f"test_{module}.py").write_text(f"from {module} import *\n")
    names = {"module": module, "name": name, "runtime_dir": runtime_dir}
    source = BAD % names
    (tmp_path / f"{module}.py").write_text(source)
    argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--timeout=60"]
    argv += ["-o", "asyncio_default_fixture_loop_scope=function", f"--rootdir={tmp_path}", "-k", f"TestBad and {test}"]
    try:
        done = subprocess.run(
            [sys.executable, *argv, str(tmp_path)],
            env=dict(os.environ) | {"PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    finally:
        shutil.rmtree(runtime_dir, ignore_errors=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout


# -- gateway and client ------------------------------------------------------------------------------------------------


def test_a_gateway_runs_code_interrupts_restarts_and_leaves_nothing(gateway):  # noqa: F811
    client = gateway.client
    kernel = client.start("python3", {"KERNEL_HELLO": "you"})
    kernel_id = kernel["id"]
    assert client.execute(kernel_id, "x = 6 * 7; print(x)").text.strip() == "42"
    with client.channels(kernel_id) as channels:
        msg_id = channels.request("import time\nprint('on', flush=True)\nwhile True: time.sleep(1)")
        while channels.receive()["header"]["msg_type"] != "stream":
            pass
        client.interrupt(kernel_id)
        assert channels.result(msg_id).reply["ename"] == "KeyboardInterrupt"
    assert client.execute(kernel_id, "print(x)").text.strip() == "42"
    client.restart(kernel_id)
    assert client.execute(kernel_id, "x").error.startswith("NameError")
    client.shut_down(kernel_id)
    with pytest.raises(ClientError, match="404"):
        client.kernel(kernel_id)
    assert client.kernels() == []


def test_kernels_outlive_the_gateway(gateway):  # noqa: F811
    kernel_id = gateway.client.start()["id"]
    gateway.client.execute(kernel_id, "x = 17")
    gateway.stop()
    gateway.start()
    assert gateway.client.execute(kernel_id, "print(x)").text.strip() == "17"


def test_a_fake_backend_fails_as_named_through_the_gateway(make_gateway, tmp_path):  # noqa: F811 - a fixture
    spec = tmp_path / "kernels" / "broken"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        '{"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "B",'
        ' "language": "python", "metadata": {"eg": {"backend": "fails"}}}'
    )
    backends = {"fails": {"type": "eg_core.testing.fakes:FailsAfterHandle", "message": "The cluster is on holiday."}}
    client = make_gateway(env={"JUPYTER_PATH": str(tmp_path)}, backends=backends).client
    with pytest.raises(ClientError, match=r"500.*The cluster is on holiday\."):
        client.start("broken")


async def test_the_async_client(gateway):  # noqa: F811
    client = gateway.async_client
    kernel = await client.start()
    assert (await client.execute(kernel["id"], "print(1)")).text.strip() == "1"
    assert [model["id"] for model in await client.kernels()] == [kernel["id"]]
    assert (await client.kernel(kernel["id"]))["id"] == kernel["id"]
    await client.interrupt(kernel["id"])
    await client.restart(kernel["id"])
    await client.shut_down(kernel["id"])


def test_what_is_waited_for_is_named():
    with pytest.raises(TimeoutError, match="the moon"):
        wait_for(lambda: False, 0.01, "the moon")
    assert Progress("x").message == "x"


# -- the client comes back ------------------------------------------------------------------------------------


def test_channels_that_are_cut_miss_nothing_and_have_nothing_twice(gateway, gateway_client):  # noqa: F811
    kernel_id = gateway_client.start()["id"]
    with gateway_client.channels(kernel_id) as channels:
        channels.request("import time\nfor n in range(2000):\n    print(n)\n    time.sleep(0.001)")
        told = ""
        while not told.endswith("1999\n"):
            message = channels.receive()
            if message["header"]["msg_type"] == "stream":
                told += message["content"]["text"]
                if told.count("\n") > 200 * (channels.cuts + 1):
                    channels._socket.sock.shutdown(socket.SHUT_RDWR)
        assert told.split() == [str(n) for n in range(2000)]
        assert channels.cuts > 5
        assert channels.execute("6 * 7").text == "42"
    gateway_client.shut_down(kernel_id)


def test_channels_of_a_kernel_that_is_gone_say_so(gateway, gateway_client):  # noqa: F811
    kernel_id = gateway_client.start()["id"]
    with gateway_client.channels(kernel_id) as channels:
        channels.execute("1")
        gateway_client.shut_down(kernel_id)
        with pytest.raises(ConnectionError, match="closed with 4"):
            read_on(channels)
    assert is_gone(gateway_client, kernel_id)


def read_on(channels):
    while True:
        channels.receive()


def is_gone(client, kernel_id):
    with pytest.raises(ClientError) as gone:
        client.kernel(kernel_id)
    return gone.value.status == 404
