"""The gateway's end in order, after SIGTERM: its kernels stay, and their clients are sent to whoever comes next.

No new launch is taken (the registry's ``draining``), what is being launched may still come, and each client's channels
are closed with 1012 once nothing has passed for ``QUIET`` seconds. Clients that come back meanwhile are served; they do
not put off the end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eg_core.kernels.kernel import Kernel
from eg_core.kernels.registry import KernelRegistry
from eg_core.kernels.states import PENDING
from eg_launcher.wire import CLOSE_RESTART

if TYPE_CHECKING:
    from eg_core.kernels.kernel import ClientSocket

QUIET = 5.0
LOOK_EVERY = 0.25
WORDS = "The gateway is restarting."


async def drain(registry: KernelRegistry, *, quiet: float = QUIET) -> None:
    """Return when nothing is being launched and who was connected has been closed; the caller has the deadline."""
    registry.draining = True
    loop = asyncio.get_running_loop()
    waiting = {client: kernel for kernel in registry.all_kernels() for client in kernel.sockets}
    seen: dict[ClientSocket, tuple[int | None, float]] = {}
    while True:
        now = loop.time()
        for client, kernel in tuple(waiting.items()):
            if client not in kernel.sockets:
                del waiting[client]
            elif not _is_pending(kernel):
                traffic = client.traffic
                before, since = seen.setdefault(client, (traffic, now))
                if traffic != before:
                    seen[client] = traffic, now
                elif now - since >= quiet:
                    client.close(CLOSE_RESTART, WORDS)
        if not waiting and not any(_is_pending(kernel) for kernel in registry.kernels()):
            return
        await asyncio.sleep(min(LOOK_EVERY, quiet))


def _is_pending(kernel: Kernel) -> bool:
    return kernel.state in PENDING
