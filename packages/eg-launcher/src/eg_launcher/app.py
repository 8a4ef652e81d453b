"""The launcher itself: which kernels it holds, whether a gateway still wants it, and an end that leaves nothing behind.

``Launcher`` is what ``routes`` calls. ``run`` is the process: it opens the spawner and the listener, says that it is
ready, waits for a reason to end, and ends everything in order. The one timer of the whole program ticks here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import zmq

from eg_launcher import __version__, linux, listener, wire
from eg_launcher.command import StartRequest
from eg_launcher.events import EventFeed
from eg_launcher.folder import PrivateFolder
from eg_launcher.http1 import HttpError
from eg_launcher.kernels import Kernel
from eg_launcher.lease import Lease
from eg_launcher.means import Means
from eg_launcher.relay import make_context
from eg_launcher.routes import Router
from eg_launcher.server import Server
from eg_launcher.spawner import Spawner
from eg_launcher.spill import Room, spill_folder

TICK = 1.0
BEAT = 5.0
IDLE = 10.0
END_GRACE = 5.0
END_MARGIN = 5.0
MAX_KERNELS = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    launcher_id: str
    token: str = field(repr=False)
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)
    unix: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    lease: float = 0.0
    single: bool = False
    spill: str | None = None
    """Where journals spill to; None: the first temporary folder that lies on a disk."""
    kernel_id: str | None = None
    start: StartRequest | None = None
    """Start this kernel at once (stand-alone)."""
    attach: dict[str, Any] | None = field(default=None, repr=False)
    """Serve the kernel of this connection info; nothing can be started then."""


class Launcher:
    def __init__(
        self,
        *,
        launcher_id: str,
        lease: Lease,
        single: bool,
        means: Means | None,
        context: zmq.Context[zmq.Socket[bytes]],
        room: Room,
    ) -> None:
        """``means`` None: it starts no kernels."""
        self.launcher_id = launcher_id
        self.lease = lease
        self.single = single
        self.kernels: dict[str, Kernel] = {}
        self.feed = EventFeed(self.kernels, self.status, lease)
        self._means = means
        self._context = context
        self._room = room
        self._attached: set[str] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._ending = False
        self._held = False
        self._born = self._busy_at = time.monotonic()

    # -- the calls ------------------------------------------------------------------------------------------

    def status(self, *, told: bool = False) -> dict[str, Any]:
        """The protocol's *status*. ``told``: a gateway reads it, so it knows which kernels are gone."""
        if told:
            self.feed.untold = False
        return {
            "protocol": wire.PROTOCOL,
            "version": __version__,
            "launcher_id": self.launcher_id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "uptime": round(time.monotonic() - self._born, 3),
            "lease": self.lease.seconds,
            "kernels": {kernel_id: kernel.describe() for kernel_id, kernel in self.kernels.items()},
        }

    def kernel(self, kernel_id: str) -> Kernel:
        try:
            return self.kernels[kernel_id]
        except KeyError:
            raise HttpError(404, "no_such_kernel", f"This launcher holds no kernel {kernel_id[:64]!r}.") from None

    async def start(self, kernel_id: str, request: StartRequest) -> tuple[Kernel, bool]:
        """Start a kernel, and say whether this call did it: a second one with its id joins the first."""
        self._refuse_when_ending(kernel_id)
        created = kernel_id not in self.kernels
        if created:
            self._create(kernel_id, request)
        task = self._starting.get(kernel_id)
        if task is not None:
            await asyncio.shield(task)
        return self.kernel(kernel_id), created

    async def restart(self, kernel_id: str) -> Kernel:
        kernel = self.kernel(kernel_id)
        self._refuse_when_ending(kernel_id)
        await kernel.restart()
        return kernel

    def shutdown(self, kernel_id: str, grace: float, why: str | None = None) -> asyncio.Task[None]:
        """Begin a kernel's end; it is forgotten when nothing of it is left."""
        kernel = self.kernel(kernel_id)
        task = self._leaving.get(kernel_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._end(kernel, grace, why))
            self._leaving[kernel_id] = task
            task.add_done_callback(lambda _: self._leaving.pop(kernel_id, None))
        return task

    def attach(self, kernel_id: str, connection_info: dict[str, Any], name: str) -> Kernel:
        kernel = Kernel.attached(
            kernel_id, connection_info, name=name, context=self._context, room=self._room, changed=self.feed.changed
        )
        self.kernels[kernel_id] = kernel
        self._attached.add(kernel_id)
        self._held = True
        return kernel

    def beat(self) -> None:
        if self._means is not None:
            self._means.out_of_memory.look()
        for kernel in list(self.kernels.values()):
            kernel.beat()

    # -- its life -------------------------------------------------------------------------------------------

    def reason_to_end(self, connections: int, called_at: float = 0.0) -> str | None:
        """Asked every second: words when nobody needs this launcher any more.

        ``called_at``: when somebody last connected. Whoever looks whether this launcher answers is about to use it.
        """
        now = time.monotonic()
        self._busy_at = max(self._busy_at, called_at)
        if self.lease.over():
            return f"no gateway has called for {self.lease.seconds:.0f} s: the lease is over"
        if self.kernels:
            self._busy_at = now
        elif self.single:
            if self._held and not self.feed.untold:
                return "its kernel has ended"
        elif connections:
            self._busy_at = now
        elif now - self._busy_at >= (min(self.lease.seconds, IDLE) if self.lease.seconds else IDLE):
            return "it holds no kernel, and nobody is connected"
        return None

    async def end(self, grace: float, *, spare_attached: bool = False) -> None:
        """End all kernels, at once and together; those that somebody else has started may be spared."""
        self._ending = True
        spared = self._attached if spare_attached else set()
        tasks = [self.shutdown(kernel_id, grace) for kernel_id in list(self.kernels) if kernel_id not in spared]
        if tasks:
            await asyncio.wait(tasks, timeout=grace + END_MARGIN)

    def close(self) -> None:
        """Let go of what kernels hold here; nothing is sent to them any more."""
        for kernel in self.kernels.values():
            kernel.close()

    # -- inside ---------------------------------------------------------------------------------------------

    def _refuse_when_ending(self, kernel_id: str) -> None:
        if self._ending:
            raise HttpError(409, "ending", "This launcher is about to end.")
        if kernel_id in self._leaving:
            raise HttpError(409, "ending", "This kernel is being shut down.")

    def _create(self, kernel_id: str, request: StartRequest) -> None:
        if self._means is None:
            raise HttpError(409, "attached", "This launcher serves a running kernel; it starts none.")
        if len(self.kernels) >= (1 if self.single else MAX_KERNELS) or (self.single and self._held):
            raise HttpError(409, "full", "This launcher holds all the kernels it may hold.")
        kernel = Kernel.spawned(kernel_id, request, means=self._means, changed=self.feed.changed)
        self.kernels[kernel_id] = kernel
        task = asyncio.get_running_loop().create_task(self._first_start(kernel))
        self._starting[kernel_id] = task

    async def _first_start(self, kernel: Kernel) -> None:
        try:
            await kernel.start()
        except BaseException:
            self.kernels.pop(kernel.id, None)
            raise
        finally:
            self._starting.pop(kernel.id, None)
        self._held = True
        log.info("kernel %s was started", kernel.id)

    async def _end(self, kernel: Kernel, grace: float, why: str | None) -> None:
        starting = self._starting.get(kernel.id)
        if starting is not None:
            await asyncio.wait([starting])
        if kernel.id not in self.kernels:
            return  # it had not started
        try:
            await kernel.shutdown(grace, why)
        except Exception:
            log.exception("kernel %s could not be shut down in order", kernel.id)
        finally:
            kernel.close_channels(wire.CLOSE_KERNEL_ENDED, why or "The kernel was shut down.")
            del self.kernels[kernel.id]
            kernel.close()
            self.feed.gone(kernel.id, kernel.describe()["exit"])
            log.info("kernel %s is gone", kernel.id)


async def run(settings: Settings, ready: Callable[[dict[str, Any]], None]) -> int:
    """The whole process between command line and exit code. ``ready`` is told what the ready line says.

    Raises ListenError, HttpError or SpawnError when it cannot begin.
    """
    stop = Stop()
    umask = os.umask(0o077)
    nofile = linux.raise_nofile_limit()
    linux.become_subreaper()  # should the spawner die, what it has started comes to us, and dies too
    context = make_context()
    folder = PrivateFolder()
    room = Room(_spill_folder(settings))
    spawner = None
    try:
        sock, tls = _listen(settings)
        try:
            spawner = await Spawner.open(nofile=nofile, umask=umask) if settings.attach is None else None
            linux.make_undumpable()
            launcher = Launcher(
                launcher_id=settings.launcher_id,
                lease=Lease(settings.lease),
                single=settings.single,
                means=Means(spawner, context, folder.path, room) if spawner is not None else None,
                context=context,
                room=room,
            )
            await _first_kernel(launcher, settings)
            server = Server(Router(launcher, settings.token), ssl_context=tls)
            endpoint = listener.endpoint_of(sock)
            server.listen(sock)
            try:
                ready(ready_line(settings.launcher_id, endpoint))
                return await _serve(launcher, server, sock, spawner, stop)
            finally:
                await server.close()
                launcher.close()
        finally:
            listener.withdraw(sock)
    finally:
        if spawner is not None:
            await spawner.close()
        context.destroy(linger=0)
        room.close()
        folder.remove()


def _spill_folder(settings: Settings) -> Path | None:
    candidates = [settings.spill] if settings.spill else [tempfile.gettempdir(), "/var/tmp"]  # noqa: S108
    found = spill_folder(candidates)
    if found is None:
        log.warning(
            "journals are kept in memory only: %s cannot be written to, or lies in memory", ", ".join(candidates)
        )
    return found


def ready_line(launcher_id: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    return {
        "ready": True,
        "launcher_id": launcher_id,
        "pid": os.getpid(),
        "started": linux.start_time(os.getpid()),
        "protocol": wire.PROTOCOL,
        "endpoint": endpoint,
        "version": __version__,
    }


def _listen(settings: Settings) -> tuple[socket.socket, Any]:
    if settings.unix is not None:
        return listener.listen_unix(settings.unix), None
    tls = None
    if settings.certificate is not None and settings.key is not None:
        tls = listener.tls_context(settings.certificate, settings.key)
    return listener.listen_tcp(settings.host, settings.port), tls


async def _first_kernel(launcher: Launcher, settings: Settings) -> None:
    kernel_id = settings.kernel_id or ""
    try:
        if settings.attach is not None:
            kernel = launcher.attach(kernel_id, settings.attach, str(settings.attach.get("kernel_name") or "kernel"))
            await kernel.start()
        elif settings.start is not None:
            await launcher.start(kernel_id, settings.start)
    except ValueError as error:
        raise HttpError(400, "bad_request", str(error)) from None


class Stop:
    """SIGTERM, SIGINT and SIGHUP: the first asks for an orderly end, the second for a quick one."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[None] = loop.create_future()
        self.hurry: asyncio.Future[None] = loop.create_future()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(signum, self.ask)

    def ask(self) -> None:
        future = self.hurry if self.asked.done() else self.asked
        if not future.done():
            future.set_result(None)


async def _serve(launcher: Launcher, server: Server, sock: socket.socket, spawner: Spawner | None, stop: Stop) -> int:
    """Until there is a reason to end; then end the kernels."""
    lost = spawner.lost if spawner is not None else asyncio.get_running_loop().create_future()
    reason = await _reason(launcher, server, stop, lost)
    server.stop_listening()
    listener.withdraw(sock)  # who comes from now on finds nobody, and starts another launcher
    log.info("the launcher ends: %s", reason)
    ending = asyncio.get_running_loop().create_task(launcher.end(END_GRACE, spare_attached=stop.asked.done()))
    while not ending.done() and not stop.hurry.done():
        await asyncio.wait([ending, stop.hurry], timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
        server.tick()
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    return 1 if lost.done() else 0


async def _reason(launcher: Launcher, server: Server, stop: Stop, lost: asyncio.Future[None]) -> str:
    beat = 0.0
    while True:
        await asyncio.wait([stop.asked, lost], timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            return "the process that starts kernels is gone"
        if stop.asked.done():
            return "it was told to"
        server.tick()
        launcher.feed.tick()
        if time.monotonic() - beat >= BEAT:
            beat = time.monotonic()
            launcher.beat()
        reason = launcher.reason_to_end(server.connections, server.called_at)
        if reason is not None:
            return reason
