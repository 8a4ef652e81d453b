"""The core's part of a launch, in small, for tests of backends: hooks, credentials, and the launcher's API.

It does what the core does (keep each handle, remove what a failed launch left, ask the launcher before the
backend) without store and HTTP. A rig is one gateway; ``again`` is the same gateway after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eg_core import aio
from eg_core.errors import GatewayError
from eg_core.hooks import Hooks
from eg_core.launchers.credentials import CertificateAuthority, make_credentials
from eg_core.plugins import PluginManager
from eg_core.testing.client import ClientError, LauncherApi, wait_for
from eg_core.types import (
    GatewayInfo,
    KernelHandle,
    KernelStart,
    KernelStatus,
    LauncherFiles,
    LaunchRequest,
    ProcessInfo,
    Progress,
)

IPYKERNEL = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
MARK = "EG_TEST_MARK"


@dataclass(frozen=True)
class Subject:
    """A backend under test. ``settings`` is its entry in ``backends``: type and traits.

    ``broken`` are the settings of an instance whose launches fail, ``cut`` a context in which its resource
    manager cannot be reached (None: it has none). ``on_this_host``: its processes are in this ``/proc``.
    """

    name: str
    settings: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    lease: float = 30.0
    launch_timeout: float = 60.0
    broken: dict[str, Any] | None = None
    cut: Callable[[], AbstractContextManager[None]] | None = None
    on_this_host: bool = True


@dataclass
class Launched:
    """A kernel that a rig has launched; blocking calls, for ``asyncio.to_thread``."""

    handle: KernelHandle
    request: LaunchRequest
    api: LauncherApi
    progress: list[str]

    @property
    def kernel_id(self) -> str:
        return self.handle.kernel_id

    def start(self, timeout: float = 30.0) -> dict[str, Any]:
        """Have the kernel started and wait until it answers."""
        kernel = self.request.kernel
        body = {
            "argv": kernel.argv,
            "env": kernel.env,
            "cwd": kernel.cwd,
            "interrupt_mode": kernel.interrupt_mode,
            "name": self.request.kernelspec,
            "ready_timeout": timeout,
        }
        self.api.start(self.kernel_id, body)
        return self.api.ready(self.kernel_id, timeout)

    def process(self) -> ProcessInfo | None:
        """The kernel's process as its launcher knows it."""
        found = self.api.status()["kernels"].get(self.kernel_id, {}).get("process")
        return ProcessInfo(**found) if found else None


class Rig:
    """One gateway's worth of hooks over the backend under test."""

    def __init__(self, subject: Subject, data_dir: Path, *, gateway_id: str, environ: dict[str, str]) -> None:
        self.subject = subject
        self.mark = uuid.uuid4().hex
        self.tokens: dict[str, str] = {}
        self.gateway = GatewayInfo(gateway_id, "0", data_dir)
        self._environ = environ
        self._authority = CertificateAuthority.from_pem(CertificateAuthority.create())
        self._tls = self._authority.client_context()
        self.hooks = self._hooks(subject.settings)
        self._opened: list[Hooks] = []

    def _hooks(self, settings: dict[str, Any]) -> Hooks:
        log = logging.getLogger("eg_core.testing")
        backends = {self.subject.name: settings}
        return Hooks(PluginManager(backends=backends, environ=self._environ, log=log), log)

    async def open(self) -> Rig:
        await self._start(self.hooks)
        return self

    async def again(self) -> Rig:
        """The gateway has restarted: nothing is left but handles and tokens."""
        await self.hooks.shutdown()
        self.hooks = self._hooks(self.subject.settings)
        await self._start(self.hooks)
        return self

    async def close(self) -> None:
        for hooks in self._opened:
            await hooks.shutdown()

    async def broken(self) -> Hooks:
        """Hooks over the instance whose launches fail."""
        hooks = self._hooks(self.subject.broken or {})
        await self._start(hooks)
        return hooks

    async def _start(self, hooks: Hooks) -> None:
        await hooks.startup(self.gateway)
        self._opened.append(hooks)

    def request(
        self,
        *,
        kernel_id: str | None = None,
        env: dict[str, str] | None = None,
        argv: Iterable[str] = IPYKERNEL,
        timeout: float | None = None,
    ) -> LaunchRequest:
        launcher_id, token = uuid.uuid4().hex, secrets.token_urlsafe(32)
        self.tokens[launcher_id] = token
        credentials = make_credentials(launcher_id, token, *self._authority.issue(launcher_id))
        lease = self.subject.lease
        return LaunchRequest(
            kernel_id=kernel_id or str(uuid.uuid4()),
            kernelspec="python3",
            backend=self.subject.name,
            owner="ann",
            run_as=None,
            options=dict(self.subject.options),
            labels={},
            deadline=time.monotonic() + (self.subject.launch_timeout if timeout is None else timeout),
            kernel=KernelStart(list(argv), {MARK: self.mark, **(env or {})}),
            launcher=LauncherFiles(launcher_id, ("--lease", f"{lease:g}"), credentials, lease),
        )

    async def launch(self, request: LaunchRequest | None = None, *, hooks: Hooks | None = None) -> Launched:
        """Launch as the core does: what a failure, a deadline or a cancellation leaves is killed."""
        request = request or self.request()
        hooks = hooks or self.hooks
        handles: list[KernelHandle] = []
        progress: list[str] = []
        try:
            await aio.within(aio.remaining(request.deadline), _collect(hooks, request, handles, progress))
        except BaseException:
            if handles:
                await aio.run_to_end(hooks.kill_kernel(handles[-1], None, 0.0, "launch_failed"))
            raise
        if not handles:
            raise AssertionError("the launch ended and has yielded no handle")
        handle = stored(handles[-1])
        return Launched(handle, request, await self.api(handle), progress)

    async def start(self, **changes: Any) -> Launched:
        """Launch, and have a kernel started that answers."""
        launched = await self.launch(self.request(**changes))
        await asyncio.to_thread(launched.start)
        return launched

    async def api(self, handle: KernelHandle) -> LauncherApi:
        """The launcher's API through the backend's own way of reaching it."""
        loop = asyncio.get_running_loop()

        def connect() -> socket.socket:
            return asyncio.run_coroutine_threadsafe(self._connect(handle), loop).result(30)

        def secured() -> socket.socket:
            sock = connect()
            sock.setblocking(True)
            sock.settimeout(30)
            if handle_is_local:
                return sock
            return self._tls.wrap_socket(sock, server_hostname=handle.launcher_id)

        handle_is_local = not (await self.hooks.discover_connection(handle)).tls
        return LauncherApi(secured, self.tokens[handle.launcher_id])

    async def _connect(self, handle: KernelHandle) -> socket.socket:
        return await self.hooks.connect_launcher(handle, await self.hooks.discover_connection(handle))

    async def status(self, handle: KernelHandle) -> KernelStatus:
        return (await self.hooks.poll_kernels(handle.backend, [handle])).statuses[handle.kernel_id]

    async def end(self, launched: Launched, grace: float = 2.0) -> None:
        """As the core does: ask the launcher if it can be reached, then the backend."""
        process = None
        with contextlib.suppress(OSError, GatewayError, ClientError):
            process = await asyncio.to_thread(launched.process)
            await asyncio.to_thread(launched.api.shutdown, launched.kernel_id, grace)
            await self.until(
                lambda: launched.kernel_id not in launched.api.status()["kernels"], grace + 10, "the kernel's end"
            )
        await self.hooks.kill_kernel(launched.handle, process, grace, "shutdown")

    def processes(self) -> list[int]:
        """Living processes of this rig's kernels on this host, found by a mark in their environment."""
        return marked(f"{MARK}={self.mark}")

    @staticmethod
    async def until(condition: Callable[[], Any], timeout: float, what: str = "the condition") -> Any:
        return await asyncio.to_thread(wait_for, condition, timeout, what)


async def _collect(hooks: Hooks, request: LaunchRequest, handles: list[KernelHandle], progress: list[str]) -> None:
    async with contextlib.aclosing(_generator(hooks.launch_kernel(request))) as steps:
        async for step in steps:
            if isinstance(step, Progress):
                progress.append(step.message)
            else:
                handles.append(step)


def _generator(steps: AsyncIterator[Any]) -> Any:
    return steps


def stored(handle: KernelHandle) -> KernelHandle:
    """The handle as it comes back from the store: its state must survive JSON."""
    state = json.loads(json.dumps(handle.state))
    assert state == dict(handle.state), "handle.state must be JSON, and stay what it is when it is stored"
    return KernelHandle(handle.kernel_id, handle.launcher_id, handle.backend, state)


def marked(mark: str) -> list[int]:
    """Pids of living processes with this in their environment or command line."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(proc.name) != os.getpid() and _alive(proc):
                seen = (proc / "environ").read_bytes() + (proc / "cmdline").read_bytes()
                if mark.encode() in seen:
                    found.append(int(proc.name))
    return found


def _alive(proc: Path) -> bool:
    return (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in {"Z", "X"}
