"""A stock jupyter_server or JupyterLab whose kernels come from a gateway, as a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eg_integration.channels import Channels
from eg_integration.gateway import Answer, Gateway
from eg_integration.waiting import wait_until


class JupyterServer:
    """``lab``: with JupyterLab's pages. Lives in the gateway's folder and ends with it at the latest."""

    says_where = r"(http://127\.0\.0\.1:\d+)/"

    def __init__(
        self,
        gateway: Gateway,
        *,
        lab: bool = False,
        env: Mapping[str, str] | None = None,
        gateway_url: str | None = None,
    ) -> None:
        """``gateway_url``: where it finds the gateway, if that is not the gateway's own."""
        self.gateway = gateway
        self.token = secrets.token_hex(20)
        self.folder = gateway.folder / f"server-{secrets.token_hex(3)}"
        self.root = self.folder / "notebooks"
        self.root.mkdir(parents=True)
        self.log_file = self.folder / "server.log"
        self.url = ""
        home = self.folder / "home"
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "run"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "lab-settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "lab-workspaces"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_TOKEN": self.token,
            "JUPYTER_GATEWAY_AUTH_TOKEN": gateway.token,
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "jupyterlab" if lab else "jupyter_server"]
        command += [f"--gateway-url={gateway_url or gateway.url}", "--ip=127.0.0.1", "--port=0"]
        command += ["--no-browser", "--allow-root"]
        command += [f"--ServerApp.root_dir={self.root}", "--LanguageServerManager.autodetect=False"]
        if lab:
            _quiet(Path(environ["JUPYTERLAB_SETTINGS_DIR"]))
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command, env={**environ, **(env or {})}, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> JupyterServer:
        self.url = wait_until(self._said_where, "the jupyter server to say where it is", 60)
        wait_until(self._answers, "the jupyter server to answer", 30)
        return self

    def _said_where(self) -> str | None:
        log = self.log_file.read_text(errors="replace")
        if self.process.poll() is not None:
            raise AssertionError(f"the jupyter server ended with {self.process.returncode}:\n{log}")
        said = re.search(self.says_where, log)
        return said[1] if said else None

    def _answers(self) -> bool:
        try:
            return self.request("GET", "/api").status == 200
        except OSError:
            return False

    def __enter__(self) -> JupyterServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    def request(self, method: str, path: str, body: Any = None, timeout: float = 60.0) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def connect(self, kernel_id: str) -> Channels:
        url = f"{self.url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels"
        return Channels(url, self.token)


def _quiet(settings: Path) -> None:
    """No news, no look for updates: the page asks nothing of the network and nothing of the user."""
    folder = settings / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    said = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (folder / "notification.jupyterlab-settings").write_text(json.dumps(said))
