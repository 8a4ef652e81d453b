"""The gateway as a program, `python stepping_gateway.py serve …`, that says of each step it takes that it takes it, and
stops where it is told to: before and after each commit to its store and each of its calls to backends and launchers.

Runs in the gateway's process and is the only module here that knows the gateway's inside. The other side is
``steps.py``; both talk by files in the folder ``$EG_TEST_STEPS``: ``plan`` says what counts, ``trace`` has a line for
each point that was reached, ``at`` has a file for each at which somebody waits, until that file goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from eg_core.builtin import folder, starter
from eg_core.cli.main import main
from eg_core.hooks import Hooks
from eg_core.kernels import reconciler
from eg_core.kernels.launchers import Launchers
from eg_core.kernels.registry import KernelRegistry
from eg_core.launchers.client import LauncherClient
from eg_core.store.store import Store

PAUSE = 0.005
_event: ContextVar[str] = ContextVar("event")


class Steps:
    """The plan names one operation and its kernel; with a new one counting begins anew."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._operation: str | None = None
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, step: str, kernel_id: str | None = None) -> str | None:
        """The step's name with its number; None where nobody is interested in it."""
        with self._lock:
            plan = self._plan()
            if plan is None or kernel_id not in (None, plan["kernel"]):
                return None
            if plan["operation"] != self._operation:
                self._operation = plan["operation"]
                self._taken.clear()
            self._taken[step] += 1
            return f"{step} {self._taken[step]}"

    async def point(self, name: str | None, edge: str) -> None:
        for _ in self._waiting(name, edge):
            await asyncio.sleep(PAUSE)

    def point_in_thread(self, name: str | None, edge: str) -> None:
        for _ in self._waiting(name, edge):
            time.sleep(PAUSE)

    @contextlib.asynccontextmanager
    async def around(self, step: str, kernel_id: str | None = None) -> AsyncIterator[None]:
        """A step that fails is over, too; one that is cancelled is not."""
        name = self.begin(step, kernel_id)
        await self.point(name, "before")
        try:
            yield
        except Exception:
            await self.point(name, "after")
            raise
        await self.point(name, "after")

    def _plan(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self._where / "plan").read_text()))
        except FileNotFoundError:
            return None

    def _waiting(self, name: str | None, edge: str) -> Iterator[None]:
        plan = self._plan()
        if name is None or plan is None:
            return
        point = f"{name} {edge}"
        with (self._where / "trace").open("a") as trace:
            trace.write(f"{point}\n")
        if point not in plan["stops"]:
            return
        here = self._where / "at" / point
        here.touch()
        while here.exists():
            yield


def install(steps: Steps) -> None:
    """Around what the gateway's own layers call; nothing else changes."""
    _around_commits(steps)
    _around_backend(steps)
    _around_launcher(steps)


def _around_commits(steps: Steps) -> None:
    advance, update = KernelRegistry.advance, Store.update_kernel

    async def named_advance(self: Any, kernel: Any, event: Any, **fields: Any) -> bool:
        token = _event.set(event.name)
        try:
            return await advance(self, kernel, event, **fields)
        finally:
            _event.reset(token)

    async def update_kernel(self: Any, kernel_id: str, *, expect: str | None = None, **fields: Any) -> Any:
        step = f"commit {expect} {_event.get()}" if "state" in fields else "commit handle"
        async with steps.around(step, kernel_id):
            return await update(self, kernel_id, expect=expect, **fields)

    KernelRegistry.advance = named_advance  # type: ignore[method-assign]
    Store.update_kernel = update_kernel  # type: ignore[method-assign]
    _wrap(steps, Store, "add_kernel", "commit kernel", lambda record, **_: record.kernel_id)
    _wrap(steps, Store, "remove_kernel", "commit kernel gone", lambda kernel_id: kernel_id)
    _wrap(steps, Store, "add_launcher", "commit launcher")
    _wrap(steps, Store, "remove_launcher", "commit launcher gone")


def _around_backend(steps: Steps) -> None:
    launch = Hooks.launch_kernel

    async def launch_kernel(self: Any, request: Any) -> AsyncIterator[Any]:
        async with (
            steps.around("backend launch", request.kernel_id),
            contextlib.aclosing(launch(self, request)) as all_,
        ):
            async for one in all_:
                yield one

    Hooks.launch_kernel = launch_kernel  # type: ignore[assignment, method-assign]
    _wrap(steps, Hooks, "kill_kernel", "backend kill", lambda handle, *_: handle.kernel_id)
    _wrap_module(steps, starter, "_ready", "local credentials")
    starter._spawn = _in_thread(steps, starter._spawn, "local spawn")
    folder.PrivateFolder.write = _in_thread(steps, folder.PrivateFolder.write, "local record")  # type: ignore[method-assign]


def _around_launcher(steps: Steps) -> None:
    events, link = LauncherClient.events, Launchers.link

    async def named_link(self: Any, handle: Any, owner: Any) -> Any:
        made = await link(self, handle, owner)
        made.client.linked_for = made.handle.kernel_id
        return made

    async def all_events(self: Any) -> AsyncIterator[Any]:
        name = steps.begin("launcher events", self.linked_for)
        await steps.point(name, "before")
        async with contextlib.aclosing(events(self)) as messages:
            async for message in messages:
                await steps.point(name, "after")  # of the first, which is the snapshot
                name = None
                yield message

    Launchers.link = named_link  # type: ignore[method-assign]
    LauncherClient.events = all_events  # type: ignore[method-assign]
    for call in ("start", "restart", "shutdown"):
        _wrap(steps, LauncherClient, call, f"launcher {call}", lambda kernel_id, *_: kernel_id)


def _wrap(
    steps: Steps, owner: Any, name: str, step: str, kernel_of: Callable[..., str | None] = lambda *_: None
) -> None:
    original = getattr(owner, name)

    async def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        async with steps.around(step, kernel_of(*args, **kwargs)):
            return await original(self, *args, **kwargs)

    setattr(owner, name, wrapped)


def _wrap_module(steps: Steps, module: Any, name: str, step: str) -> None:
    original = getattr(module, name)

    async def wrapped(*args: Any) -> Any:
        async with steps.around(step):
            return await original(*args)

    setattr(module, name, wrapped)


def _in_thread(steps: Steps, original: Callable[..., Any], step: str) -> Callable[..., Any]:
    def wrapped(*args: Any) -> Any:
        name = steps.begin(step)
        steps.point_in_thread(name, "before")
        try:
            return original(*args)
        finally:
            steps.point_in_thread(name, "after")

    return wrapped


if __name__ == "__main__":
    install(Steps(Path(os.environ["EG_TEST_STEPS"])))
    reconciler.KEEP_UNUSED = float(os.environ.get("EG_TEST_KEEP_UNUSED") or reconciler.KEEP_UNUSED)
    sys.exit(main())
