"""Who is measured: our gateway, the two incumbents, and two floors, each started on loopback in a folder of its own.

A gateway has its default configuration but for what ``Gateway.differs`` says; it finds two kernelspecs, ``stub`` and
``ipykernel``, which run in this Python whoever starts them, and for measurements with many kernels ``many``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes, venvs
from benchmarks.client import Failed, call

HERE = Path(__file__).resolve().parent
STUB = HERE / "stub_kernel.py"
START_TIMEOUT = 60.0


@dataclass
class Contestant:
    """Something that answers on a port."""

    name: str
    folder: Path
    command: Sequence[str]
    differs: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    watched: bool = False
    port: int = 0
    pid: int = 0

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def report(self) -> Path:
        return self.folder / "loop.json"

    def start(self, port: int = 0) -> None:
        """On any port, or on this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        environ = {name: value for name, value in os.environ.items() if name in PASSED_ON}
        environ.update(
            HOME=str(self.folder),
            JUPYTER_PATH=str(self.folder.parent / "jupyter"),
            JUPYTER_CONFIG_DIR=str(self.folder / "config"),
            JUPYTER_DATA_DIR=str(self.folder / "data"),
            JUPYTER_RUNTIME_DIR=str(self.folder / "runtime"),
            XDG_RUNTIME_DIR=str(self.folder / "xdg"),
        )
        (self.folder / "xdg").mkdir(mode=0o700, exist_ok=True)
        python, *rest = [part.replace("{port}", str(self.port)) for part in self.command]
        watch = [str(HERE / "loop_watch.py"), str(self.report)] if self.watched else []
        self.pid = processes.start([python, *watch, *rest], {**environ, **self.env}, self.log)
        until(self.answers, f"{self.name} answers; {self.log} says what is wrong", START_TIMEOUT)

    def answers(self) -> bool:
        if not processes.exists(self.pid):
            raise Failed(f"{self.name} ended: {self.log.read_text()[-2000:]}")
        try:
            return call(self.port, "GET", "/api", timeout=5.0)[0] == 200
        except Failed:
            return False

    def launcher(self) -> int | None:
        """The process that relays for this gateway, where that is another one."""
        mine = str(self.folder)
        for pid in processes.tree([os.getpid()]):
            words = processes.command_line(pid)
            if "eg_launcher" in words and "spawn" in words and any(word.startswith(mine) for word in words):
                return pid
        return None

    def kill(self) -> None:
        """Its own process alone."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not processes.exists(self.pid), f"{self.name} is gone", 10.0)

    def stop(self) -> None:
        """At once, with its launcher and all kernels."""
        launcher = self.launcher()
        processes.end([pid for pid in (self.pid, launcher) if pid])

    # -- the loop's longest callback ---------------------------------------------------------------------------

    def watch_from_now(self) -> None:
        os.kill(self.pid, signal.SIGUSR1)

    def watched_until_now(self) -> dict[str, object]:
        self.report.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        until(self.report.exists, "the loop's report", 10.0)
        report: dict[str, object] = json.loads(self.report.read_text())
        return report


PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "SHELL", "TZ", "OPENBLAS_CORETYPE")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def until(condition: Callable[[], object], what: str, seconds: float, every: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(every)


def write_kernelspecs(folder: Path) -> Path:
    """``stub``, ``ipykernel`` and ``many``. The path of the pipe on which ``many`` asks for a kernel."""
    pipe = folder / "many.fifo"
    os.mkfifo(pipe)
    hand_over = f'printf "%s %s\\n" "$$" "$1" > "{pipe}"; exec sleep 1800'
    specs = {
        "stub": [sys.executable, str(STUB), "{connection_file}"],
        "ipykernel": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "many": ["/bin/sh", "-c", hand_over, "stub", "{connection_file}"],
    }
    for name, argv in specs.items():
        spec = folder / "jupyter" / "kernels" / name
        spec.mkdir(parents=True)
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"}))
    return pipe


def start_many_host(folder: Path, pipe: Path) -> int:
    """The process in which the kernels of ``many`` live; the gateways' own processes are stand-ins."""
    reader = os.open(pipe, os.O_RDWR)  # for writing, too, so that it never ends
    try:
        return processes.start([sys.executable, str(STUB), "--many"], os.environ, folder / "many.log", stdin=reader)
    finally:
        os.close(reader)


def eg(folder: Path, *, watched: bool = False) -> Contestant:
    name = "eg-watched" if watched else "eg"
    command = [sys.executable, "-m", "eg_core", "serve", "--port={port}"]
    return Contestant(name, folder / name, command, "nothing", watched=watched)


def eg_bare(folder: Path) -> Contestant:
    """Our launcher keeps what a client has not read yet, and no more than memory holds."""
    options = [f"--EnterpriseGatewayApp.{one}" for one in ("journal_disk=0", "replay=False")]
    command = [sys.executable, "-m", "eg_core", "serve", "--port={port}", *options]
    return Contestant("eg-bare", folder / "eg-bare", command, "no journal")


UNLIMITED = "the limit of 1,000 messages a second, above which it drops them, is off"


def enterprise_gateway(folder: Path, *, watched: bool = False) -> Contestant:
    name = "EG-watched" if watched else "EG"
    python = venvs.incumbent("EG")
    command = [str(python), "-m", "enterprise_gateway", "--EnterpriseGatewayApp.port={port}"]
    command += ["--EnterpriseGatewayApp.port_retries=0", "--ZMQChannelsHandler.limit_rate=False"]
    env = {"EG_LIST_KERNELS": "True"}
    differs = f"EG_LIST_KERNELS=True (GET /api/kernels is 403 otherwise); {UNLIMITED}"
    if os.geteuid() == 0:
        env["EG_PROHIBITED_UIDS"] = "65534"
        differs += "; EG_PROHIBITED_UIDS without 0 (the run is root's)"
    return Contestant(name, folder / name, command, differs, env, watched)


def kernel_gateway(folder: Path, *, watched: bool = False) -> Contestant:
    name = "KG-watched" if watched else "KG"
    python = venvs.incumbent("KG")
    command = [str(python), "-m", "kernel_gateway", "--KernelGatewayApp.port={port}"]
    command += ["--KernelGatewayApp.port_retries=0", "--ZMQChannelsWebsocketConnection.limit_rate=False"]
    differs = f"KG_LIST_KERNELS=True (GET /api/kernels is 403 otherwise); {UNLIMITED}"
    return Contestant(name, folder / name, command, differs, {"KG_LIST_KERNELS": "True"}, watched)


def bare_tornado(folder: Path) -> Contestant:
    command = [sys.executable, str(HERE / "bare_tornado.py"), "{port}"]
    return Contestant("tornado", folder / "tornado", command, "answers from memory; no kernel, no authentication")


GATEWAYS: dict[str, Callable[..., Contestant]] = {"eg": eg, "EG": enterprise_gateway, "KG": kernel_gateway}
