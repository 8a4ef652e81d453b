"""A gateway of one of three kinds, as a process, under one configuration.

A configuration is written once, in Enterprise Gateway's environment names without prefix, and translated for each
kind. Ours is started exactly as Enterprise Gateway is: same script, same variables, same options.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websocket
from benchmarks import venvs
from eg_integration.gateway import AVAILABLE, Answer, Gateway
from eg_integration.waiting import wait_until

KINDS = ("ours", "eg", "kg")
APP = {"ours": "EnterpriseGatewayApp", "eg": "EnterpriseGatewayApp", "kg": "KernelGatewayApp"}
PREFIX = {"ours": "EG_", "eg": "EG_", "kg": "KG_"}
CONFIG_FILE = {
    "ours": "jupyter_enterprise_gateway_config",
    "eg": "jupyter_enterprise_gateway_config",
    "kg": "jupyter_kernel_gateway_config",
}
OUR_SCRIPT = "jupyter-enterprisegateway"
RENAMED = {("kg", "CLIENT_ENVS"): "KG_ENV_WHITELIST", ("kg", "INHERITED_ENVS"): "KG_ENV_PROCESS_WHITELIST"}
NOWHERE = "00000000-0000-4000-8000-000000000000"
"""A well-formed id that no kernel and no session has."""


@dataclass(frozen=True)
class Config:
    """``env``: names without EG_ or KG_; ``raw``: whole names; ``args``: the command line; ``file``: a config file.

    In ``args`` and ``file``, ``{app}`` is the application's class.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()
    file: str = ""
    token: str = "s3cret-token"
    list_kernels: bool = True
    anybody: bool = True  # also root may start kernels, who is unauthorised by default
    scheme: str = "http"

    def environ(self, kind: str) -> dict[str, str]:
        values = dict(self.env)
        if self.token:
            values.setdefault("AUTH_TOKEN", self.token)
        if self.list_kernels:
            values.setdefault("LIST_KERNELS", "True")
        if self.anybody and kind != "kg":
            values.setdefault("UNAUTHORIZED_USERS", "nobody-of-this-name")
        return {**{RENAMED.get((kind, name), PREFIX[kind] + name): value for name, value in values.items()}, **self.raw}


class CompatGateway(Gateway):
    """``Gateway`` for any kind: other script, other kernelspecs, and the configuration as the kind wants it."""

    def __init__(self, kind: str, config: Config) -> None:
        folder = Path(tempfile.mkdtemp(prefix=f"eg-compat-{kind}-", dir="/tmp"))
        for part in ("home", "data", "run", "tmp", "config"):
            (folder / part).mkdir(mode=0o700)
        script = Path(sys.executable).with_name(OUR_SCRIPT) if kind == "ours" else venvs.script(kind.upper())
        super().__init__(folder, str(script))
        self.kind, self.config, self.token = kind, config, config.token
        self.python = sys.executable if kind == "ours" else str(script.with_name("python"))
        self.kernel_dir = folder / "jupyter" / "kernels"
        self.add_kernelspec("python3")
        (self.kernel_dir / "python3" / "kernel.js").write_text("// declared\n")
        (self.kernel_dir / "python3" / "logo-64x64.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (self.kernel_dir / "python3" / "private.txt").write_text("not declared\n")

    def add_kernelspec(self, name: str, **more: Any) -> Path:
        """Write a kernelspec that runs ipykernel, with ``more`` in its kernel.json."""
        spec = self.kernel_dir / name
        spec.mkdir(parents=True, exist_ok=True)
        hints = {key: os.environ[key] for key in ("OPENBLAS_CORETYPE",) if key in os.environ}
        argv = [self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        content = {"argv": argv, "display_name": f"Test {name}", "language": "python", "metadata": {}, **more}
        content["env"] = {**hints, **more.get("env", {})}
        # Whole or not at all: a gateway may read at any time.
        (spec / "kernel.json.new").write_text(json.dumps(content))
        (spec / "kernel.json.new").rename(spec / "kernel.json")
        return spec

    @property
    def environ(self) -> dict[str, str]:
        inherited = super().environ
        del inherited["EG_AUTH_TOKEN"]
        return {
            **inherited,
            "PATH": os.pathsep.join([str(Path(self.python).parent), os.defpath]),
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "EG_RESPONSE_PORT": str(free_port()),
            "GATEWAYS_OWN_SECRET": "of-the-gateway",
            **self.config.environ(self.kind),
        }

    def run(self, *args: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """The script with ``args``, to its end."""
        return subprocess.run(
            [*self.command, *args],
            env=self.environ,
            cwd=self.folder / "home",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(
        self, *args: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = (), port: int | None = None
    ) -> CompatGateway:
        self.starts += 1
        if self.config.file:
            (self.folder / "config" / f"{CONFIG_FILE[self.kind]}.py").write_text(self._for_kind(self.config.file))
        options = [self._for_kind(option) for option in self.config.args]
        if not any("port" in option for option in options) and "PORT" not in self.config.env and port != 0:
            options += ["--port", str(port or free_port())]
        if self.kind != "ours":  # else a kernel that misses the first request holds a WebSocket back for a minute
            options += ["--MappingKernelManager.kernel_info_timeout=5"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *self.command, *options, *args],
                env={**self.environ, **(env or {})},
                cwd=self.folder / "home",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        said = wait_until(self._said_where, f"the gateway to say where it is available; log:\n{self.log()}", 40)
        self.url = said
        return self

    def _said_where(self) -> str | None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended with {self.process.returncode}:\n{self.log()}")
        said = AVAILABLE.search(self.log_file.read_bytes().replace(b"https://", b"http://"))
        return said[1].decode().rstrip("/") if said else None

    def _for_kind(self, text: str) -> str:
        return text.replace("{app}", APP[self.kind])

    # -- what tests look at

    @staticmethod
    def error(answer: Answer) -> dict[str, Any]:
        """What can be compared of an error: status and the fields of its body, with the type of each."""
        try:
            body = answer.json
        except ValueError:
            return {"status": answer.status, "body": "no JSON"}
        assert isinstance(body, dict), body
        return {"status": answer.status, "fields": {k: type(v).__name__ for k, v in body.items() if k in FIELDS}}

    def at_once(self, method: str, path: str, bodies: Sequence[Any]) -> list[Answer]:
        """The same call with several bodies: all are sent before any answer is read."""
        where = urlsplit(self.url)
        headers = {"Content-Type": "application/json", "Authorization": f"token {self.token}"}
        calls = [http.client.HTTPConnection(where.hostname or "", where.port, timeout=60) for _ in bodies]
        try:
            for call in calls:
                call.connect()
            for call, body in zip(calls, bodies, strict=True):
                call.request(method, where.path + path, json.dumps(body).encode(), headers)
            answers = [call.getresponse() for call in calls]
            return [Answer(one.status, dict(one.getheaders()), one.read()) for one in answers]
        finally:
            for call in calls:
                call.close()

    def upgrade(
        self, kernel_id: str, query: str = "", *, headers: Mapping[str, str] | None = None, token: bool = True
    ) -> int:
        """The status that a WebSocket upgrade gets: 101 when it succeeds."""
        sent = [f"{name}: {value}" for name, value in (headers or {}).items() if name != "Origin"]
        if token and self.token:
            sent.append(f"Authorization: token {self.token}")
        origin = (headers or {}).get("Origin")
        try:
            socket_ = websocket.create_connection(
                self.channels_url(kernel_id) + query, timeout=20, header=sent, origin=origin, suppress_origin=not origin
            )
        except websocket.WebSocketBadStatusException as refused:
            return int(refused.status_code)
        socket_.shutdown()
        return 101

    def handshake(self, kernel_id: str, headers: Mapping[str, str]) -> Answer:
        """An upgrade written by hand, for what no client library would send."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Authorization": f"token {self.token}",
        }
        try:
            connection.request("GET", f"{where.path}/api/kernels/{kernel_id}/channels", None, {**upgrade, **headers})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), b"")
        finally:
            connection.close()

    def terminate(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.stop(how)
        assert self.process is not None
        return int(self.process.returncode)


FIELDS = ("reason", "message", "traceback")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
