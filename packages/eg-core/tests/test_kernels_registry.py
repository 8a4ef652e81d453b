"""The registry over the real store, the real local backend and real launchers; no HTTP."""

import asyncio
import dataclasses
import os
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest

from eg_core.errors import GatewayEnding, InvalidRequest, KernelGone, KernelStarting
from eg_core.kernels.reconciler import Reconciler
from eg_core.kernels.registry import NewKernel
from eg_core.kernels.states import KernelState
from eg_core.store.store import DuplicateKernel
from eg_core.types import KernelStart, KernelStatus, Liveness
from gateway_support import exists, gateway, running_with, until

IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def new(argv=None, *, kernel_id=None, owner="alice", timeout=None, env=None, backend="local"):
    return NewKernel(
        kernel_id=kernel_id or str(uuid.uuid4()),
        kernelspec="python3",
        backend=backend,
        owner=owner,
        start=KernelStart(argv or IPYKERNEL, env or {}, None, "signal"),
        options={},
        launch_timeout=timeout,
    )


@pytest.fixture
def runtime(short_tmp):
    return short_tmp


@pytest.fixture
async def registry(tmp_path, runtime):
    async with gateway(tmp_path, runtime) as registry:
        yield registry


async def ready(registry, request):
    kernel, _ = await registry.start(request)
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.READY, kernel.record
    return kernel


async def test_a_kernel_starts_answers_and_ends_without_a_trace(registry):
    kernel = await ready(registry, new())
    pid = kernel.process.pid
    model = kernel.model()
    assert model["execution_state"] == "idle"
    assert model["last_activity"].endswith("Z")
    assert "." in model["last_activity"]
    await registry.end(kernel.id)
    with pytest.raises(KernelGone):
        registry.kernel(kernel.id)
    await until(lambda: registry.find(kernel.id) is None, "the record is gone")
    assert not exists(pid)
    assert await registry.store.kernels() == []


async def test_the_same_id_is_the_same_kernel_for_its_owner_only(registry):
    kernel_id = str(uuid.uuid4())
    first, made = await registry.start(new(kernel_id=kernel_id))
    second, made_again = await registry.start(new(kernel_id=kernel_id))
    assert (made, made_again) == (True, False)
    assert first is second
    with pytest.raises(DuplicateKernel):
        await registry.start(new(kernel_id=kernel_id, owner="mallory"))


async def test_an_unknown_backend_is_refused_before_anything_exists(registry):
    with pytest.raises(InvalidRequest, match="wants backend 'gpu'"):
        await registry.start(new(backend="gpu"))
    assert await registry.store.kernels() == []


async def test_a_killed_kernel_says_why_and_restarts_in_place(registry):
    kernel = await ready(registry, new())
    launcher = kernel.record.handle.launcher_id
    os.kill(kernel.process.pid, signal.SIGKILL)
    await until(lambda: kernel.state is KernelState.DEAD, "the death is noticed")
    assert "SIGKILL" in kernel.model()["reason"]
    with pytest.raises(KernelStarting, match="dead"):
        await registry.interrupt(kernel.id)
    await registry.restart(kernel.id)
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.READY
    assert kernel.record.handle.launcher_id == launcher
    assert "reason" not in kernel.model()


async def test_restarts_in_a_row(registry):
    kernel = await ready(registry, new())
    for _ in range(3):
        before = kernel.process.pid
        await registry.restart(kernel.id)
        await asyncio.wait_for(kernel.settled(), 30)
        assert kernel.state is KernelState.READY
        assert kernel.process.pid != before
        assert not exists(before)


async def test_a_lost_launcher_is_told_and_the_kernel_restarts_with_a_new_one(registry):
    kernel = await ready(registry, new())
    launcher, pid = kernel.record.handle, kernel.process.pid
    os.kill(launcher.state["pid"], signal.SIGKILL)
    await until(lambda: kernel.state is KernelState.DEAD, "the loss is noticed")
    assert "launcher" in kernel.model()["reason"].lower()
    await until(lambda: not exists(pid), "the kernel does not outlive its launcher")
    await registry.restart(kernel.id)
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.READY
    assert kernel.record.handle.launcher_id != launcher.launcher_id


async def test_what_is_said_of_an_earlier_launcher_does_not_concern_a_new_one(registry):
    """A poll may have begun before its kernel was launched anew."""
    kernel = await ready(registry, new())
    earlier = dataclasses.replace(kernel.record.handle, launcher_id="another")
    gone = KernelStatus(Liveness.EXITED, "lost", None, "The launcher on this host has ended.")
    await registry.observer.judge([earlier], {kernel.id: gone})
    assert (kernel.state, kernel.gone.is_set(), kernel.verdict) == (KernelState.READY, False, None)
    await registry.observer.judge([kernel.record.handle], {kernel.id: gone})
    assert (kernel.state, kernel.record.reason) == (KernelState.DEAD, "lost_contact")


async def test_a_kernel_that_dies_while_its_restart_is_begun_is_restarted(registry, monkeypatch):
    kernel = await ready(registry, new())
    update, before = registry.store.update_kernel, kernel.process.pid

    async def update_while_it_dies(kernel_id, **fields):
        if fields.get("state") == "restarting" and exists(before):
            os.kill(before, signal.SIGKILL)
            await until(lambda: kernel.description.get("state") == "dead", "its death has been told")
        return await update(kernel_id, **fields)

    monkeypatch.setattr(registry.store, "update_kernel", update_while_it_dies)
    await registry.restart(kernel.id)
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.READY
    assert kernel.record.reason is None
    assert exists(kernel.process.pid)


async def test_a_kernel_that_exits_at_once_says_its_last_words(registry):
    kernel, _ = await registry.start(new([sys.executable, "-c", "import sys; sys.exit('no licence')"]))
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.DEAD
    assert "no licence" in kernel.failure
    log = await registry.log_of(kernel.id, 0)
    assert "no licence" in log["text"]


async def test_an_argv_that_does_not_exist_names_the_file(registry):
    kernel, _ = await registry.start(new(["/no/such/kernel", "{connection_file}"]))
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.DEAD
    assert "/no/such/kernel" in kernel.failure


async def test_a_kernel_that_never_answers_is_ended_at_the_deadline(registry):
    mark = f"EG_TEST_{uuid.uuid4().hex}"
    kernel, _ = await registry.start(new([sys.executable, "-c", "import time; time.sleep(600)", mark], timeout=1.5))
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.DEAD
    assert kernel.record.reason == "launch_timeout"
    await until(lambda: not running_with(mark), "its process is gone")


async def test_ending_a_launch_cancels_it(registry):
    mark = f"EG_TEST_{uuid.uuid4().hex}"
    kernel, _ = await registry.start(new([sys.executable, "-c", "import time; time.sleep(600)", mark]))
    await until(lambda: running_with(mark), "its process runs")
    with pytest.raises(KernelStarting):
        await registry.restart(kernel.id)
    await registry.end(kernel.id)
    await until(lambda: registry.find(kernel.id) is None, "the record is gone")
    assert not running_with(mark)


async def test_another_gateway_process_adopts_what_runs(tmp_path, runtime):
    async with gateway(tmp_path, runtime, end=False) as first:
        kernel = await ready(first, new())
    async with gateway(tmp_path, runtime) as second:
        adopted = second.kernel(kernel.id)
        await until(lambda: adopted.model()["execution_state"] == "idle", "the launcher has described it")
        assert adopted.process == kernel.process
        await second.interrupt(adopted.id)


async def test_a_launch_that_had_not_come_to_a_launcher_is_removed_at_the_next_start(tmp_path, runtime):
    mark = f"EG_TEST_{uuid.uuid4().hex}"
    async with gateway(tmp_path, runtime, end=False) as first:
        kernel, _ = await first.start(new([sys.executable, "-c", "import time; time.sleep(600)", mark]))
        await until(lambda: kernel.record.handle, "its launcher is being started")
        assert kernel.state is KernelState.LAUNCHING
    async with gateway(tmp_path, runtime) as second:
        again = second.kernel(kernel.id)
        await until(lambda: again.state is KernelState.DEAD, "the launch is given up")
        assert "gateway ended" in again.failure
        await until(lambda: not running_with(mark), "its process is gone")


async def test_a_kernel_that_was_starting_goes_on_at_the_next_start(tmp_path, runtime):
    slow = "import time; time.sleep(3); from ipykernel import kernelapp; kernelapp.launch_new_instance()"
    async with gateway(tmp_path, runtime, end=False) as first:
        kernel, _ = await first.start(new([sys.executable, "-c", slow, "-f", "{connection_file}"]))
        await until(lambda: kernel.state is KernelState.STARTING, "its launcher has it")
    async with gateway(tmp_path, runtime) as second:
        again = second.kernel(kernel.id)
        assert again.state is KernelState.STARTING
        await until(lambda: again.state is KernelState.READY, "it answers")
        assert again.process == kernel.process


async def test_a_gateway_that_is_to_end_starts_no_kernel(tmp_path, runtime):
    async with gateway(tmp_path, runtime) as registry:
        dead = await ready(registry, new())
        os.kill(dead.record.handle.state["pid"], signal.SIGKILL)
        await until(lambda: dead.state is KernelState.DEAD, "it is lost")
        living = await ready(registry, new())
        registry.draining = True
        with pytest.raises(GatewayEnding, match="try again"):
            await registry.start(new())
        with pytest.raises(GatewayEnding):
            await registry.restart(dead.id)
        again, made = await registry.start(new(kernel_id=living.id))
        assert (again, made) == (living, False)
        assert {kernel.id for kernel in registry.kernels()} == {living.id, dead.id}


async def test_a_kernel_that_died_unwatched_is_dead_at_the_next_start(tmp_path, runtime):
    async with gateway(tmp_path, runtime, end=False) as first:
        kernel = await ready(first, new())
    os.kill(kernel.record.handle.state["pid"], signal.SIGKILL)
    async with gateway(tmp_path, runtime) as second:
        again = second.kernel(kernel.id)
        await until(lambda: again.state is KernelState.DEAD, "the loss is noticed")
        await until(lambda: not exists(kernel.process.pid), "the process is gone")


async def test_the_reconciler_forgets_the_dead_after_a_while(tmp_path, runtime):
    async with gateway(tmp_path, runtime, dead_ttl=0.1) as registry:
        kernel, _ = await registry.start(new(["/no/such/kernel"]))
        await asyncio.wait_for(kernel.settled(), 30)
        await until(lambda: time.time() - kernel.record.updated_at > 0.1, "its time is over")
        await Reconciler(registry, "local").reconcile()
        await until(lambda: registry.find(kernel.id) is None, "the record is gone")


async def test_many_at_once_share_a_launcher_and_no_environment(registry):
    kernels = await asyncio.gather(*(ready(registry, new(env={"KERNEL_N": str(n)})) for n in range(6)))
    assert len({kernel.record.handle.launcher_id for kernel in kernels}) == 1
    for n, kernel in enumerate(kernels):
        environ = Path(f"/proc/{kernel.process.pid}/environ").read_bytes().split(b"\0")
        assert [entry for entry in environ if entry.startswith(b"KERNEL_N=")] == [b"KERNEL_N=%d" % n]
