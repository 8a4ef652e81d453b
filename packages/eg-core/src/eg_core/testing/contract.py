"""What every backend must pass. Subclass, give a ``backend`` fixture that returns a ``Subject``, and run it::

    class TestYarn(BackendContract):
        @pytest.fixture
        def backend(self):
            return Subject("yarn", {"type": "yarn", "endpoints": [url]})

Each test drives the backend through the hooks, as the core does, and a real kernel through the launcher. What the
backend has no means for is skipped in words. Everything a test has started is ended, also after a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eg_core.config import Plugin
from eg_core.errors import GatewayError, LaunchFailed
from eg_core.plugins import BACKEND_HOOKS, REQUIRED, PluginManager
from eg_core.testing.rig import Launched, Rig, Subject, marked, stored
from eg_core.testing.watch import LoopWatch
from eg_core.types import KernelHandle, Liveness

GATEWAY_SECRET = "a secret of the gateway's own"  # noqa: S105


def capabilities(plugins: PluginManager, name: str) -> list[str]:
    """What a backend can: the optional hooks it implements, and what it says of itself."""
    plugin: Any = plugins.plugin(name)
    hooks = {caller.name for caller in plugins.pm.get_hookcallers(plugin) or ()}
    said = plugin.capabilities if isinstance(plugin, Plugin) else frozenset()
    return sorted((hooks & set(BACKEND_HOOKS)) - set(REQUIRED)) + sorted(said)


class BackendContract:
    """The suite. ``backend`` is the only fixture a subclass must give."""

    @pytest.fixture
    def backend(self) -> Subject:
        raise NotImplementedError("give a `backend` fixture that returns a Subject")

    @pytest.fixture
    async def rig(self, backend: Subject, tmp_path: Path) -> AsyncIterator[Rig]:
        environ = dict(os.environ) | {"EG_AUTH_TOKEN": GATEWAY_SECRET}
        rig = Rig(backend, tmp_path, gateway_id=uuid.uuid4().hex, environ=environ)
        await rig.open()
        try:
            yield rig
        finally:
            await rig.close()
            for pid in rig.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # -- a kernel's life ----------------------------------------------------------------------------------------

    async def test_a_real_kernel_answers_through_the_launcher(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            result = await _run(kernel, "print(6 * 7)")
            assert (result.status, result.text.strip()) == ("ok", "42")
            assert (await rig.status(kernel.handle)).state is Liveness.RUNNING
        finally:
            await rig.end(kernel)

    async def test_interrupt_ends_the_cell_and_keeps_the_variables(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            await _run(kernel, "x = 17")
            cell = asyncio.create_task(_run(kernel, "print('on', flush=True)\nimport time\nwhile True: time.sleep(1)"))
            await rig.until(lambda: _busy(kernel), 20, "the cell runs")
            if not await rig.hooks.interrupt_kernel(kernel.handle, await asyncio.to_thread(kernel.process)):
                await asyncio.to_thread(kernel.api.interrupt, kernel.kernel_id)
            assert (await cell).error.startswith("KeyboardInterrupt")
            assert (await _run(kernel, "print(x)")).text.strip() == "17"
        finally:
            await rig.end(kernel)

    async def test_an_interrupt_is_harmless_when_idle(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            process = await asyncio.to_thread(kernel.process)
            if not await rig.hooks.interrupt_kernel(kernel.handle, process):
                await asyncio.to_thread(kernel.api.interrupt, kernel.kernel_id)
            assert (await _run(kernel, "print('here')")).text.strip() == "here"
        finally:
            await rig.end(kernel)

    async def test_restart_loses_the_variables_and_nothing_else(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            await _run(kernel, "x = 17")
            before = await asyncio.to_thread(kernel.process)
            restarted = await asyncio.to_thread(kernel.api.restart, kernel.kernel_id)
            await asyncio.to_thread(kernel.api.ready, kernel.kernel_id, incarnation=restarted["incarnation"])
            assert (await _run(kernel, "x")).error.startswith("NameError")
            assert await asyncio.to_thread(kernel.process) != before
            assert (await rig.status(kernel.handle)).state is Liveness.RUNNING
        finally:
            await rig.end(kernel)

    async def test_kill_is_idempotent_and_leaves_nothing(self, rig: Rig) -> None:
        kernel = await rig.start()
        await _run(kernel, "import subprocess; child = subprocess.Popen(['sleep', '600'])")
        await rig.end(kernel)
        await self._nothing_is_left(rig, kernel)
        for _ in range(2):
            await rig.hooks.kill_kernel(kernel.handle, None, 0.0, "shutdown")

    async def test_a_kernel_that_was_never_started_leaves_nothing(self, rig: Rig) -> None:
        kernel = await rig.launch()
        await rig.hooks.kill_kernel(kernel.handle, None, 1.0, "shutdown")
        await self._nothing_is_left(rig, kernel)

    # -- launches that fail --------------------------------------------------------------------------------------

    async def test_a_failed_launch_says_why_and_leaves_nothing(self, rig: Rig) -> None:
        if rig.subject.broken is None:
            pytest.skip("the backend's tests give no instance whose launches fail (Subject.broken)")
        hooks = await rig.broken()
        request = rig.request()
        with pytest.raises(GatewayError) as caught:
            await rig.launch(request, hooks=hooks)
        assert isinstance(caught.value, LaunchFailed) or caught.value.reason != "internal_error"
        assert caught.value.message.strip()
        assert "internal" not in caught.value.reason
        await self._launcher_is_gone(rig, request.launcher.launcher_id)

    async def test_a_late_launch_leaves_nothing(self, rig: Rig) -> None:
        request = rig.request(timeout=0.05)
        try:
            await rig.launch(request)
        except (TimeoutError, GatewayError):
            pass
        await self._launcher_is_gone(rig, request.launcher.launcher_id)

    async def test_a_launch_cancelled_at_each_step_leaves_nothing(self, rig: Rig) -> None:
        for step in range(20):
            request = rig.request()
            steps: Any = rig.hooks.launch_kernel(request)
            handle: KernelHandle | None = None
            finished = True
            async with contextlib.aclosing(steps):
                count = 0
                async for said in steps:
                    handle = stored(said) if isinstance(said, KernelHandle) else handle
                    if count == step:
                        finished = False
                        break
                    count += 1
            if handle is not None:
                await rig.hooks.kill_kernel(handle, None, 0.0, "cancelled")
            await self._launcher_is_gone(rig, request.launcher.launcher_id)
            if finished:
                return
        pytest.fail("a launch has more than 20 steps")

    async def test_a_launch_cancelled_at_any_time_leaves_nothing(self, rig: Rig) -> None:
        for delay in (0.0, 0.005, 0.02, 0.05, 0.1):
            request = rig.request()
            task = asyncio.create_task(rig.launch(request))
            await asyncio.wait({task}, timeout=delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled() and task.exception() is None:
                await rig.hooks.kill_kernel(task.result().handle, None, 0.0, "cancelled")
            await self._launcher_is_gone(rig, request.launcher.launcher_id)

    # -- what the core relies on ----------------------------------------------------------------------------------

    async def test_two_launches_share_no_environment(self, rig: Rig) -> None:
        one, two = await asyncio.gather(rig.start(env={"ONE": "first"}), rig.start(env={"TWO": "second"}))
        try:
            for kernel, has, lacks in ((one, "ONE", "TWO"), (two, "TWO", "ONE")):
                seen = json.loads((await _run(kernel, "import json, os; print(json.dumps(dict(os.environ)))")).text)
                assert has in seen
                assert lacks not in seen
                assert GATEWAY_SECRET not in seen.values()
        finally:
            await asyncio.gather(rig.end(one), rig.end(two))

    async def test_a_launch_again_after_a_crash_makes_no_second_launcher(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            await rig.again()
            once_more = await rig.launch(rig.request(kernel_id=kernel.kernel_id))
            assert once_more.handle.launcher_id == kernel.handle.launcher_id
        finally:
            await rig.end(kernel)

    async def test_a_restarted_gateway_finds_the_kernel_by_its_handle(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            await _run(kernel, "x = 17")
            await rig.again()
            assert (await rig.status(kernel.handle)).state is Liveness.RUNNING
            found = Launched(kernel.handle, kernel.request, await rig.api(kernel.handle), [])
            assert (await _run(found, "print(x)")).text.strip() == "17"
        finally:
            await rig.end(kernel)
        await self._nothing_is_left(rig, kernel)

    async def test_poll_knows_strays_by_their_label(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            polled = await rig.hooks.poll_kernels(rig.subject.name, [kernel.handle])
            assert kernel.handle.launcher_id not in {stray.launcher_id for stray in polled.strays}
            strays = (await rig.hooks.poll_kernels(rig.subject.name, [])).strays
            assert kernel.handle.launcher_id in {stray.launcher_id for stray in strays}
            for stray in strays:
                await rig.hooks.kill_kernel(stored(stray), None, 1.0, "stray")
            await self._nothing_is_left(rig, kernel)
        finally:
            await rig.end(kernel)

    async def test_poll_says_exited_when_it_is_over_and_survives_odd_handles(self, rig: Rig) -> None:
        kernel = await rig.launch()
        odd = KernelHandle("odd", "no-such-launcher", rig.subject.name, {})
        assert set((await rig.hooks.poll_kernels(rig.subject.name, [kernel.handle, odd])).statuses) == {
            kernel.kernel_id,
            "odd",
        }
        await rig.end(kernel)
        await self._nothing_is_left(rig, kernel)
        assert (await rig.status(kernel.handle)).state is Liveness.EXITED

    async def test_poll_says_unknown_when_it_cannot_know(self, rig: Rig) -> None:
        if rig.subject.cut is None:
            pytest.skip("the backend has no resource manager that could be away (Subject.cut)")
        kernel = await rig.launch()
        with rig.subject.cut():
            assert (await rig.status(kernel.handle)).state is Liveness.UNKNOWN
        assert (await rig.status(kernel.handle)).state is Liveness.RUNNING
        await rig.end(kernel)

    async def test_no_secret_is_where_others_can_read_it(self, rig: Rig) -> None:
        kernel = await rig.start()
        try:
            token = rig.tokens[kernel.handle.launcher_id]
            assert token not in json.dumps(kernel.handle.state)
            if rig.subject.on_this_host:
                assert marked(token) == []
                assert marked(GATEWAY_SECRET) == []
        finally:
            await rig.end(kernel)

    async def test_no_callback_holds_the_loop(self, rig: Rig) -> None:
        with LoopWatch() as watch:
            first, second = await asyncio.gather(rig.start(), rig.start())
            await rig.hooks.poll_kernels(rig.subject.name, [first.handle, second.handle])
            await asyncio.gather(rig.end(first), rig.end(second))
        assert watch.held == []

    def test_it_says_what_it_can(self, backend: Subject, capsys: pytest.CaptureFixture[str]) -> None:
        plugins = PluginManager(backends={backend.name: backend.settings})
        can = capabilities(plugins, backend.name)
        with capsys.disabled():
            print(f"\n{backend.name}: {', '.join(can) or 'the required and nothing more'}")
        plugin = plugins.plugin(backend.name)
        assert type(plugin).__doc__, "a backend has a docstring: it is its line in the list of backends"

    # -- how ----------------------------------------------------------------------------------------------------------

    async def _nothing_is_left(self, rig: Rig, kernel: Launched) -> None:
        if rig.subject.on_this_host:
            await rig.until(lambda: rig.processes() == [], 10, "no process of the kernel is left")
        await self._launcher_is_gone(rig, kernel.handle.launcher_id, kernel.handle)

    async def _launcher_is_gone(self, rig: Rig, launcher_id: str, handle: KernelHandle | None = None) -> None:
        """At once, or, where launchers are shared, when it has noticed that nobody needs it."""

        async def gone() -> bool:
            strays = (await rig.hooks.poll_kernels(rig.subject.name, [])).strays
            if launcher_id in {stray.launcher_id for stray in strays}:
                return False
            return handle is None or (await rig.status(handle)).state is Liveness.EXITED

        loop = asyncio.get_running_loop()
        await rig.until(
            lambda: asyncio.run_coroutine_threadsafe(gone(), loop).result(30), 20, f"launcher {launcher_id} is gone"
        )


async def _run(kernel: Launched, code: str) -> Any:
    def run() -> Any:
        with kernel.api.channels(kernel.kernel_id) as channels:
            return channels.execute(code)

    return await asyncio.to_thread(run)


def _busy(kernel: Launched) -> bool:
    return bool(kernel.api.status()["kernels"][kernel.kernel_id]["execution_state"] == "busy")
