"""A backend in a page: a launcher per kernel, as a process of this host that listens on loopback with TLS.

A file per kernel is the "resource manager": who has a file has, or had, a launcher. It sees of the core the
seam and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from traitlets import List, Unicode

from eg_core import aio
from eg_core.config import Plugin
from eg_core.errors import LaunchFailed
from eg_core.hookspecs import hookimpl
from eg_core.types import (
    GatewayInfo,
    KernelHandle,
    KernelStatus,
    LaunchRequest,
    Liveness,
    Poll,
    ProcessInfo,
    Progress,
)


class ExampleTcpBackend(Plugin):
    """Each kernel's launcher is a process of its own, reached over TCP and TLS."""

    python = List(Unicode(), [sys.executable], help="The Python that runs the launcher.").tag(config=True)

    @hookimpl
    async def eg_startup(self, gateway: GatewayInfo) -> None:
        self.children: list[subprocess.Popen[str]] = []
        self.folder = gateway.data_dir / self.name
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @hookimpl
    async def eg_shutdown(self) -> None:
        for child in self.children:
            child.returncode = child.poll() or 0  # they go on without us

    @hookimpl
    async def eg_launch_kernel(self, request: LaunchRequest) -> AsyncIterator[KernelHandle | Progress]:
        found = self._read(request.kernel_id)
        if found is not None and _alive(found):
            yield self._handle(request.kernel_id, found)
            return
        yield KernelHandle(request.kernel_id, request.launcher.launcher_id, self.name)
        yield Progress("starting a launcher")
        started = aio.run_blocking(self.threads, self._start, request)
        yield self._handle(request.kernel_id, await aio.run_to_end(started))

    @hookimpl
    async def eg_poll_kernels(self, handles: Sequence[KernelHandle]) -> Poll:
        for child in self.children:
            child.poll()
        asked = {handle.kernel_id for handle in handles}
        found = {path.stem: self._read(path.stem) for path in self.folder.glob("*.json")}
        strays = [self._handle(name, job) for name, job in found.items() if job and name not in asked and _alive(job)]
        return Poll({name: self._status(found.get(name)) for name in asked}, strays)

    @hookimpl
    async def eg_kill_kernel(self, handle: KernelHandle, process: ProcessInfo | None, grace: float) -> None:
        job = self._read(handle.kernel_id)
        if job is not None:
            await aio.run_blocking(self.threads, _end, job, grace)
            self._path(handle.kernel_id).unlink(missing_ok=True)

    def _start(self, request: LaunchRequest) -> dict[str, Any]:
        """Blocking. The launcher says one line when it listens; until then it is ours to end."""
        argv = [*self.python, "-m", "eg_launcher", "spawn", "--credentials", "-", "--tcp", "127.0.0.1:0", "--single"]
        log = self._path(request.kernel_id).with_suffix(".log")
        environment = {name: self.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in self.environ}
        try:
            with log.open("w") as errors:
                child = subprocess.Popen(
                    [*argv, *request.launcher.args],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    cwd="/",
                    start_new_session=True,
                    text=True,
                )
        except OSError as error:
            raise LaunchFailed(f"{self.python[0]} cannot be started: {error.strerror}") from error
        try:
            ready = json.loads(_first_line(child, request.launcher.credentials, aio.remaining(request.deadline)))
        except ValueError as error:
            child.kill()
            child.wait()
            raise LaunchFailed(f"The launcher did not start: {log.read_text().strip() or 'too late'}") from error
        self.children.append(child)
        job = {name: ready[name] for name in ("launcher_id", "pid", "started", "endpoint")}
        self._path(request.kernel_id).write_text(json.dumps(job))
        return job

    def _status(self, job: dict[str, Any] | None) -> KernelStatus:
        return KernelStatus(Liveness.RUNNING if job is not None and _alive(job) else Liveness.EXITED)

    def _handle(self, kernel_id: str, job: dict[str, Any]) -> KernelHandle:
        return KernelHandle(kernel_id, job["launcher_id"], self.name, {"endpoint": job["endpoint"]})

    def _path(self, kernel_id: str) -> Path:
        return self.folder / f"{kernel_id}.json"

    def _read(self, kernel_id: str) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(self._path(kernel_id).read_text()))
        return None


def _first_line(child: subprocess.Popen[str], credentials: str, timeout: float) -> str:
    """Blocking. Hand over the credentials; what the launcher says in time, or nothing."""
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdout, contextlib.suppress(BrokenPipeError), child.stdin:
        child.stdin.write(credentials + "\n")
        child.stdin.close()
        readable, _, _ = select.select([child.stdout], [], [], timeout)
        return child.stdout.readline() if readable else ""
    return ""


def _alive(job: dict[str, Any]) -> bool:
    """That very process, and not its zombie."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{job['pid']}/stat").read_text().rpartition(")")[2].split()
        return fields[0] != "Z" and int(fields[19]) == job["started"]
    return False


def _end(job: dict[str, Any], grace: float) -> None:
    """Blocking. SIGTERM: the launcher ends its kernel and itself; SIGKILL when the grace is over."""
    until = time.monotonic() + grace
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if _alive(job):
            os.kill(job["pid"], signum)
        while _alive(job) and (signum is signal.SIGKILL or time.monotonic() < until):
            time.sleep(0.02)
