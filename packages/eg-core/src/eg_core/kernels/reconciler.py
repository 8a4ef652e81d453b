"""Per backend, every ``poll_interval``: one batch poll, and what follows from comparing it with the records.

A launcher that has ended takes its kernel to DEAD; a kernel whose end is recorded is removed when its remote is back;
a dead kernel's record goes after ``dead_ttl``; what carries this gateway's label and belongs to no record is
removed when it has been seen twice (once may be a launch in the middle of its first step).
"""

from __future__ import annotations

import asyncio
import time

from eg_core import logs
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.registry import KernelRegistry
from eg_core.kernels.states import KernelState
from eg_core.types import KernelHandle

KEEP_UNUSED = 3600.0
"""Seconds after which the record of a launcher goes that the backend does not know and no kernel uses."""


class Reconciler:
    def __init__(self, registry: KernelRegistry, backend: str) -> None:
        self._registry = registry
        self._backend = backend
        self._suspects: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """For ever; a failing round is logged and the next one tries again."""
        while True:
            try:
                await self.reconcile()
            except Exception:
                self._registry.log.exception("backend %s: reconciling failed", self._backend)
            await asyncio.sleep(self._registry.settings.poll_interval)

    async def reconcile(self) -> None:
        registry = self._registry
        kernels = [kernel for kernel in registry.all_kernels() if kernel.record.backend == self._backend]
        handles = [kernel.record.handle for kernel in kernels if kernel.record.handle is not None]
        poll = await registry.hooks.poll_kernels(self._backend, handles)
        await registry.observer.judge(handles, poll.statuses)
        for kernel in kernels:
            with logs.about(kernel_id=kernel.id, user=kernel.record.owner):
                await self._finish(kernel)
        await self._remove_strays(list(poll.strays))
        running = {handle.launcher_id for handle in (*handles, *poll.strays)}
        for launcher_id in registry.launchers.unused(self._backend, KEEP_UNUSED):
            if launcher_id not in running:
                await registry.launchers.forget(launcher_id)

    async def _finish(self, kernel: Kernel) -> None:
        registry = self._registry
        age = time.time() - kernel.record.updated_at
        if kernel.state is KernelState.DEAD and age > registry.settings.dead_ttl:
            await registry.end(kernel.id, "dead")
        elif kernel.state is KernelState.ENDING and age > 2 * registry.settings.grace + registry.settings.poll_interval:
            await registry.remove_remote(kernel, grace=0.0, reason="shutdown")
            await registry.remove(kernel, 0.0, "shutdown")

    async def _remove_strays(self, strays: list[KernelHandle]) -> None:
        registry = self._registry
        known = registry.launchers.ids()
        unknown = {(stray.launcher_id, stray.kernel_id): stray for stray in strays if stray.launcher_id not in known}
        for key in self._suspects & unknown.keys():
            registry.log.warning("backend %s: launcher %s belongs to no record: removed", self._backend, key[0])
            await registry.hooks.kill_kernel(unknown[key], None, 0.0, "stray")
            await registry.tell_stray(unknown[key])
        self._suspects = set(unknown)
