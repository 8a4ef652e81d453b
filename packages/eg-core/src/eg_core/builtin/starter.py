"""Starts a launcher process on this host, detached, and waits for its one line; asks a running one whether it answers.

The process is ours until it has said that it is ready: a failure, a deadline or a cancellation before that
leaves nothing.
Afterwards it is on its own: it has its own session, none of our descriptors, and only the base environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eg_core import aio
from eg_core.builtin import processes
from eg_core.builtin.folder import LauncherFile, PrivateFolder
from eg_core.errors import LaunchFailed, LaunchTimeout
from eg_core.types import LaunchRequest
from eg_launcher.wire import SUPPORTED_PROTOCOLS

ANSWER_TIMEOUT = 2.0
MAX_READY_LINE = 65536
LAST_WORDS = 1.0
_PROBE = b"GET /status HTTP/1.1\r\nHost: eg\r\nConnection: close\r\n\r\n"
_BASE = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR|PYTHONPATH")


@dataclass
class Nursery:
    """The launchers that are children of this process: they must be reaped, and never killed with it."""

    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    starting: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def announced(self, launcher_id: str) -> Iterator[None]:
        """From before anybody is told of it until it listens or has failed."""
        self.starting.add(launcher_id)
        try:
            yield
        finally:
            self.starting.discard(launcher_id)

    def reap(self) -> None:
        for launcher_id, child in tuple(self.children.items()):
            if child.poll() is not None:
                del self.children[launcher_id]

    def release(self) -> None:
        """Forget them without a word: they go on without us, and init reaps them."""
        self.reap()
        for child in self.children.values():
            child.returncode = 0  # or its destructor would complain that it still runs
        self.children.clear()


async def start_launcher(
    request: LaunchRequest,
    record: LauncherFile,
    *,
    folder: PrivateFolder,
    command: Sequence[str],
    environ: Mapping[str, str],
    timeout: float,
    threads: Executor,
    nursery: Nursery,
) -> LauncherFile:
    """Start one and return its record with pid and start time, when it listens."""
    lease = () if "--lease" in request.launcher.args else ("--lease", f"{request.launcher.lease:g}")
    log = folder.log(record.launcher_id)
    argv = [*command, "spawn", "--credentials", "-", "--unix", record.socket, "--log", str(log)]
    argv += [*request.launcher.args, *lease]
    deadline = time.monotonic() + timeout
    try:
        spawning = aio.run_blocking(
            threads, _spawn, argv, launcher_environment(environ), folder.errors(record.launcher_id), nursery, record
        )
        await aio.run_to_end(spawning)
        child = nursery.children[record.launcher_id]
        record = replace(record, pid=child.pid, started=processes.started(child.pid))
        await aio.run_blocking(threads, folder.write, record)
        ready = await _ready(child, request.launcher.credentials, deadline)
        protocol = _agreed(ready.get("protocol"), argv[0])
        record = replace(record, pid=ready["pid"], started=processes.started(ready["pid"]), protocol=protocol)
        await aio.run_blocking(threads, folder.write, record)
        return record
    except BaseException as error:
        tail = await aio.run_to_end(aio.run_blocking(threads, _abandon, record.launcher_id, nursery, folder))
        if isinstance(error, _NotReady):
            raise _failure(error, argv[0], tail, timeout) from error
        raise


def launcher_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the launcher gets of our environment: the base names a kernel may have too, and where its modules are."""
    return {name: value for name, value in environ.items() if _BASE.fullmatch(name)}


async def answers(path: str) -> bool:
    """Whether what listens there speaks HTTP now: a launcher that is dying or hung does not."""
    try:
        return await aio.within(ANSWER_TIMEOUT, _probe(path))
    except (OSError, TimeoutError):
        return False


async def _probe(path: str) -> bool:
    reader, writer = await asyncio.open_unix_connection(path, limit=4096)
    try:
        writer.write(_PROBE)
        return (await reader.read(9)).startswith(b"HTTP/1.1 ")
    finally:
        writer.close()


class _NotReady(Exception):
    """It ended (code), said something else (said), or nothing in time (neither)."""

    def __init__(self, *, code: int | None = None, said: str | None = None) -> None:
        super().__init__(code, said)
        self.code = code
        self.said = said


def _failure(error: _NotReady, program: str, tail: str, timeout: float) -> LaunchFailed:
    said = f" It said: {tail}" if tail else ""
    if error.code is not None:
        how = f"was killed by {signal.Signals(-error.code).name}" if error.code < 0 else f"ended with code {error.code}"
        return LaunchFailed(f"The launcher ({program}) {how} before it was ready.{said}", reason="launcher_failed")
    if error.said is not None:
        return LaunchFailed(
            f"The launcher ({program}) said {error.said!r} instead of that it is ready.{said}", reason="launcher_failed"
        )
    return LaunchTimeout(f"The launcher ({program}) was not ready after {timeout:g} s.{said}")


def _spawn(
    argv: Sequence[str], environment: dict[str, str], errors: Path, nursery: Nursery, record: LauncherFile
) -> None:
    """Blocking. The child is in the nursery before anybody can be told of it."""
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        nursery.children[record.launcher_id] = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=descriptor,
            cwd="/",
            env=environment,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        raise LaunchFailed(
            f"The launcher {argv[0]} cannot be executed: {error.strerror}.", reason="launcher_failed"
        ) from error
    finally:
        os.close(descriptor)


async def _ready(child: subprocess.Popen[bytes], credentials: str, deadline: float) -> dict[str, Any]:
    """Hand over the credentials and wait for the line. Closes both pipes: from then on there is none between us."""
    stdin, stdout = child.stdin, child.stdout
    assert stdin is not None
    assert stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            os.set_blocking(stdin.fileno(), False)  # a line fits into the pipe; if not, it is cut, not waited for
            os.write(stdin.fileno(), credentials.encode().rstrip(b"\n") + b"\n")
        stdin.close()
        os.set_blocking(stdout.fileno(), False)
        line = await aio.within(aio.remaining(deadline), _line(stdout.fileno()))
    except TimeoutError:
        raise _NotReady from None
    finally:
        stdin.close()
        stdout.close()
    if not line.endswith(b"\n") and len(line) < MAX_READY_LINE:
        raise _NotReady(code=await _exit_code(child), said=line.decode(errors="replace") or None)
    return _parsed(line)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        ready = json.loads(line)
        if ready["ready"] is True and isinstance(ready["pid"], int):
            return dict(ready)
    except (ValueError, TypeError, KeyError):
        pass  # told below
    raise _NotReady(said=line[:200].decode(errors="replace").strip())


def _agreed(protocol: Any, program: str) -> int:
    """The protocol it will be spoken to in."""
    if isinstance(protocol, int) and protocol in SUPPORTED_PROTOCOLS:
        return protocol
    spoken = " and ".join(map(str, SUPPORTED_PROTOCOLS))
    raise LaunchFailed(
        f"The launcher ({program}) speaks the launcher protocol {protocol!r}; this gateway speaks {spoken}. "
        "Install the eg-launcher that belongs to this gateway.",
        reason="launcher_protocol",
    )


async def _line(descriptor: int) -> bytes:
    """Read up to a line's end, the stream's end or the bound."""
    loop = asyncio.get_running_loop()
    received = b""
    while not received.endswith(b"\n") and len(received) < MAX_READY_LINE:
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, _wake, readable)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        try:
            chunk = os.read(descriptor, MAX_READY_LINE - len(received))
        except BlockingIOError:
            continue
        if not chunk:
            break
        received += chunk
    return received


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


async def _exit_code(child: subprocess.Popen[bytes]) -> int | None:
    """Its stdout has ended; its exit code follows, or it goes on without it and is asked no longer."""
    until = time.monotonic() + LAST_WORDS
    while child.poll() is None and time.monotonic() < until:  # noqa: ASYNC110 - the kernel tells of no exit
        await asyncio.sleep(processes.PAUSE)
    return child.returncode


def _abandon(launcher_id: str, nursery: Nursery, folder: PrivateFolder) -> str:
    """Blocking: what was started ends, and its files go. Returns its last words."""
    child = nursery.children.pop(launcher_id, None)
    if child is not None:
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    tail = folder.tail(launcher_id)
    folder.remove(launcher_id)
    return tail
