"""What becomes of each kernel in the store when a gateway starts: served again, completed, or removed.

A kernel whose launcher has it goes on as it was, also while it is starting: the launcher says when it has answered, or
that it did not in time. A launch that had not come so far is removed, and says so; an end that was recorded is
finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eg_core.errors import GatewayError
from eg_core.kernels import ends
from eg_core.kernels.culling import finish_culling, was_culled
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.states import Event, KernelState
from eg_core.types import KernelStatus, Liveness

if TYPE_CHECKING:
    from eg_core.kernels.registry import KernelRegistry


async def resume(registry: KernelRegistry, kernel: Kernel) -> None:
    await _link(registry, kernel)
    if was_culled(kernel):
        await finish_culling(registry, kernel)
    elif kernel.state is KernelState.ENDING:
        await registry.ask_to_end(kernel, registry.settings.grace)
        await registry.remove(kernel, registry.settings.grace, "shutdown")
    elif kernel.state is KernelState.STARTING and kernel.link is not None:
        await _complete(registry, kernel)
    elif kernel.state in (KernelState.LAUNCHING, KernelState.STARTING):
        reason = ends.EndReason.GATEWAY_ENDED.value
        await registry.remove_remote(kernel, grace=0.0, reason=reason)
        await registry.advance(
            kernel,
            Event.FAILED,
            reason=reason,
            message="The gateway ended while this kernel was being launched; start it again.",
            process=None,
        )
        await registry.tell(kernel, "launch_failed")


async def _link(registry: KernelRegistry, kernel: Kernel) -> None:
    handle = kernel.record.handle
    if handle is not None and (kernel.state is not KernelState.DEAD or was_culled(kernel)):
        try:
            kernel.link = await registry.launchers.link(handle, registry.observer)
        except GatewayError as error:
            await registry.observer.lost(kernel, KernelStatus(Liveness.EXITED, detail=error.message))


async def _complete(registry: KernelRegistry, kernel: Kernel) -> None:
    kernel.phase = "answer"
    await kernel.settled()
    if kernel.state is KernelState.READY:
        await registry.tell(kernel, "launched")
