"""The process that forks kernels: the one child of a launcher, single-threaded, doing nothing else.

Its life is its socket to the launcher: when that ends, however the launcher ended, it SIGKILLs everything it has
ever started, whatever those started in turn, and exits. As a subreaper it inherits every orphan, so that "everything"
is "my descendants"; it reaps them all, and is fit to be process 1. It imports neither asyncio nor zmq, and
touches nothing but the socket, processes and /proc. Its other half, in the launcher, is ``spawner``.

Frames both ways: 4 bytes of length, then JSON. Requests carry ``id``; a spawn also carries one descriptor.
"""

from __future__ import annotations

import array
import json
import os
import resource
import select
import signal
import socket
import struct
import time
from typing import Any, NoReturn, Optional

from eg_launcher import linux

LENGTH = struct.Struct(">I")
MAX_REQUEST = 32 << 20
MARK = "EG_SPAWN_ID"
"""In every kernel's environment: tells whose a daemon is that has left its kernel's session and parent."""

PATIENCE = 5.0
"""Seconds until a kill is answered although something is left (a process in an uninterruptible call)."""

OOM_SCORE = 500
_TICK = 0.005
_SLOW_TICK = 0.2
_SELF = "/proc/self"


class Session:
    """A kernel's session: its leader's pid, and who waits for the end of all of it."""

    def __init__(self, pid: int, mark: str) -> None:
        self.pid = pid
        self.mark = mark
        self.alive = True
        self.waiters: list[int] = []
        self.deadline: Optional[float] = None  # set: everything in it is being killed
        self.empty_looks = 0

    def end(self) -> None:
        if self.deadline is None:
            self.deadline = time.monotonic() + PATIENCE


class SpawnerProcess:
    def __init__(self, connection: socket.socket, nofile: Optional[int]) -> None:
        self._connection = connection
        self._nofile = nofile
        self._sessions: dict[int, Session] = {}
        self._starting: dict[int, tuple[int, int, int]] = {}  # error pipe -> request, pid, start time
        self._wake = _wake_on_children()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def run(self) -> None:
        self._send({"ready": os.getpid()})
        while self._step():
            pass
        self._end_everything()

    def _step(self) -> bool:
        for descriptor, _ in self._poll.poll(self._timeout()):
            if descriptor == self._connection.fileno():
                if not self._serve():
                    return False
            elif descriptor == self._wake:
                os.read(self._wake, 4096)
            elif descriptor in self._starting:
                self._finish_start(descriptor)
        self._reap()
        self._sweep()
        return True

    def _timeout(self) -> Optional[float]:
        now = time.monotonic()
        ending = [session for session in self._sessions.values() if session.deadline is not None]
        if not ending:
            return None
        if any(session.empty_looks for session in ending):
            return 0
        late = all(session.deadline is not None and session.deadline < now for session in ending)
        return (_SLOW_TICK if late else _TICK) * 1000

    # requests

    def _serve(self) -> bool:
        """One request; False when the launcher is gone."""
        try:
            request, descriptors = receive(self._connection)
        except (EOFError, OSError):
            return False
        if request["op"] == "spawn":
            self._spawn(request, descriptors[0])
        elif request["op"] == "signal":
            self._signal(request)
        else:
            self._kill(request)
        return True

    def _spawn(self, request: dict[str, Any], output: int) -> None:
        mark = f"{MARK}={os.urandom(8).hex()}"
        parent = os.getpid()
        failed, report = os.pipe()  # both close-on-exec: its end without a word means that exec succeeded
        try:
            pid = os.fork()
        except OSError as error:
            os.close(failed)
            self._send({"id": request["id"], "failed": "fork", "errno": error.errno, "detail": str(error)})
        else:
            if pid == 0:
                self._become_kernel(request, output, report, mark, parent)
            self._sessions[pid] = Session(pid, mark)
            self._starting[failed] = (request["id"], pid, linux.start_time(pid))
            self._poll.register(failed, select.POLLIN)
        os.close(report)
        os.close(output)

    def _finish_start(self, failed: int) -> None:
        request, pid, started = self._starting.pop(failed)
        self._poll.unregister(failed)
        report = os.read(failed, 4096)
        os.close(failed)
        if report:
            del self._sessions[pid]
            stage, number, detail = json.loads(report)
            self._send({"id": request, "failed": stage, "errno": number, "detail": detail})
        else:
            self._send({"id": request, "pid": pid, "started": started})

    def _signal(self, request: dict[str, Any]) -> None:
        self._reap()  # what has ended by now is gone, and its end is told before this answer
        session = self._sessions.get(request["pid"])
        sent = False
        if session is not None and session.alive:  # not reaped yet, so its number is still its own
            try:
                (os.killpg if request["group"] else os.kill)(session.pid, request["signum"])
                sent = True
            except OSError:
                pass  # it is ending, or has become another user's
        self._send({"id": request["id"], "sent": sent})

    def _kill(self, request: dict[str, Any]) -> None:
        session = self._sessions.get(request["pid"])
        if session is None:
            self._send({"id": request["id"], "gone": True})
            return
        session.waiters.append(request["id"])
        session.end()

    # ends

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for failed, (_, starting, _) in list(self._starting.items()):
                if starting == pid:
                    self._finish_start(failed)
            session = self._sessions.get(pid)
            if session is not None:
                session.alive = False
                session.end()  # what a dead kernel leaves behind has no use any more
                by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                self._send({"exit": pid, "code": code, "signal": by_signal})

    def _sweep(self) -> None:
        """Kill what is left of the sessions that end. Nothing is left when two looks in a row found nothing."""
        ending = [session for session in self._sessions.values() if session.deadline is not None]
        if not ending:
            return
        tree = linux.descendants(os.getpid())
        for session in ending:
            if kill_all(self._members(session, tree)) or session.alive:
                session.empty_looks = 0
            else:
                session.empty_looks += 1
            if session.empty_looks >= 2:
                del self._sessions[session.pid]
                self._answer(session, gone=True)
            elif session.deadline is not None and session.deadline < time.monotonic():
                self._answer(session, gone=False)
            if session.alive and not linux.has_proc():
                _kill_group(session.pid)  # the leader's group is all that is known

    def _answer(self, session: Session, *, gone: bool) -> None:
        for waiter in session.waiters:
            self._send({"id": waiter, "gone": gone})
        session.waiters.clear()

    def _members(self, session: Session, tree: dict[int, linux.ProcessStat]) -> list[linux.ProcessStat]:
        """Its session, the orphans that carry its mark, and everything below those."""
        me = os.getpid()
        members = {pid for pid, stat in tree.items() if session.pid in (pid, stat.sid)}
        for pid, stat in tree.items():
            if stat.ppid == me and pid not in self._sessions and stat.living:
                alone = len(self._sessions) == 1
                if alone or linux.environment_holds(pid, session.mark):
                    members.add(pid)
        grown = True
        while grown:
            more = {pid for pid, stat in tree.items() if stat.ppid in members} - members
            members |= more
            grown = bool(more)
        return [tree[pid] for pid in members]

    def _end_everything(self) -> None:
        deadline = time.monotonic() + PATIENCE
        empty_looks = 0
        while empty_looks < 2 and time.monotonic() < deadline:
            tree = linux.descendants(os.getpid())
            if not linux.has_proc():
                for session in self._sessions.values():
                    if session.alive:
                        _kill_group(session.pid)
            empty_looks = 0 if kill_all(list(tree.values())) else empty_looks + 1
            if not empty_looks:
                time.sleep(_TICK)  # single-threaded, nobody waits: the processes need a moment to die
            self._reap()

    def _send(self, answer: dict[str, Any]) -> None:
        try:
            self._connection.sendall(pack(answer))
        except OSError:
            pass  # the launcher is gone: the next look at the socket says so

    # in the forked child

    def _become_kernel(self, request: dict[str, Any], output: int, report: int, mark: str, parent: int) -> NoReturn:
        stage = "prepare"
        try:
            signal.set_wakeup_fd(-1)
            os.setsid()
            if linux.die_with_parent(signal.SIGKILL) and os.getppid() != parent:
                os._exit(127)
            _reset_signals()
            _raise_oom_score()
            _set_nofile(self._nofile)
            _set_descriptors(output, keep=report)
            stage = "cwd"
            if request["cwd"] is not None:
                os.chdir(request["cwd"])
            stage = "exec"
            name, value = mark.split("=")
            os.execvpe(request["argv"][0], request["argv"], {**request["env"], name: value})  # noqa: S606
        except BaseException as error:  # noqa: BLE001 — whatever it is, the launcher is told and this process ends
            os.write(report, json.dumps([stage, getattr(error, "errno", None), str(error)[:300]]).encode())
        finally:
            os._exit(127)


def pack(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One whole frame from a blocking socket, with the descriptors that came along. EOFError at the end."""
    head = b""
    descriptors = array.array("i")
    while len(head) < LENGTH.size:
        data, ancillary, _, _ = connection.recvmsg(
            LENGTH.size - len(head),
            socket.CMSG_SPACE(descriptors.itemsize),
            getattr(socket, "MSG_CMSG_CLOEXEC", 0),
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        if not data:
            raise EOFError
        head += data
    (length,) = LENGTH.unpack(head)
    if length > MAX_REQUEST:
        raise EOFError  # not our launcher
    body = bytearray(length)
    view = memoryview(body)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return json.loads(body), list(descriptors)


def kill_all(processes: list[linux.ProcessStat]) -> bool:
    """SIGKILL them; whether any was there that may be signalled.

    Their process groups too, in one stroke each: a process that forks and exits faster than /proc can be
    read is never caught by its number.
    """
    own_group = os.getpgrp()
    found = False
    for group in {process.pgid for process in processes if process.living} - {own_group, 0, 1}:
        _kill_group(group)
    for process in processes:
        if process.living:
            try:
                os.kill(process.pid, signal.SIGKILL)
                found = True
            except ProcessLookupError:
                found = True  # ended since: what it left shows at the next look
            except PermissionError:
                pass  # another user's now: out of reach
    return found


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass  # gone, or another user's


def _wake_on_children() -> int:
    """A descriptor that becomes readable at SIGCHLD. This process lives and dies by its socket, by no signal."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reader


def _reset_signals() -> None:
    for signum in signal.valid_signals():
        try:
            signal.signal(signum, signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL, SIGSTOP, and what the C library keeps for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _raise_oom_score() -> None:
    """When memory ends, the kernel is taken before the launcher, which can then say so."""
    current = linux.read_file(f"{_SELF}/oom_score_adj")
    if current is None:
        return
    try:
        descriptor = os.open(f"{_SELF}/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, str(min(1000, int(current) + OOM_SCORE)).encode())
        os.close(descriptor)
    except (OSError, ValueError):
        pass  # not worth a kernel


def _set_nofile(soft: Optional[int]) -> None:
    """The limit the launcher was started with, not the one it raised for itself."""
    if soft is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _set_descriptors(output: int, *, keep: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        with os.scandir("/dev/fd") as entries:
            opened = [int(entry.name) for entry in entries]
    except OSError:
        opened = list(range(3, 1024))
    for descriptor in opened:
        if descriptor > 2 and descriptor != keep:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the one that listed the folder


def main(text: str) -> None:
    settings = json.loads(text)
    if settings["umask"] is not None:
        os.umask(settings["umask"])
    linux.set_name("eg-spawner")
    linux.become_subreaper()
    with socket.socket(fileno=settings["descriptor"]) as connection:
        connection.set_inheritable(False)
        connection.setblocking(True)
        SpawnerProcess(connection, settings["nofile"]).run()
