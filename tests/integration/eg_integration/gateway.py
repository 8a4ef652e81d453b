"""A gateway under test: a process on a free port with a folder of its own, and its REST API.

The folder is its HOME, data, runtime and temporary directory, so that any number of gateways (and of runs of this
suite) live side by side, and so that whatever it starts can be told from everything else on the host.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eg_integration.channels import Channels
from eg_integration.kernelspecs import write_kernelspecs
from eg_integration.processes import Found, end_all, kernels_of, processes_of
from eg_integration.waiting import wait_until

AVAILABLE = re.compile(rb"available at (http://\S+)")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def words(self) -> str:
        """What an error says to a user."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return self.body.decode(errors="replace")
        return f"{content.get('message')} {content.get('reason')}"


class Gateway:
    """``Gateway.new()`` makes the folder; ``start`` and ``stop`` may be called in turn, the folder stays."""

    def __init__(self, folder: Path, command: str | None) -> None:
        self.folder = folder
        self.command = shlex.split(command) if command else [str(Path(sys.executable).with_name("eg"))]
        self.token = secrets.token_hex(20)
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @classmethod
    def new(cls, command: str | None = None, *, name: str = "gw") -> Gateway:
        # Short, for Unix sockets below it have 107 bytes for their path.
        folder = Path(tempfile.mkdtemp(prefix=f"eg-{name}-", dir="/tmp"))
        for part in ("home", "data", "run", "tmp"):
            (folder / part).mkdir(mode=0o700)
        write_kernelspecs(folder / "jupyter")
        return cls(folder, command)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "run"),
            "JUPYTER_CONFIG_DIR": str(self.folder / "home" / "config"),
            "JUPYTER_PATH": str(self.folder / "jupyter"),
            "PYTHONUNBUFFERED": "1",
            "EG_AUTH_TOKEN": self.token,
        }

    # -- life

    def start(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        ip: str = "127.0.0.1",
    ) -> Gateway:
        """Start it and wait until it says where it is. ``prefix``: a command that runs it."""
        self.starts += 1
        command = [*prefix, *self.command, "serve", "--ip", ip, "--port", "0"]
        command += ["--data-dir", str(self.folder / "data"), *args]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**self.environ, **(env or {})},
                cwd=self.folder / "home",
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.url = wait_until(self._said_where, f"the gateway to say where it is available; log:\n{self.log()}", 40)
        wait_until(self._answers, "the gateway to answer", 20)
        return self

    def _said_where(self) -> str | None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended with {self.process.returncode}:\n{self.log()}")
        said = AVAILABLE.search(self.log_file.read_bytes())
        return said[1].decode().rstrip("/") if said else None

    def _answers(self) -> bool:
        try:
            return self.request("GET", "/api/kernelspecs", timeout=5).status == 200
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 20.0) -> None:
        """Signal the gateway's own process and wait for its end."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout)

    def end(self) -> list[Found]:
        """End everything that belongs to it and remove the folder; what was still there."""
        left = end_all(self.folder)
        if self.process is not None:
            self.process.wait(5)
        shutil.rmtree(self.folder, ignore_errors=True)
        return left

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def processes(self) -> list[Found]:
        """Everything it has started, itself excepted."""
        return [found for found in processes_of(self.folder) if found.pid != self.pid]

    def kernels(self) -> list[Found]:
        return kernels_of(self.folder)

    def launchers(self) -> list[Found]:
        """The launchers, not the small process of each that forks kernels."""
        return [found for found in self.processes() if "eg_launcher" in found.command.replace("-", "_")
                and "spawner" not in found.command and "ipykernel" not in found.command]  # fmt: skip

    # -- logs

    @property
    def log_file(self) -> Path:
        return self.folder / f"gateway-{self.starts}.log"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def logs(self) -> dict[str, str]:
        """Every log below the folder, the gateway's and the launchers', by relative name."""
        found = sorted(path for path in self.folder.rglob("*.log*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_text(errors="replace") for path in found}

    # -- REST

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Answer:
        """One call. ``token`` None: without authentication; empty: its own."""
        where = urlsplit(self.url)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"token {token or self.token}"
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)
        try:
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, where.path + path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def start_kernel(self, name: str = "python3", env: Mapping[str, str] | None = None) -> str:
        """A kernel's id; it must have started."""
        answer = self.request("POST", "/api/kernels", {"name": name, "env": dict(env or {})})
        assert answer.status == 201, f"{answer.status} {answer.words}"
        return str(answer.json["id"])

    def model(self, kernel_id: str) -> dict[str, Any]:
        answer = self.request("GET", f"/api/kernels/{kernel_id}")
        assert answer.status == 200, f"{answer.status} {answer.words}"
        return dict(answer.json)

    def list_kernels(self) -> list[dict[str, Any]]:
        answer = self.request("GET", "/api/kernels")
        assert answer.status == 200, f"{answer.status} {answer.words}"
        return list(answer.json)

    def delete_kernel(self, kernel_id: str) -> None:
        answer = self.request("DELETE", f"/api/kernels/{kernel_id}")
        assert answer.status in {204, 404}, f"{answer.status} {answer.words}"

    def channels_url(self, kernel_id: str) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels"

    def connect(self, kernel_id: str, **options: Any) -> Channels:
        return Channels(self.channels_url(kernel_id), self.token, **options)

    def delete_all_of(self, kernel_ids: Iterable[str]) -> None:
        for kernel_id in kernel_ids:
            self.delete_kernel(kernel_id)

    def delete_all(self) -> None:
        """End all kernels, and wait until their processes are gone."""
        self.delete_all_of(model["id"] for model in self.list_kernels())
        wait_until(
            lambda: not self.list_kernels() and not self.kernels(),
            "all kernels to be gone from the gateway and from the host",
        )
