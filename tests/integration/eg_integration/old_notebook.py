"""Notebook servers of former days whose kernels come from a gateway, each in a virtual environment of its own.

What they need is locked in ``clients/old/NAME.txt`` and kept in ``${XDG_CACHE_HOME:-~/.cache}/eg-tests``, by that file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer

LOCKS = Path(__file__).parent.parent / "clients" / "old"
PYTHONS = ("python3.11", "python3.10")  # the newest that their dependencies know
NB2KG = {
    "session_manager_class": "nb2kg.managers.SessionManager",
    "kernel_manager_class": "nb2kg.managers.RemoteKernelManager",
    "kernel_spec_manager_class": "nb2kg.managers.RemoteKernelSpecManager",
    "nbserver_extensions": "{'nb2kg': True}",
}


def ensure(kind: str) -> tuple[Path | None, str]:
    """The Python of ``kind``'s environment, made once per lock file, or None and why it cannot be made."""
    lock = LOCKS / f"{kind}.txt"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "eg-tests" / f"{kind}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    with (folder / "lock").open("w") as alone:  # two runs of the suite at once install once
        fcntl.flock(alone, fcntl.LOCK_EX)
        if (folder / "complete").exists():
            return python, ""
        found = _find_python()
        if found is None:
            return None, f"it needs one of {', '.join(PYTHONS)}"
        shutil.rmtree(folder / "venv", ignore_errors=True)
        for command in (
            [found, "-m", "venv", str(folder / "venv")],
            [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(lock)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                return None, f"{' '.join(command[1:4])} failed, is there a network? {done.stderr[-500:]}"
        (folder / "complete").touch()
    return python, ""


def _find_python() -> str | None:
    for name in PYTHONS:
        if name == f"python3.{sys.version_info.minor}":
            return sys.executable
        if found := shutil.which(name):
            return found
        if versions := sorted(Path("~/.pyenv/versions").expanduser().glob(f"*/bin/{name}")):
            return str(versions[-1])
    return None


class OldNotebook(JupyterServer):
    """``kind`` notebook6: with ``--gateway-url``; nb2kg: the extension, configured as its README says."""

    says_where = r"(http://127\.0\.0\.1:\d+)/\?token"

    def __init__(self, kind: str, python: Path, gateway: Gateway, *, gateway_token: str | None = None) -> None:
        # Not the parent's, which starts a server of this environment.
        self.gateway = gateway
        self.token = secrets.token_hex(20)
        self.folder = gateway.folder / f"server-{secrets.token_hex(3)}"
        self.root = self.folder / "notebooks"
        self.root.mkdir(parents=True)
        self.log_file = self.folder / "server.log"
        self.url = ""
        token = gateway.token if gateway_token is None else gateway_token
        home = self.folder / "home"
        (home / "run").mkdir(parents=True)
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "run"),
            "JUPYTER_TOKEN": self.token,
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
            "KERNEL_USERNAME": "ada",
        }
        command = [str(python), "-m", "notebook", "--ip=127.0.0.1", f"--port={_free_port()}", "--no-browser"]
        command += ["--allow-root", f"--notebook-dir={self.root}"]
        if kind == "nb2kg":
            environ |= {"KG_URL": gateway.url, "KG_AUTH_TOKEN": token}
            command += [f"--NotebookApp.{name}={value}" for name, value in NB2KG.items()]
        else:
            environ |= {"JUPYTER_GATEWAY_AUTH_TOKEN": token}
            command += [f"--gateway-url={gateway.url}"]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environ, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


def _free_port() -> int:
    """Free a moment ago: these servers do not say which port they got for 0, and try others when it is taken."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
