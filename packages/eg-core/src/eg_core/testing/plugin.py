"""pytest fixtures: a gateway in a process of its own, on a free port, with folders of its own, and a client of it.

A pytest plugin; loaded with the extra ``eg-core[testing]`` or by ``pytest_plugins = ["eg_core.testing.plugin"]``.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from eg_core.testing.client import AsyncGatewayClient, GatewayClient

START_TIMEOUT = 60.0
_AVAILABLE = re.compile(r"is available at (http[^\s\"]+?)/?[\s\"]")


@dataclass
class GatewayProcess:
    """A running gateway. ``folder`` holds its data, runtime and home folders and its log."""

    folder: Path
    token: str
    traits: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    url: str = ""

    @property
    def log(self) -> str:
        path = self.folder / "gateway.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def client(self) -> GatewayClient:
        return GatewayClient(self.url, self.token)

    @property
    def async_client(self) -> AsyncGatewayClient:
        return AsyncGatewayClient(self.url, self.token)

    def start(self) -> GatewayProcess:
        """Start it (again): same folders, same store."""
        config = self.folder / "config.py"
        lines = [f"c.EnterpriseGatewayApp.{name} = {value!r}" for name, value in self.traits.items()]
        config.write_text("\n".join(["c = get_config()", *lines, ""]))
        begins = len(self.log)
        argv = [sys.executable, "-m", "eg_core", "serve", f"--config={config}", "--ip=127.0.0.1", "--port=0"]
        argv += [f"--data-dir={self.folder / 'data'}"]
        with (self.folder / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=self._environment(), cwd=self.folder)
        until = time.monotonic() + START_TIMEOUT
        while not (found := _AVAILABLE.search(self.log[begins:])):
            if self.process.poll() is not None:
                raise RuntimeError(f"the gateway ended with {self.process.returncode}:\n{self.log[begins:]}")
            if time.monotonic() > until:
                self.stop()
                raise TimeoutError(f"the gateway was not available after {START_TIMEOUT:g} s:\n{self.log[begins:]}")
            time.sleep(0.02)
        self.url = found.group(1)
        return self

    def _environment(self) -> dict[str, str]:
        home, run = self.folder / "home", self.folder / "run"
        for path in (home, run):
            path.mkdir(mode=0o700, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG", "TMPDIR") if name in os.environ}
        return kept | {"HOME": str(home), "XDG_RUNTIME_DIR": str(run), "EG_AUTH_TOKEN": self.token, **self.env}

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 20.0) -> None:
        """Stop the gateway; kernels stay. SIGKILL if it does not go."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signum)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def sweep(self) -> None:
        """End every process that belongs to this gateway's folders: launchers and, with them, their kernels."""
        for pid in _naming(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 10
        while (left := _naming(self.folder)) and time.monotonic() < until:
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def make_gateway() -> Iterator[Callable[..., GatewayProcess]]:
    """Gives ``make_gateway(env={}, **traits)``: starts one more gateway. All are stopped and swept at the end."""
    made: list[GatewayProcess] = []

    def make(*, env: dict[str, str] | None = None, **traits: Any) -> GatewayProcess:
        folder = Path(tempfile.mkdtemp(prefix="eg-g-"))
        gateway = GatewayProcess(folder, secrets.token_hex(16), traits, env or {})
        made.append(gateway)
        return gateway.start()

    yield make
    failures: list[BaseException] = []
    for gateway in made:
        try:
            gateway.stop()
        except subprocess.TimeoutExpired as error:
            failures.append(error)
        gateway.sweep()
        shutil.rmtree(gateway.folder, ignore_errors=True)
    if failures:
        raise failures[0]


@pytest.fixture
def gateway(make_gateway: Callable[..., GatewayProcess]) -> GatewayProcess:
    """One gateway with the defaults."""
    return make_gateway()


@pytest.fixture
def gateway_client(gateway: GatewayProcess) -> GatewayClient:
    """A client of ``gateway``."""
    return gateway.client


def _naming(folder: Path) -> list[int]:
    """Living processes whose command line or environment names the folder."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
            alive = (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in {"Z", "X"}
            if alive and int(proc.name) != os.getpid() and os.fsencode(folder) in seen:
                found.append(int(proc.name))
    return found
