"""The launcher's private folder: connection files and ipc sockets, gone with the launcher.

Its path is short (a Unix socket's has 107 bytes). It is locked while its launcher lives, so that the next launcher
of this user can remove what a killed one left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

_PREFIX = "eg-launcher-"
_MARK = ".eg-launcher"  # in every folder of a launcher's: what only has such a name is somebody else's
_MAX_BASE = 40
_YOUNG = 60.0  # seconds in which a folder may be made but not locked yet


class PrivateFolder:
    def __init__(self, base: str | None = None) -> None:
        self._base = base or _base()
        _sweep(self._base)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._base))  # 0700
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / _MARK).touch()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _base() -> str:
    """Not XDG_RUNTIME_DIR: that is emptied when the user logs out, and a launcher may stay."""
    base = tempfile.gettempdir()
    return base if len(base) <= _MAX_BASE else "/tmp"  # noqa: S108 - what is made there is 0700


def _sweep(base: str) -> None:
    """Remove what killed launchers left."""
    for path in Path(base).glob(_PREFIX + "*"):
        try:
            info = path.lstat()
            if (
                not stat.S_ISDIR(info.st_mode)
                or not (path / _MARK).is_file()
                or info.st_uid != os.geteuid()
                or abs(time.time() - info.st_mtime) < _YOUNG
            ):
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # its launcher lives
        finally:
            os.close(descriptor)
