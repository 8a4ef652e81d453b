"""One launch: from the recorded intent to a kernel that answers, with one deadline, cancellable at every step.

The data's way: record → ``eg_modify_launch`` → ``eg_launch_kernel`` (each handle is stored before the next step) →
``eg_discover_connection`` → the launcher's ``/start`` → its ``/events`` say that the kernel has answered.
Whatever goes wrong after the first handle, what exists at the remote is removed before the failure is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from eg_core import logs
from eg_core.errors import GatewayError, LaunchFailed, LaunchTimeout
from eg_core.kernels.kernel import Kernel, process_of
from eg_core.kernels.states import Event, KernelState
from eg_core.types import KernelHandle, KernelStart, LaunchRequest, Progress

if TYPE_CHECKING:
    from eg_core.kernels.links import LauncherLink
    from eg_core.kernels.registry import KernelRegistry


class Launch:
    """Run once, as a task of its own. Never raises: the outcome is the kernel's state."""

    def __init__(self, registry: KernelRegistry, kernel: Kernel, *, timeout: float) -> None:
        self._registry = registry
        self._kernel = kernel
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._started = self._phase_began = time.monotonic()

    async def run(self) -> None:
        kernel, registry = self._kernel, self._registry
        logs.bind(kernel_id=kernel.id, user=kernel.record.owner)
        await registry.tell(kernel, "launching")
        try:
            async with _deadline(self._deadline):
                await self._launch()
        except asyncio.CancelledError:
            return  # whoever cancels (end, shutdown) sees to the rest
        except TimeoutError:
            await self._fail(self._too_late())
        except GatewayError as error:
            await self._fail(error)
        except Exception as error:
            registry.log.exception("kernel %s: launch failed unexpectedly", kernel.id)
            await self._fail(
                LaunchFailed(
                    f"Internal error while kernel {kernel.id} was being launched ({type(error).__name__}); "
                    "the gateway's log has the details.",
                    reason="internal_error",
                )
            )

    async def _launch(self) -> None:
        kernel, registry = self._kernel, self._registry
        kernel.phase = "launcher"
        request = await self._request()
        await registry.hooks.modify_launch(request)
        handle = await self._get_launcher(request)
        link = await registry.launchers.link(handle, registry.observer)
        kernel.link = link
        kernel.progress = "waiting for its launcher"
        await self._connected(link)
        self._phase("launcher", "start", "starting the kernel")
        kernel.accepted_at = time.monotonic()
        description = await link.client.start(kernel.id, self._start_body(request.kernel))
        self._phase("start", "answer", "waiting for the kernel to answer")
        await registry.advance(kernel, Event.ACCEPTED, process=process_of(description))
        await registry.observer.describe(kernel, description)
        await kernel.settled()
        if kernel.state is KernelState.READY:
            self._phase("answer")
            registry.log.info("kernel %s: ready after %.2f s", kernel.id, time.monotonic() - self._started)
            await registry.tell(kernel, "launched")

    def _phase(self, name: str, following: str | None = None, progress: str | None = None) -> None:
        """A phase is over; the next one begins."""
        self._kernel.phase, self._kernel.progress = following, progress
        began, self._phase_began = self._phase_began, time.monotonic()
        self._registry.metrics.launch_phase(self._kernel.record.backend, name, self._phase_began - began)

    async def _connected(self, link: LauncherLink) -> None:
        """Wait for the launcher's first word, or for the verdict that it has ended or speaks another protocol."""
        connected, gone = (asyncio.ensure_future(event.wait()) for event in (link.connected, self._kernel.gone))
        try:
            await asyncio.wait((connected, gone, link.refused), return_when=asyncio.FIRST_COMPLETED)
        finally:
            connected.cancel()
            gone.cancel()
        if link.refused.done():
            raise LaunchFailed(link.refused.result(), reason="launcher_protocol")
        if not link.connected.is_set():
            why = self._kernel.verdict or "it ended before it could be reached"
            raise LaunchFailed(f"The launcher of kernel {self._kernel.id} is gone: {why}.", reason="launcher_lost")

    async def _request(self) -> LaunchRequest:
        record = self._kernel.record
        start = record.start
        return LaunchRequest(
            kernel_id=record.kernel_id,
            kernelspec=record.kernelspec,
            backend=record.backend,
            owner=record.owner,
            run_as=record.run_as,
            options=dict(record.options),
            labels=dict(record.labels),
            deadline=self._deadline,
            kernel=KernelStart(list(start.argv), dict(start.env), start.cwd, start.interrupt_mode),
            launcher=await self._registry.launchers.new(record.backend),
        )

    async def _get_launcher(self, request: LaunchRequest) -> KernelHandle:
        handle: KernelHandle | None = None
        async with contextlib.aclosing(self._registry.hooks.launch_kernel(request)) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    self._kernel.progress = step.message
                else:
                    handle = step
                    await self._registry.keep_handle(self._kernel, step)
        if handle is None or handle.launcher_id != request.launcher.launcher_id:
            await self._registry.launchers.forget(request.launcher.launcher_id)  # it joined another, or none came
        if handle is None:
            raise LaunchFailed(
                f"Backend {request.backend!r} started nothing: it yielded no handle.", reason="internal_error"
            )
        return handle

    def _start_body(self, start: KernelStart) -> dict[str, Any]:
        return {
            "argv": start.argv,
            "env": start.env,
            "cwd": start.cwd,
            "interrupt_mode": start.interrupt_mode,
            "name": self._kernel.record.kernelspec,
            "limits": dict(self._registry.settings.limits),
            "journal": dict(self._registry.settings.journal),
            "ready_timeout": max(1.0, self._deadline - time.monotonic()),
        }

    def _too_late(self) -> LaunchTimeout:
        doing = f" Last: {self._kernel.progress}." if self._kernel.progress else ""
        return LaunchTimeout(
            f"Kernel {self._kernel.id} did not answer within its launch timeout of {self._timeout:g} s.{doing} "
            "Raise EG_KERNEL_LAUNCH_TIMEOUT or the kernelspec's metadata.eg.launch_timeout if it needs longer."
        )

    async def _fail(self, error: GatewayError) -> None:
        kernel, registry = self._kernel, self._registry
        if error.detail:
            registry.log.warning("kernel %s: %s (%s)", kernel.id, error, error.detail)
        await registry.remove_remote(kernel, grace=0.0, reason=error.reason)
        kernel.error = error
        await registry.advance(kernel, Event.FAILED, reason=error.reason, message=error.message, process=None)
        await registry.tell(kernel, "launch_failed")


@contextlib.asynccontextmanager
async def _deadline(when: float) -> Any:
    """``asyncio.timeout`` of Python 3.11, for 3.10: raises TimeoutError when ``when`` (monotonic) has passed."""
    task = asyncio.current_task()
    assert task is not None
    late = False

    def cancel() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), cancel)
    try:
        yield
    except asyncio.CancelledError:
        if late:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
