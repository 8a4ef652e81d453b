"""The launcher's side of the process that forks kernels (``spawner_child`` is the other, and says what it promises).

Everything here is on the loop and never blocks. A request is queued whole before anything is awaited, so that a
cancelled caller can neither cut a frame nor leave a kernel behind that nobody knows.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import eg_launcher
from eg_launcher import linux
from eg_launcher.command import explain_failure
from eg_launcher.spawner_child import LENGTH, MAX_REQUEST, PATIENCE, kill_all, pack

_BOOT = "import sys; sys.path.append(sys.argv[1]); from eg_launcher.spawner_child import main; main(sys.argv[2])"
_OPEN_TIMEOUT = 20.0
_CLOSE_TIMEOUT = 15.0


class SpawnError(Exception):
    """A kernel's process could not be made. ``reason`` is ``exec_failed`` or ``spawner_gone``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Process:
    """``started`` is field 22 of ``/proc/PID/stat``: with it a reused pid is never mistaken for this one."""

    pid: int
    pgid: int
    started: int
    host: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ExitStatus:
    """Neither code nor signal: it went away with the spawner, unseen."""

    code: Optional[int]
    signal: Optional[int]


class Spawner:
    """Make one with ``open``. ``lost`` is done when the child is gone: then no kernel lives, and none can be made."""

    def __init__(self, connection: socket.socket, child: subprocess.Popen[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._child = child
        self._outbox: deque[tuple[memoryview, Optional[int]]] = deque()
        self._inbox = bytearray()
        self._requests = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._living: set[int] = set()
        self._exits: dict[int, ExitStatus] = {}
        self._watchers: dict[int, Callable[[ExitStatus], None]] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._farewell: Optional[asyncio.Task[None]] = None
        self._over = False
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(connection, self._read)

    @classmethod
    async def open(cls, *, nofile: Optional[int] = None, umask: Optional[int] = None) -> Spawner:
        """``nofile``, ``umask``: kernels' soft limit of open files and mask, where the launcher has changed its own."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            child = _start_child(theirs, nofile, umask)
        except OSError as error:
            ours.close()
            raise SpawnError("spawner_gone", f"The process that starts kernels did not start: {error}") from error
        finally:
            theirs.close()
        spawner = cls(ours, child)
        try:
            await asyncio.wait_for(asyncio.shield(spawner._ready), _OPEN_TIMEOUT)
        except BaseException:
            await spawner.close()
            raise
        return spawner

    async def spawn(self, argv: list[str], env: dict[str, str], cwd: Optional[str], output: int) -> Process:
        """Start ``argv`` in a session of its own; its stdout and stderr are ``output``, which stays the caller's.

        Returns when exec has succeeded; SpawnError says in words why it has not.
        """
        request = {"op": "spawn", "argv": argv, "env": env, "cwd": cwd}
        future = self._send(request, os.dup(output))
        try:
            answer = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._undo_spawn)
            raise
        if "failed" in answer:
            raise SpawnError(
                "exec_failed",
                explain_failure(answer["failed"], answer["errno"], answer["detail"], argv=argv, env=env, cwd=cwd),
            )
        return Process(answer["pid"], answer["pid"], answer["started"], socket.gethostname())

    def watch(self, pid: int, callback: Callable[[ExitStatus], None]) -> None:
        """Call back once, on the loop, when the process has ended; also when it had before."""
        if pid in self._living:
            self._watchers[pid] = callback
        else:
            self._loop.call_soon(callback, self._exits.pop(pid, ExitStatus(None, None)))

    async def signal(self, pid: int, signum: int, *, group: bool) -> bool:
        """Send a signal to a process this spawner made, or to its group. False: it is gone, or not ours."""
        if self._over:
            return False
        try:
            answer = await self._send({"op": "signal", "pid": pid, "signum": int(signum), "group": group})
        except SpawnError:
            return False
        return bool(answer["sent"])

    async def kill_session(self, pid: int) -> None:
        """Return when nothing of what ``pid`` started is left; after 5 s also if something cannot die."""
        if self._over:
            return
        try:
            await self._send({"op": "kill", "pid": pid})
        except SpawnError:
            pass  # the spawner has gone, and with it all that it made
        self._exits.pop(pid, None)

    async def close(self) -> None:
        """End every kernel and the child. Returns when all are gone."""
        if not self._over:
            try:
                self._connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it went away meanwhile
        await asyncio.wait([self.lost], timeout=_CLOSE_TIMEOUT)
        if not self.lost.done():  # stuck: it takes its kernels along by their death signal
            self._child.kill()
            await self.lost

    # the socket

    def _send(self, request: dict[str, Any], descriptor: Optional[int] = None) -> asyncio.Future[dict[str, Any]]:
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._requests += 1
        frame = pack({"id": self._requests, **request})
        if self._over:
            error = SpawnError("spawner_gone", "The process that starts kernels has ended; so does this launcher.")
        elif len(frame) - LENGTH.size > MAX_REQUEST:
            error = SpawnError("exec_failed", f"argv and env are {len(frame)} bytes; the limit is {MAX_REQUEST}.")
        else:
            self._waiting[self._requests] = future
            self._outbox.append((memoryview(frame), descriptor))
            self._flush()
            return future
        if descriptor is not None:
            os.close(descriptor)
        future.set_exception(error)
        return future

    def _flush(self) -> None:
        while self._outbox:
            data, descriptor = self._outbox[0]
            rights = [] if descriptor is None else [array.array("i", [descriptor])]
            try:
                count = self._connection.sendmsg(
                    [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, right) for right in rights]
                )
            except BlockingIOError:
                self._loop.add_writer(self._connection, self._flush)
                return
            except OSError:
                break  # the child is gone: the reader says so
            if descriptor is not None:
                os.close(descriptor)
            if count < len(data):
                self._outbox[0] = (data[count:], None)
            else:
                self._outbox.popleft()
        self._loop.remove_writer(self._connection)

    def _read(self) -> None:
        try:
            data = self._connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        self._inbox += data
        while len(self._inbox) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._inbox)
            if len(self._inbox) < LENGTH.size + length:
                return
            message = json.loads(self._inbox[LENGTH.size : LENGTH.size + length])
            del self._inbox[: LENGTH.size + length]
            self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        if "exit" in message:
            self._end(message["exit"], ExitStatus(message["code"], message["signal"]))
        elif "ready" in message:
            self._ready.set_result(None)
        else:
            if "pid" in message:
                self._living.add(message["pid"])
                self._exits.pop(message["pid"], None)
            future = self._waiting.pop(message["id"])
            if not future.done():
                future.set_result(message)

    def _end(self, pid: int, status: ExitStatus) -> None:
        self._living.discard(pid)
        watcher = self._watchers.pop(pid, None)
        if watcher is None:
            self._exits[pid] = status
        else:
            self._loop.call_soon(watcher, status)

    def _undo_spawn(self, future: asyncio.Future[dict[str, Any]]) -> None:
        """Whoever asked has gone: what was started for them goes too."""
        if future.cancelled() or future.exception() is not None or self._over:
            return
        pid = future.result().get("pid")
        if pid is not None:
            self._send({"op": "kill", "pid": pid}).add_done_callback(lambda _: self._exits.pop(pid, None))

    # the end

    def _lose(self) -> None:
        self._over = True
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        for _, descriptor in self._outbox:
            if descriptor is not None:
                os.close(descriptor)
        self._outbox.clear()
        error = SpawnError("spawner_gone", "The process that starts kernels has ended unexpectedly.")
        for future in self._waiting.values():
            _fail(future, error)
        self._waiting.clear()
        _fail(self._ready, error)
        leaders = set(self._living)
        for pid in leaders:
            self._end(pid, ExitStatus(None, None))
        self._farewell = self._loop.create_task(self._bury(leaders))

    async def _bury(self, leaders: set[int]) -> None:
        """Until the child is reaped: only then have its orphans come to us, if we are a subreaper."""
        end = self._loop.time() + PATIENCE
        kill_orphans(leaders)
        # Its socket has closed: it is on its way out. Nothing tells of that without a thread or SIGCHLD.
        while self._child.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        empty_looks = 0
        while empty_looks < 2 and self._loop.time() < end:
            empty_looks = 0 if kill_orphans(leaders) else empty_looks + 1
            await asyncio.sleep(0.002)
        self.lost.set_result(None)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # told, also where nobody waits


def kill_orphans(leaders: set[int]) -> bool:
    """The spawner has died: kill the sessions of these leaders, and, in a subreaper, all that has come to us.

    Whether anything was left.
    """
    sessions = [stat for stat in linux.all_processes().values() if leaders & {stat.pid, stat.sid}] if leaders else []
    below = list(linux.descendants(os.getpid()).values()) if linux.is_subreaper() else []
    return kill_all([*sessions, *below])


def _start_child(connection: socket.socket, nofile: Optional[int], umask: Optional[int]) -> subprocess.Popen[bytes]:
    """The same interpreter, with the folder (or the .pyz) this package came from, and nothing of site-packages."""
    root = str(Path(eg_launcher.__file__).parent.parent)
    settings = json.dumps({"descriptor": connection.fileno(), "nofile": nofile, "umask": umask})
    command = [sys.executable, "-I", "-S", "-c", _BOOT, root, settings]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[connection.fileno()],
        start_new_session=True,
    )
