"""One link per launcher: its calls, and the task that follows its ``/events``.

The link outlives a lost connection: it dials again with back-off until it is closed. What the events mean, and
whether a silent launcher is dead, is the registry's to decide (``LinkOwner``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Protocol

from eg_core import logs
from eg_core.errors import GatewayError
from eg_core.launchers.client import LauncherClient, LauncherError
from eg_core.types import KernelHandle

RETRY_FIRST = 0.1
RETRY_MOST = 10.0


class LinkOwner(Protocol):
    async def observed(self, link: LauncherLink, message: dict[str, Any]) -> None: ...

    async def link_lost(self, link: LauncherLink) -> None:
        """The connection ended or could not be made; return, and the link tries again unless it was closed."""


class LauncherLink:
    """``handle`` is any handle of this launcher: the backend reaches the launcher by it."""

    def __init__(
        self, handle: KernelHandle, client: LauncherClient, owner: LinkOwner, log: logging.Logger | Any
    ) -> None:
        self.handle = handle
        self.launcher_id = handle.launcher_id
        self.client = client
        self.dialled_at = 0.0  # monotonic, when the present connection was begun
        self.connected = asyncio.Event()  # a snapshot has been received on the present connection
        self.refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why, when it speaks no protocol of ours."""
        self._owner = owner
        self._log = log
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        name = f"events of launcher {self.launcher_id}"
        self._task = logs.apart(lambda: asyncio.create_task(self._follow(), name=name))

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        delay = RETRY_FIRST
        while self._task is not None:
            try:
                self.dialled_at = time.monotonic()
                async for message in self.client.events():
                    await self._owner.observed(self, message)
                    self.connected.set()
                    delay = RETRY_FIRST
            except GatewayError as error:
                self._log.info("launcher %s: %s", self.launcher_id, error)
                if isinstance(error, LauncherError) and error.status == 426 and not self.refused.done():
                    self.refused.set_result(error.message)
            self.connected.clear()
            await self._owner.link_lost(self)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)
