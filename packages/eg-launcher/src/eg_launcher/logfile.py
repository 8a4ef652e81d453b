"""Where the launcher's log goes: a file of its own, bounded, private; or stderr, when a person has started it.

After the ready line nothing writes to stderr any more but this log: descriptor 2 becomes the null device, and the last
words of a crash (an exception nobody caught, a fatal signal) go to the file, too.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Optional

LIMIT = 1024 * 1024
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[IO[str]]
else:
    _StreamHandler = logging.StreamHandler  # takes no parameter before Python 3.11


class BoundedFile(_StreamHandler):
    """Appends to ``path``; when it has reached ``LIMIT`` bytes it becomes ``path.1``, and a new one is begun.

    ``logging.handlers`` would do it with an import of sockets, pickle and queues, and for all the world to read.
    """

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        super().__init__(_open(path))
        self._path = path
        self._limit = limit
        self._crashes = False

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        try:
            if os.fstat(self.stream.fileno()).st_size >= self._limit:
                self._begin_anew()
        except (OSError, ValueError):
            pass  # the disk is full, or the file is closed

    def take_crashes(self) -> None:
        """Have fatal signals described here."""
        self._crashes = True
        faulthandler.enable(self.stream)

    def close(self) -> None:
        super().close()
        self.stream.close()

    def _begin_anew(self) -> None:
        try:
            Path(self._path).replace(f"{self._path}.1")
            old, self.stream = self.stream, _open(self._path)
        except OSError:  # its folder is gone
            os.ftruncate(self.stream.fileno(), 0)
            return
        if self._crashes:
            faulthandler.enable(self.stream)
        old.close()


def configure(path: str | None) -> None:
    """Log to ``path``, or to stderr. OSError when the file cannot be written."""
    handler: logging.Handler = logging.StreamHandler() if path is None else BoundedFile(path)
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def detach(path: str | None) -> None:
    """Let go of what the starter gave: who waits for more on stdout gets its end, and no kernel can talk there.

    With a log file stderr goes, too; without one it is a person's terminal, and stays.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if path is not None:
        os.dup2(null, 2)
        sys.excepthook = _uncaught
        threading.excepthook = _uncaught_in_thread
        for handler in logging.getLogger().handlers:
            if isinstance(handler, BoundedFile):
                handler.take_crashes()
    os.close(null)


def _open(path: str) -> IO[str]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def _uncaught(kind: type[BaseException], error: BaseException, traceback: Optional[TracebackType]) -> None:
    log.critical("the launcher ends by an error", exc_info=(kind, error, traceback))


def _uncaught_in_thread(args: Any) -> None:
    log.error("a thread ended by an error", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
