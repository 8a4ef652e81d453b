"""The registry: the only writer of kernel records, and the one place that decides what becomes of a kernel.

Every change of state goes through ``advance``: the table says whether the event applies, the store takes it, then
memory does. The record is written before the first remote call and after each handle, so
whatever a crash leaves behind is in the store or carries this gateway's label.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from eg_core import logs
from eg_core.errors import (
    BackendUnavailable,
    GatewayEnding,
    GatewayError,
    InvalidRequest,
    KernelGone,
    KernelStarting,
    NoSuchRequest,
)
from eg_core.hooks import Hooks
from eg_core.kernels import ends
from eg_core.kernels.culling import GONE_WITHIN, until_gone, was_culled
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.launch import Launch
from eg_core.kernels.launchers import Launchers
from eg_core.kernels.links import LauncherLink
from eg_core.kernels.observer import Observer
from eg_core.kernels.resuming import resume
from eg_core.kernels.settings import NewKernel, Settings
from eg_core.kernels.states import Event, KernelState, transition
from eg_core.launchers.client import LauncherClient, LauncherError
from eg_core.metrics import Metrics
from eg_core.store.records import KernelRecord
from eg_core.store.store import DuplicateKernel, Store
from eg_core.types import KernelEvent, KernelHandle
from eg_launcher import wire

__all__ = ["KernelRegistry", "NewKernel", "Settings"]


class KernelRegistry:
    def __init__(
        self,
        *,
        store: Store,
        hooks: Hooks,
        launchers: Launchers,
        settings: Settings,
        log: logging.Logger | Any,
        metrics: Metrics | None = None,
    ) -> None:
        self.store = store
        self.hooks = hooks
        self.settings = settings
        self.log = log
        self.metrics = metrics or Metrics()
        self.launchers = launchers
        self.observer = Observer(self)
        self.draining = False  # no new launch is taken
        self._kernels: dict[str, Kernel] = {}
        self._records: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what clients ask ------------------------------------------------------------------------------------

    def kernel(self, kernel_id: str) -> Kernel:
        """Raises KernelGone when it is unknown or its end is recorded."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None or kernel.state is KernelState.ENDING:
            raise KernelGone(f"Kernel does not exist: {kernel_id}")
        return kernel

    def kernels(self) -> list[Kernel]:
        return [kernel for kernel in self._kernels.values() if kernel.state is not KernelState.ENDING]

    def find(self, kernel_id: str) -> Kernel | None:
        """Whatever there is under this id, also when its end is recorded."""
        return self._kernels.get(kernel_id)

    def all_kernels(self) -> list[Kernel]:
        return list(self._kernels.values())

    async def start(self, new: NewKernel) -> tuple[Kernel, bool]:
        """Record a kernel and begin its launch; (kernel, made). The same id by the same owner is the same kernel.

        Raises DuplicateKernel when the id belongs to another owner, InvalidRequest for an unknown backend, LaunchDenied
        when there are as many kernels as there may be, GatewayEnding when the next gateway is to be asked.
        """
        if new.backend not in self.hooks.backends:
            raise InvalidRequest(
                f"Kernelspec {new.kernelspec!r} wants backend {new.backend!r}, which is not configured here "
                f"(there are: {', '.join(sorted(self.hooks.backends))}). Ask the administrator to install its plugin.",
                reason="no_such_backend",
            )
        kernel_id = new.kernel_id
        now = time.time()
        record = KernelRecord(
            kernel_id=kernel_id,
            kernelspec=new.kernelspec,
            backend=new.backend,
            owner=new.owner,
            run_as=None,
            state=KernelState.LAUNCHING.value,
            reason=None,
            message=None,
            options=dict(new.options),
            labels={},
            start=new.start,
            handle=None,
            process=None,
            exit=None,
            created_at=now,
            updated_at=now,
        )
        async with self._recording(kernel_id):
            existing = self._kernels.get(kernel_id)
            if existing is None:
                self._check_open()
                await self.store.add_kernel(record, quota=self.settings.quota)
                kernel = self._kernels[kernel_id] = Kernel(record)
                self._launch(kernel, new.launch_timeout)
                return kernel, True
        if existing.record.owner != new.owner or existing.state is KernelState.ENDING:
            raise DuplicateKernel(existing.record)
        return existing, False

    async def interrupt(self, kernel_id: str) -> None:
        kernel = self._living(kernel_id, "interrupted")
        handle = kernel.record.handle
        if handle is None or not await self.hooks.interrupt_kernel(handle, kernel.process):
            await self._client(kernel).interrupt(kernel.id)
        await self.tell(kernel, "interrupted")

    async def restart(self, kernel_id: str) -> Kernel:
        """Begin a restart, in place where the launcher lives, else as a new launch under the same id."""
        kernel = self.kernel(kernel_id)
        if kernel.state in (KernelState.LAUNCHING, KernelState.STARTING):
            raise KernelStarting(f"Kernel {kernel_id} is still starting; it can be restarted when it has started.")
        if kernel.state is KernelState.RESTARTING:
            return kernel
        if was_culled(kernel):
            await until_gone(self, kernel)
        if kernel.link is not None and await self._restart_in_place(kernel, kernel.link):
            return kernel
        self._check_open()
        if not await self.remove_remote(kernel, grace=0.0, reason="restart"):
            raise BackendUnavailable(f"What is left of kernel {kernel_id} cannot be removed now; try again.")
        gone = ends.EndReason.LOST_CONTACT
        await self.advance(kernel, Event.DIED, reason=gone.value, message=gone.meaning, process=None)
        if await self.advance(kernel, Event.RELAUNCH, reason=None, message=None, exit=None, handle=None):
            kernel.link = None
            self._launch(kernel, None)
        return kernel

    async def log_of(self, kernel_id: str, after: int) -> dict[str, Any]:
        """What the kernel's process has written, as the protocol's log answer."""
        kernel = self.kernel(kernel_id)
        if kernel.link is None:
            return {"first": after, "next": after, "text": ""}
        return await self._client(kernel).log(kernel.id, after)

    async def outputs_of(self, kernel_id: str, which: dict[str, str]) -> dict[str, Any]:
        """What a request has put out so far, as the protocol's outputs answer. Raises NoSuchRequest."""
        kernel = self.kernel(kernel_id)
        if kernel.link is None:
            raise NoSuchRequest("Nothing is known of such a request.")
        try:
            return await self._client(kernel).outputs(kernel.id, **which)
        except LauncherError as error:
            if error.status == 404:
                raise NoSuchRequest(error.message) from None
            raise

    async def end(self, kernel_id: str, why: str = "shutdown") -> None:
        """Record the end, tell the launcher, and return; what is left is removed behind the caller's back."""
        kernel = self.kernel(kernel_id)
        reason, message = ends.when_asked(kernel.record)
        if not await self.advance(kernel, Event.END, reason=reason, message=message):
            raise KernelGone(f"Kernel does not exist: {kernel_id}")
        kernel.close_sockets(wire.CLOSE_KERNEL_ENDED, "The kernel was shut down.")
        if kernel.launch is not None:
            kernel.launch.cancel()
            await asyncio.gather(kernel.launch, return_exceptions=True)
        await self.ask_to_end(kernel, self.settings.grace)
        self.spawn(self.remove(kernel, self.settings.grace, why))

    # -- what launch, links and the reconciler use ---------------------------------------------------------------

    async def advance(self, kernel: Kernel, event: Event, **fields: Any) -> bool:
        """Apply ``event`` if the table has it for the kernel's state; the store first, then memory."""
        async with kernel.lock:
            old = kernel.state
            new = transition(old, event)
            if new is None:
                return False
            quota = self.settings.quota if old is KernelState.DEAD and new is not KernelState.ENDING else None
            record = await self.store.update_kernel(kernel.id, expect=old.value, quota=quota, state=new.value, **fields)
            if record is None:
                self.log.warning("kernel %s: its record was changed elsewhere; %s ignored", kernel.id, event.name)
                return False
            kernel.changed(record)
            self.log.debug("kernel %s: %s -> %s (%s)", kernel.id, old.value, new.value, event.value)
            return True

    async def keep_handle(self, kernel: Kernel, handle: KernelHandle) -> None:
        async with kernel.lock:
            record = await self.store.update_kernel(kernel.id, handle=handle)
            if record is not None:
                kernel.changed(record)

    async def remove_remote(self, kernel: Kernel, *, grace: float, reason: str) -> bool:
        """End what exists at the remote; True when nothing of it is left there."""
        await self.ask_to_end(kernel, grace)
        return await self.kill(kernel, grace, reason)

    async def remove(self, kernel: Kernel, grace: float, reason: str) -> None:
        """The second half of an end: wait for the launcher to be done, remove the rest, drop the record."""
        if kernel.record.handle is not None and kernel.link is not None:
            try:
                await asyncio.wait_for(kernel.gone.wait(), grace + GONE_WITHIN)
            except asyncio.TimeoutError:
                self.log.warning("kernel %s: its launcher has not ended it yet", kernel.id)
                return  # the reconciler tries again
        if not await self.kill(kernel, grace, reason):
            return  # the remote is away: the reconciler tries again
        await self.store.remove_kernel(kernel.id)
        self._kernels.pop(kernel.id, None)
        if kernel.link is not None and not any(other.link is kernel.link for other in self.all_kernels()):
            await self.launchers.unused_now(kernel.link)
        await self.tell(kernel, "ended")

    async def tell(self, kernel: Kernel, name: str) -> None:
        event = kernel.event(name)
        self.metrics.event(event)
        with logs.about(kernel_id=kernel.id, user=event.owner):
            self.log.info("kernel %s: %s%s", kernel.id, name, f" ({event.message})" if event.message else "")
            await self.hooks.observe_event(event)

    async def tell_stray(self, stray: KernelHandle) -> None:
        event = KernelEvent("stray_removed", stray.kernel_id, "", stray.backend, "", time.time(), "stray")
        self.metrics.event(event)
        await self.hooks.observe_event(event)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- beginning and end of the gateway ------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the store: adopt what runs, finish what was being ended, remove what was being launched."""
        await self.launchers.open()
        self._kernels = {record.kernel_id: Kernel(record) for record in await self.store.kernels()}
        for kernel in self.all_kernels():
            self.spawn(resume(self, kernel))

    async def close(self) -> None:
        """Leave everything running, and let go of it."""
        for kernel in self.all_kernels():
            kernel.close_sockets(wire.CLOSE_RESTART, "The gateway is restarting.")
            if kernel.launch is not None:
                kernel.launch.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.launchers.close()

    async def end_all(self, timeout: float) -> None:
        """End every kernel and wait until all are gone, at most ``timeout`` seconds."""
        await asyncio.gather(
            *(self.end(kernel.id, "gateway ended") for kernel in self.kernels()), return_exceptions=True
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._kernels and self._tasks and (left := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    # -- parts -------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.draining:
            raise GatewayEnding("The gateway is restarting and starts no kernels now; try again.", retry_after=5.0)

    def _launch(self, kernel: Kernel, timeout: float | None) -> None:
        launch = Launch(self, kernel, timeout=timeout or self.settings.launch_timeout)
        kernel.begin()
        kernel.launch = self.spawn(launch.run())

    @contextlib.asynccontextmanager
    async def _recording(self, kernel_id: str) -> AsyncIterator[None]:
        """One at a time for each id: a second request for it sees what became of the first."""
        while (other := self._records.get(kernel_id)) is not None:
            await other.wait()
        done = self._records[kernel_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._records[kernel_id]
            done.set()

    def _living(self, kernel_id: str, what: str) -> Kernel:
        kernel = self.kernel(kernel_id)
        if kernel.state in (KernelState.LAUNCHING, KernelState.STARTING, KernelState.RESTARTING):
            raise KernelStarting(f"Kernel {kernel_id} is still starting; it can be {what} when it has started.")
        if kernel.state is KernelState.DEAD:
            raise KernelStarting(f"Kernel {kernel_id} is dead and cannot be {what}: {kernel.failure}", reason="dead")
        return kernel

    @staticmethod
    def _client(kernel: Kernel) -> LauncherClient:
        if kernel.link is None:
            raise KernelGone(f"The launcher of kernel {kernel.id} is gone.")
        return kernel.link.client

    async def _restart_in_place(self, kernel: Kernel, link: LauncherLink) -> bool:
        """False: its launcher is gone or does not know the kernel. Raises when it merely cannot be reached now."""
        before = kernel.incarnation
        if not await self.advance(kernel, Event.RESTART, reason=None, message=None, exit=None):
            return True
        kernel.incarnation = before + 1
        try:
            description = await link.client.restart(kernel.id)
        except GatewayError as error:
            kernel.incarnation = before
            if isinstance(error, LauncherError) and error.status == 404:
                return False
            await self.observer.link_lost(link)
            if kernel.link is None:
                return False
            await self.observer.describe(kernel, kernel.description)
            raise
        told = kernel.description
        if kernel.state is KernelState.DEAD and not (told.get("state") == "dead" and told.get("incarnation") != before):
            # The process that was to be replaced had died by then, and that was taken for the kernel's end.
            await self.advance(kernel, Event.RESTART, reason=None, message=None, exit=None)
        await self.tell(kernel, "restarting")
        await self.observer.describe(kernel, description)
        return True

    async def ask_to_end(self, kernel: Kernel, grace: float, message: str | None = None) -> None:
        """Have the launcher end the kernel; not being able to is no error, for the backend comes next."""
        if kernel.link is None:
            kernel.gone.set()
            return
        try:
            await kernel.link.client.shutdown(kernel.id, grace, message)
        except LauncherError as error:
            if error.status == 404:
                kernel.gone.set()
            else:
                self.log.warning("kernel %s: the launcher would not end it: %s", kernel.id, error)
        except GatewayError as error:
            self.log.info("kernel %s: its launcher cannot be asked to end it: %s", kernel.id, error)

    async def kill(self, kernel: Kernel, grace: float, reason: str) -> bool:
        """Have the backend remove what is left; False when it must be tried again."""
        handle = kernel.record.handle
        if handle is None:
            return True
        try:
            await self.hooks.kill_kernel(handle, kernel.process, grace, reason)
        except GatewayError as error:
            self.log.warning("kernel %s: not removed yet: %s", kernel.id, error)
            return False
        except Exception:
            self.log.exception("kernel %s: backend %s failed to remove it", kernel.id, handle.backend)
            return False
        return True

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:
            self.log.exception("a task of the kernel registry failed")
