"""The private folder in which the local backend keeps its launchers' sockets, records and logs.

One folder per gateway, backend instance, place and user. A record says which launcher listens where; it
holds no secret. All blocking; the lock is the only thing that waits, and it waits on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from eg_core.builtin import processes
from eg_core.errors import BackendUnavailable, LaunchTimeout

SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
MAX_RECORD = 8192
MAX_TAIL = 4096
LOCK_PAUSE = 0.01
_NAME_LENGTH = 16
_ORDINARY = re.compile(r"[0-9-]+ [0-9:,]+ (INFO|DEBUG) ")


@dataclass(frozen=True)
class LauncherFile:
    """One launcher as its folder remembers it. ``pid`` is None from before it is started until it is."""

    launcher_id: str
    socket: str
    protocol: int
    pid: int | None = None
    started: int | None = None

    @property
    def alive(self) -> bool:
        return processes.alive(self.pid, self.started)


class PrivateFolder:
    """The folder of one key, made and verified."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, runtime_dir: Path, key: tuple[str, ...]) -> PrivateFolder:
        """Make the folder of ``key`` below a private one. Raises ValueError in words if either is not private."""
        digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:_NAME_LENGTH]
        require_private(runtime_dir)
        require_private(runtime_dir / digest)
        return cls(runtime_dir / digest)

    def socket(self, launcher_id: str) -> str:
        return str(self.path / f"{_short(launcher_id)}.sock")

    def log(self, launcher_id: str) -> Path:
        return self.path / f"{_short(launcher_id)}.log"

    def errors(self, launcher_id: str) -> Path:
        return self.path / f"{_short(launcher_id)}.err"

    def records(self) -> list[LauncherFile]:
        """All readable records, newest first."""
        found: list[tuple[float, LauncherFile]] = []
        for path in self.path.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                with path.open("rb") as file:
                    stored = json.loads(file.read(MAX_RECORD))
                found.append((path.stat().st_mtime, LauncherFile(**stored)))
        return [record for _, record in sorted(found, key=lambda item: item[0], reverse=True)]

    def write(self, record: LauncherFile) -> None:
        path = self.path / f"{_short(record.launcher_id)}.json"
        new = path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        new.replace(path)

    def used(self, launcher_id: str) -> None:
        """Note that a launch has joined it just now."""
        with contextlib.suppress(OSError):
            os.utime(self.path / f"{_short(launcher_id)}.json")

    def age(self, launcher_id: str) -> float:
        """Seconds since a launch started or joined it."""
        try:
            return time.time() - (self.path / f"{_short(launcher_id)}.json").stat().st_mtime
        except OSError:
            return 0.0

    def remove(self, launcher_id: str, *, logs: bool = True) -> None:
        for suffix in (".json", ".sock", *((".log", ".log.1", ".err") if logs else ())):
            (self.path / f"{_short(launcher_id)}{suffix}").unlink(missing_ok=True)

    def sweep(self, age: float) -> None:
        """Remove logs that nobody has written for ``age`` seconds and whose launcher has no record any more."""
        before = time.time() - age
        for path in (*self.path.glob("*.log*"), *self.path.glob("*.err")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before and not (self.path / f"{path.name.split('.')[0]}.json").exists():
                    path.unlink()

    def tail(self, launcher_id: str) -> str:
        """The last lines a launcher has left, its log before its errors; empty if it said nothing. Not what its log
        tells of ordinary days: that explains no end, and names other people's kernels."""
        lines: list[str] = []
        for path in (self.log(launcher_id), self.errors(launcher_id)):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - MAX_TAIL))
                lines += file.read(MAX_TAIL).decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if not _ORDINARY.match(line)][-5:]).strip()

    @contextlib.asynccontextmanager
    async def locked(self, deadline: float) -> AsyncIterator[None]:
        """Hold the folder against every other launch, of this process or another (it goes with its holder)."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise LaunchTimeout(f"Another launch has held {self.path} for too long.")
                await asyncio.sleep(LOCK_PAUSE)
            yield
        finally:
            os.close(descriptor)

    def busy(self) -> bool:
        """Whether somebody holds the lock now."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                return not _try_lock(descriptor)
            finally:
                os.close(descriptor)
        return False


def runtime_candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where the folder may go when nobody has said: the user's runtime folder, else one of our own in ``/tmp``."""
    given = environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/"):
        yield Path(given) / "eg"
    yield Path(tempfile.gettempdir()) / f"eg-{os.getuid()}"
    yield Path("/tmp") / f"eg-{os.getuid()}"  # noqa: S108 - verified: ours and 0700, or refused


def choose_runtime_dir(given: str, environ: Mapping[str, str]) -> Path:
    """The first usable folder; what a user has configured is used or refused, never replaced."""
    refused: list[str] = []
    for path in (Path(given),) if given else runtime_candidates(environ):
        longest = len(os.fsencode(path)) + 2 * (_NAME_LENGTH + 1) + len(".sock")
        if longest >= SOCKET_PATH_LIMIT:
            refused.append(f"{path} is too long for a socket ({longest} of {SOCKET_PATH_LIMIT} bytes)")
            continue
        try:
            require_private(path)
            return path
        except ValueError as error:
            refused.append(str(error))
    raise ValueError(f"no private runtime folder: {'; '.join(refused)}. Set runtime_dir to a short path of your own.")


def require_private(path: Path) -> None:
    """Make the folder 0700 if it is absent; ValueError unless it is a real one, the user's own and nobody else's."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ValueError(f"{path} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{path} is not a folder")
    if found.st_uid != os.getuid():
        raise ValueError(f"{path} belongs to another user (uid {found.st_uid})")
    if found.st_mode & 0o077:
        raise ValueError(f"{path} can be entered by others (mode {stat.S_IMODE(found.st_mode):04o}, wanted 0700)")


def folder_gone(error: OSError) -> BackendUnavailable:
    return BackendUnavailable(f"The local backend's folder cannot be used: {error}.", reason="runtime_dir")


def _short(launcher_id: str) -> str:
    """A file name of a launcher id, which is hex in practice and never trusted to be."""
    name = launcher_id[:_NAME_LENGTH]
    return (
        name if re.fullmatch(r"[0-9a-zA-Z]+", name) else hashlib.sha256(launcher_id.encode()).hexdigest()[:_NAME_LENGTH]
    )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
