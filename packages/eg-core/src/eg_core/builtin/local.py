"""Backend ``local``: kernels on the gateway's own host, held by one detached launcher that outlives the gateway.

A launcher belongs to a key (gateway, backend instance, place, user) and a version of the protocol; a launch joins a
living one or starts one. ``folder`` remembers them, ``processes`` knows who lives, ``starter`` starts them.
Nothing here talks to a launcher beyond asking whether it answers.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from traitlets import Bool, Float, List, Unicode

from eg_core import aio
from eg_core.builtin import doctor, processes, starter
from eg_core.builtin.folder import LauncherFile, PrivateFolder, choose_runtime_dir, folder_gone
from eg_core.config import Plugin
from eg_core.errors import GatewayError, InvalidRequest
from eg_core.hookspecs import hookimpl
from eg_core.types import (
    Check,
    CheckResult,
    GatewayInfo,
    KernelHandle,
    KernelStatus,
    LaunchRequest,
    Liveness,
    Poll,
    ProcessInfo,
    Progress,
)
from eg_launcher.wire import PROTOCOL

KEEP_LOGS = 86400.0


class LocalBackend(Plugin):
    """Kernels on this host."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"restart_in_place", "shared_launcher", "survives_gateway"})

    runtime_dir = Unicode(
        help="A private folder (0700, your own, a short path) for sockets. Default: $XDG_RUNTIME_DIR/eg or /tmp/eg-UID."
    ).tag(config=True)
    launcher_command = List(
        Unicode(), help="The command that runs the launcher. Default: this Python with -m eg_launcher."
    ).tag(config=True)
    start_timeout = Float(60.0, min=1.0, help="Seconds in which a launcher has to say that it is ready.").tag(
        config=True
    )
    stray_age = Float(30.0, min=0.0, help="Seconds after which a launcher that holds no known kernel is a stray.").tag(
        config=True
    )

    keep_kernels = Bool(
        help="Kernels live on without a gateway for as long as it takes, whatever the lease (for this backend alone)."
    ).tag(config=True)

    _folder: PrivateFolder
    _place: processes.Place
    _nursery: starter.Nursery

    # -- declare ------------------------------------------------------------------------------------------------

    @hookimpl
    def eg_doctor_checks(self) -> Iterable[Check]:
        command = self._command()
        looks: tuple[tuple[str, str, Callable[[], CheckResult]], ...] = (
            ("platform", "Kernels on this host are supported", doctor.platform),
            (
                "runtime-dir",
                "There is a private folder for sockets",
                lambda: doctor.runtime_dir(self.runtime_dir, self.environ),
            ),
            ("launcher", "The launcher runs and speaks our protocol", lambda: doctor.launcher(command, self.environ)),
        )
        for name, summary, look in looks:
            yield Check(f"{self.name}.{name}", summary, partial(aio.run_blocking, self.threads, look), timeout=20.0)

    # -- site ---------------------------------------------------------------------------------------------------

    @hookimpl
    async def eg_startup(self, gateway: GatewayInfo) -> None:
        if sys.platform == "win32":
            raise GatewayError("Local kernels need Linux or macOS; on Windows use WSL.", reason="platform")
        self._place = processes.Place.here()
        self._nursery = starter.Nursery()
        try:
            self._folder = await aio.run_blocking(self.threads, self._open_folder, gateway.gateway_id)
        except ValueError as error:
            raise GatewayError(f"The local backend has {error}", reason="runtime_dir") from error

    @hookimpl
    async def eg_shutdown(self) -> None:
        """Let the launchers go: they and their kernels stay."""
        self._nursery.release()

    def _open_folder(self, gateway_id: str) -> PrivateFolder:
        runtime_dir = choose_runtime_dir(self.runtime_dir, self.environ)
        key = (gateway_id, self.name, self._place.boot, self._place.namespace, str(os.getuid()))
        return PrivateFolder.open(runtime_dir, key)

    # -- launch ---------------------------------------------------------------------------------------------------

    @hookimpl
    async def eg_launch_kernel(self, request: LaunchRequest) -> AsyncIterator[KernelHandle | Progress]:
        if request.run_as not in {None, "", processes.user()}:
            raise InvalidRequest(
                f"The local backend runs kernels as {processes.user()} only, not as {request.run_as!r}.",
                reason="run_as",
            )
        try:
            steps = self._join_or_start(request)
            async with self._folder.locked(request.deadline), contextlib.aclosing(steps):
                async for step in steps:
                    yield step
        except OSError as error:
            raise folder_gone(error) from error

    async def _join_or_start(self, request: LaunchRequest) -> AsyncGenerator[KernelHandle | Progress, None]:
        """With the folder locked: nobody else joins or starts meanwhile."""
        running = await self._joinable()
        if running is not None:
            await aio.run_blocking(self.threads, self._folder.used, running.launcher_id)
            yield self._handle(request.kernel_id, running)
            return
        launcher_id = request.launcher.launcher_id
        record = LauncherFile(launcher_id, self._folder.socket(launcher_id), PROTOCOL)
        with self._nursery.announced(launcher_id):
            yield self._handle(request.kernel_id, record)
            yield Progress("starting a launcher on this host")
            yield self._handle(request.kernel_id, await self._start(request, record))

    async def _start(self, request: LaunchRequest, record: LauncherFile) -> LauncherFile:
        return await starter.start_launcher(
            _kept(request) if self.keep_kernels else request,
            record,
            folder=self._folder,
            command=self._command(),
            environ=self.environ,
            timeout=min(self.start_timeout, aio.remaining(request.deadline)),
            threads=self.threads,
            nursery=self._nursery,
        )

    def _command(self) -> list[str]:
        return self.launcher_command or [sys.executable, "-m", "eg_launcher"]

    async def _joinable(self) -> LauncherFile | None:
        """A launcher of our protocol that lives and answers; what is dead is swept away on the way."""
        self._nursery.reap()
        await aio.run_blocking(self.threads, self._folder.sweep, KEEP_LOGS)
        for record in await aio.run_blocking(self.threads, self._folder.records):
            if not record.alive:
                await aio.run_blocking(self.threads, self._folder.remove, record.launcher_id, logs=False)
            elif record.protocol == PROTOCOL and await starter.answers(record.socket):
                return record
        return None

    def _handle(self, kernel_id: str, record: LauncherFile) -> KernelHandle:
        state: dict[str, Any] = {
            "endpoint": {"path": record.socket},
            "place": self._place.as_dict(),
            "pid": record.pid,
            "started": record.started,
        }
        return KernelHandle(kernel_id, record.launcher_id, self.name, state)

    # -- afterwards -----------------------------------------------------------------------------------------------

    @hookimpl
    async def eg_poll_kernels(self, handles: Sequence[KernelHandle]) -> Poll:
        self._nursery.reap()
        return await aio.run_blocking(self.threads, self._poll, tuple(handles))

    def _poll(self, handles: Sequence[KernelHandle]) -> Poll:
        records = {record.launcher_id: record for record in self._folder.records()}
        named = {handle.launcher_id for handle in handles}
        statuses = {handle.kernel_id: self._status(handle, records.get(handle.launcher_id)) for handle in handles}
        strays = [
            self._handle("", record)
            for record in records.values()
            if record.launcher_id not in named
            and record.alive
            and self._folder.age(record.launcher_id) >= self.stray_age
        ]
        return Poll(statuses, strays)

    def _status(self, handle: KernelHandle, record: LauncherFile | None) -> KernelStatus:
        place = processes.Place.of(handle.state.get("place"))
        if place is None or not place.same_boot(self._place):
            return _status_elsewhere(place, self._place)
        if handle.launcher_id in self._nursery.starting:
            return KernelStatus(Liveness.STARTING)
        pid, started = _process(handle, record)
        if processes.alive(pid, started):
            return KernelStatus(Liveness.RUNNING)
        if pid is None and self._folder.busy():
            return KernelStatus(Liveness.UNKNOWN, "busy", None, "Another process is starting a launcher here.")
        last = self._folder.tail(handle.launcher_id)
        said = f" Its last words: {last}" if last else ""
        return KernelStatus(Liveness.EXITED, "lost", None, f"The launcher on this host has ended.{said}")

    @hookimpl
    async def eg_kill_kernel(
        self, handle: KernelHandle, process: ProcessInfo | None, grace: float, reason: str
    ) -> None:
        self._nursery.reap()
        place = processes.Place.of(handle.state.get("place"))
        if place is None or not place.same_boot(self._place):
            return  # what ran elsewhere or before the boot is not of this host's processes
        records = await aio.run_blocking(self.threads, self._folder.records)
        record = next((record for record in records if record.launcher_id == handle.launcher_id), None)
        pid, started = _process(handle, record)
        if not handle.kernel_id:
            await self._end_stray(handle.launcher_id, pid, started, grace, reason)
        elif not processes.alive(pid, started) and process is not None and process.pid > 1:
            self.log.info("Kernel %s has lost its launcher; what is left is ended (%s)", handle.kernel_id, reason)
            await processes.end(process.pid, process.started, grace, group=process.pgid)

    async def _end_stray(
        self, launcher_id: str, pid: int | None, started: int | None, grace: float, reason: str
    ) -> None:
        async with self._folder.locked(time.monotonic() + self.start_timeout):
            if pid is not None and started is not None and processes.alive(pid, started):
                if self._folder.age(launcher_id) < self.stray_age:
                    return  # a launch has joined it meanwhile
                self.log.info("Launcher %s (pid %d) is ended: %s", launcher_id, pid, reason)
                await processes.end(pid, started, max(grace, 5.0))
            self._nursery.reap()
            await aio.run_blocking(self.threads, self._folder.remove, launcher_id)


def _kept(request: LaunchRequest) -> LaunchRequest:
    """Its launcher stays without a gateway."""
    return replace(request, launcher=replace(request.launcher, args=("--lease", "0"), lease=0.0))


def _process(handle: KernelHandle, record: LauncherFile | None) -> tuple[int | None, int | None]:
    """A launcher's pid and start time: its record knows, or the handle does when the record is gone."""
    if record is not None and record.pid is not None:
        return record.pid, record.started
    pid, started = handle.state.get("pid"), handle.state.get("started")
    return (pid, started) if isinstance(pid, int) and isinstance(started, int) else (None, None)


def _status_elsewhere(place: processes.Place | None, here: processes.Place) -> KernelStatus:
    if place is not None and place.host != here.host:
        return KernelStatus(Liveness.UNKNOWN, "elsewhere", None, f"It runs on host {place.host}, this is {here.host}.")
    return KernelStatus(Liveness.EXITED, "lost", None, "The host, or its container, was restarted.")
