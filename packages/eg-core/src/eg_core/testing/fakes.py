"""Backends named after how they fail. They are the local backend but for that: what they start are real launchers.

Use them as types in ``backends``: ``{"slow": {"type": "eg_core.testing.fakes:SlowToStart", "delay": 3}}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from traitlets import Float, Int, Unicode

from eg_core.builtin.local import LocalBackend
from eg_core.errors import BackendUnavailable, LaunchFailed
from eg_core.hookspecs import hookimpl
from eg_core.types import Endpoint, KernelHandle, KernelStatus, LaunchRequest, Liveness, Poll, ProcessInfo, Progress

Steps = AsyncIterator[KernelHandle | Progress]


class _Fake(LocalBackend):
    """The local backend, to be broken."""

    async def _really(self, request: LaunchRequest) -> Steps:
        steps: Any = LocalBackend.eg_launch_kernel(self, request)
        async with contextlib.aclosing(steps):
            async for step in steps:
                yield step


class SlowToStart(_Fake):
    """Waits ``delay`` seconds and says so, then works."""

    delay = Float(2.0, min=0.0).tag(config=True)

    @hookimpl
    async def eg_launch_kernel(self, request: LaunchRequest) -> Steps:
        yield Progress(f"waiting for {self.delay:g} s, as asked")
        await asyncio.sleep(self.delay)
        async for step in self._really(request):
            yield step


class FailsAfterHandle(_Fake):
    """The remote has started something, and then says no."""

    message = Unicode("The queue was closed.").tag(config=True)

    @hookimpl
    async def eg_launch_kernel(self, request: LaunchRequest) -> Steps:
        async for step in self._really(request):
            yield step
        raise LaunchFailed(self.message, reason="queue_closed")


class NeverReady(_Fake):
    """A launcher runs, and the backend goes on waiting for ever."""

    @hookimpl
    async def eg_launch_kernel(self, request: LaunchRequest) -> Steps:
        async for step in self._really(request):
            yield step
        yield Progress("3rd in queue default")
        await asyncio.Event().wait()


class DiesBeforeReady(_Fake):
    """The launcher was there, and is killed before the core has reached it."""

    @hookimpl
    async def eg_launch_kernel(self, request: LaunchRequest) -> Steps:
        pid: int | None = None
        async for step in self._really(request):
            if isinstance(step, KernelHandle):
                pid = step.state["pid"]
            yield step
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


class RefusesToDie(_Fake):
    """The first ``refusals`` attempts to kill find the remote away."""

    refusals = Int(2, min=0).tag(config=True)
    _refused = 0

    @hookimpl
    async def eg_kill_kernel(
        self, handle: KernelHandle, process: ProcessInfo | None, grace: float, reason: str
    ) -> None:
        if self._refused < self.refusals:
            self._refused += 1
            raise BackendUnavailable("The resource manager is away.", reason="away")
        await LocalBackend.eg_kill_kernel(self, handle, process, grace, reason)


class LosesContact(_Fake):
    """While the file ``away`` exists, launchers cannot be reached and nobody knows whether they live."""

    away = Unicode(help="A path; create the file to cut the contact.").tag(config=True)

    @hookimpl
    async def eg_discover_connection(self, handle: KernelHandle) -> Endpoint:
        if Path(self.away).exists():  # noqa: ASYNC240 - a stat of a local file, in a fake
            raise BackendUnavailable("The network is down.", reason="away")
        return Endpoint(path=handle.state["endpoint"]["path"])

    @hookimpl
    async def eg_poll_kernels(self, handles: Sequence[KernelHandle]) -> Poll:
        if Path(self.away).exists():  # noqa: ASYNC240 - a stat of a local file, in a fake
            return _nobody_knows(handles)
        return await LocalBackend.eg_poll_kernels(self, handles)


class UnknownPoll(_Fake):
    """Works, but never knows whether anything lives."""

    @hookimpl
    async def eg_poll_kernels(self, handles: Sequence[KernelHandle]) -> Poll:
        return _nobody_knows(handles)


def _nobody_knows(handles: Sequence[KernelHandle]) -> Poll:
    unknown = KernelStatus(Liveness.UNKNOWN, "away", None, "The resource manager did not answer.")
    return Poll({handle.kernel_id: unknown for handle in handles})
