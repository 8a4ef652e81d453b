"""A PostgreSQL server of the test's own, on a Unix socket, never as root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from eg_integration.waiting import wait_until


def find_postgresql() -> Path | None:
    """The folder of its programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class PostgreSQL:
    """Ends with the ``with`` block; ``stop`` and ``start`` may be called in turn within."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="eg-pg-", dir="/tmp"))
        self._as: dict[str, Any] = {}
        login = "tester"
        if os.geteuid() == 0:  # it refuses to run as root
            login = "nobody"
            self._as = {"user": login, "group": "nogroup", "extra_groups": []}
            shutil.chown(self._folder, login, "nogroup")
        self.url = f"postgresql://{login}@/postgres?host={self._folder}"
        self._login = login
        self._server: subprocess.Popen[bytes] | None = None

    def _run(self, program: str, *args: str | Path) -> subprocess.Popen[bytes]:
        command = [str(find_postgresql()) + f"/{program}", "-D", self._folder / "data", *args]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **self._as)

    def start(self) -> None:
        self._server = self._run("postgres", "-k", self._folder, "-c", "listen_addresses=", "-c", "fsync=off")
        wait_until(self._answers, "PostgreSQL to answer", 30)

    def _answers(self) -> bool:
        assert self._server is not None
        if self._server.poll() is not None:
            raise AssertionError(f"PostgreSQL ended:\n{(self._folder / 'log').read_text()}")
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """At once: connections are cut."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(20)

    def __enter__(self) -> PostgreSQL:
        made = self._run("initdb", "-U", self._login, "-A", "trust", "-N", "--locale=C", "-E", "UTF8")
        assert made.wait(60) == 0, (self._folder / "log").read_text()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
