"""What launchers and backends say of kernels, and what follows from it.

A launcher speaks through its link's ``/events``; a backend through its polls, of which only EXITED says
anything. Both end in ``KernelRegistry.advance``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from eg_core import logs
from eg_core.errors import GatewayError
from eg_core.kernels import ends
from eg_core.kernels.kernel import Kernel, process_of
from eg_core.kernels.links import LauncherLink
from eg_core.kernels.states import Event, KernelState
from eg_core.types import KernelHandle, KernelStatus, Liveness
from eg_launcher import wire

if TYPE_CHECKING:
    from eg_core.kernels.registry import KernelRegistry

_FORGOTTEN = KernelStatus(Liveness.EXITED, detail="its launcher no longer knows it")


class Observer:
    """The owner of all links (``links.LinkOwner``)."""

    def __init__(self, registry: KernelRegistry) -> None:
        self._registry = registry

    async def observed(self, link: LauncherLink, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "status":
            await self._snapshot(link, message.get("kernels") or {})
        elif kind == "kernel":
            description = message["kernel"]
            kernel = self._registry.find(str(description.get("id")))
            if kernel is None:
                await self._disown(link, str(description.get("id")))
            elif kernel.link is link:
                await self.describe(kernel, description)
        elif kind == "gone":
            kernel = self._registry.find(str(message.get("id")))
            if kernel is not None and kernel.link is link:
                kernel.gone.set()
                if kernel.state is not KernelState.ENDING:
                    await self.lost(kernel, _FORGOTTEN)

    async def link_lost(self, link: LauncherLink) -> None:
        """Ask the backend for its verdict at once; a launcher that has ended and holds no kernel is forgotten."""
        mine = [kernel for kernel in self._registry.all_kernels() if kernel.link is link]
        handles = [kernel.record.handle for kernel in mine if kernel.record.handle is not None] or [link.handle]
        poll = await self._registry.hooks.poll_kernels(link.handle.backend, handles)
        await self.judge(handles, poll.statuses)
        ended = all(status.state is Liveness.EXITED for status in poll.statuses.values())
        if ended and not any(kernel.link is link for kernel in self._registry.all_kernels()):
            await self._registry.launchers.forget(link.launcher_id)

    async def judge(self, handles: Iterable[KernelHandle], statuses: Mapping[str, KernelStatus]) -> None:
        """Act on a backend's statuses of these handles: only EXITED says anything, and only of the launcher that was
        asked for; its kernel may have been launched anew meanwhile."""
        asked = {handle.kernel_id: handle.launcher_id for handle in handles}
        for kernel_id, status in statuses.items():
            kernel = self._registry.find(kernel_id)
            if kernel is None or status.state is not Liveness.EXITED:
                continue
            handle = kernel.record.handle
            if handle is None or handle.launcher_id != asked.get(kernel_id):
                continue
            kernel.verdict = status.detail
            kernel.gone.set()
            if kernel.state not in (KernelState.LAUNCHING, KernelState.ENDING):
                await self.lost(kernel, status)

    async def _snapshot(self, link: LauncherLink, descriptions: Mapping[str, Any]) -> None:
        for kernel_id, description in descriptions.items():
            kernel = self._registry.find(kernel_id)
            if kernel is None:
                await self._disown(link, kernel_id)
            elif kernel.link is link:
                await self.describe(kernel, description)
        for kernel in self._registry.all_kernels():
            if kernel.link is not link or kernel.id in descriptions or kernel.state is KernelState.LAUNCHING:
                continue
            if kernel.accepted_at < link.dialled_at:  # else the snapshot may be older than the kernel
                kernel.gone.set()
                if kernel.state in (KernelState.STARTING, KernelState.READY, KernelState.RESTARTING):
                    await self.lost(kernel, _FORGOTTEN)

    async def _disown(self, link: LauncherLink, kernel_id: str) -> None:
        """A launcher holds a kernel without a record: a start that overtook its own cancellation, say."""
        self._registry.log.warning(
            "launcher %s holds kernel %s, which nobody owns: removed", link.launcher_id, kernel_id
        )
        with contextlib.suppress(GatewayError):
            await link.client.shutdown(kernel_id, 0.0)

    async def describe(self, kernel: Kernel, description: Mapping[str, Any]) -> None:
        """Take a launcher's word about a kernel, and move its state accordingly."""
        with logs.about(kernel_id=kernel.id, user=kernel.record.owner):
            await self._describe(kernel, description)

    async def _describe(self, kernel: Kernel, description: Mapping[str, Any]) -> None:
        kernel.describe(description)
        description = kernel.description
        if int(description.get("incarnation") or 1) < kernel.incarnation:
            return
        state = description.get("state")
        if state == "ready" and kernel.state in (KernelState.STARTING, KernelState.RESTARTING):
            await self._registry.advance(
                kernel, Event.ANSWERED, process=process_of(description), reason=None, message=None, exit=None
            )
        elif state == "dead" and kernel.state is not KernelState.DEAD:
            await self._died(kernel, description)

    async def lost(self, kernel: Kernel, status: KernelStatus) -> None:
        """The backend says that a kernel's launcher has ended."""
        why = status.detail or "Its launcher has ended"
        message = f"The kernel was lost: {why.rstrip('.')}. Restart it to go on; its variables are gone."
        reason = ends.of_launcher(status.reason or "lost")
        exit_info: dict[str, Any] = {
            "reason": reason,
            "code": status.exit_code,
            "signal": None,
            "stderr": [],
            "message": message,
        }
        kernel.link = None
        if await self._registry.advance(kernel, Event.DIED, reason=reason, message=message, exit=exit_info):
            await self._registry.tell(kernel, "died")
            kernel.close_sockets(wire.CLOSE_LAUNCHER_LOST, message)
            await self._registry.kill(kernel, 0.0, "lost")

    async def _died(self, kernel: Kernel, description: Mapping[str, Any]) -> None:
        exit_info = dict(description.get("exit") or {})
        message = exit_info.get("message") or "The kernel has ended."
        exit_info["reason"] = reason = ends.of_launcher(str(exit_info.get("reason") or "exited"))
        if await self._registry.advance(
            kernel, Event.DIED, reason=reason, message=message, exit=exit_info, process=None
        ):
            await self._registry.tell(kernel, "died")
            kernel.close_sockets(wire.CLOSE_KERNEL_DIED, message)  # after the launcher's own words have passed
