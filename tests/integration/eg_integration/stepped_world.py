"""A gateway that can be stopped at any step, with a kernel that nobody touches; what of it the host, the store's file
and its API say, and whether they agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eg_integration.gateway import Gateway
from eg_integration.kernelspecs import IPYKERNEL
from eg_integration.processes import Found, wait_gone
from eg_integration.steps import Steps
from eg_integration.waiting import wait_until

STUB = Path(__file__).parents[3] / "benchmarks/stub_kernel.py"
OWNER = "ann"
CONFIG = """
c.EnterpriseGatewayApp.backends = {"elsewhere": {"type": "local"}}
c.EnterpriseGatewayApp.poll_interval = 0.5
c.EnterpriseGatewayApp.lease = 30
c.LocalBackend.stray_age = 1
c.MappingKernelManager.cull_interval = 0.5
"""
AGAIN = 'if [ -e "{folder}/flags/$KERNEL_ID" ]; then {then}; fi; exec {python} {stub} "$1"'
PENDING = ("launching", "starting", "restarting")


def start_gateway(gateway: Gateway, **more: str) -> Gateway:
    """Its program is ``stepping_gateway.py``."""
    env = {"EG_TEST_STEPS": str(gateway.folder / "steps"), **more}
    return gateway.start(f"--config={gateway.folder / 'config.py'}", env=env)


@dataclass(frozen=True)
class Row:
    """A kernel's row in the store's file, read without the gateway."""

    kernel_id: str
    state: str
    owner: str
    reason: str | None
    message: str | None
    process: dict[str, Any] | None


class World:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.steps = Steps(gateway.folder / "steps")
        (gateway.folder / "flags").mkdir()
        (gateway.folder / "config.py").write_text(CONFIG)
        _write_kernelspecs(gateway.folder)
        start_gateway(gateway)
        self.bystander = gateway.start_kernel("elsewhere", {"KERNEL_USERNAME": OWNER})
        with gateway.connect(self.bystander) as client:
            client.run("kept = 7")
        self.bystanders_pid = self.row(self.bystander).process["pid"]
        (launcher,) = self._launchers()
        self.bystanders_launcher = launcher.pid

    # -- what the host and the store's file say -------------------------------------------------------------

    def rows(self) -> dict[str, Row]:
        with self._reading() as store:
            found = store.execute("select kernel_id, state, owner, reason, message, process from eg_kernels").fetchall()
        return {row[0]: Row(*row[:5], json.loads(row[5]) if row[5] else None) for row in found}

    def row(self, kernel_id: str) -> Row:
        return self.rows()[kernel_id]

    def state(self, kernel_id: str) -> str | None:
        """None: it has no row."""
        row = self.rows().get(kernel_id)
        return row and row.state

    def launcher_of(self, kernel_id: str) -> str:
        with self._reading() as store:
            found = store.execute("select handle from eg_kernels where kernel_id = ?", (kernel_id,)).fetchone()
        return str(json.loads(found[0])["launcher_id"])

    def launcher_rows(self) -> list[str]:
        with self._reading() as store:
            return [row[0] for row in store.execute("select launcher_id from eg_launchers")]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        file = self.gateway.folder / "data" / "eg.db"
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as store:
            yield store

    def processes_of(self, kernel_id: str) -> list[Found]:
        """Every process that was started with this kernel's environment."""
        return [one for one in self.gateway.processes() if f"KERNEL_ID={kernel_id}\0" in f"{one.environ}\0"]

    def launchers(self) -> list[Found]:
        """Those that are not the bystander's: of the backend that everything happens on."""
        return [one for one in self._launchers() if one.pid != self.bystanders_launcher]

    def _launchers(self) -> list[Found]:
        return [one for one in self.gateway.processes() if "-m eg_launcher spawn " in one.command]

    # -- what happens to it ---------------------------------------------------------------------------------

    def kill_gateway(self) -> None:
        self.gateway.stop(signal.SIGKILL)
        self.steps.clear()

    def next_start_is_another(self, kernel_id: str) -> None:
        """From now on ``falls-again`` falls, and ``mute-again`` is mute."""
        (self.gateway.folder / "flags" / kernel_id).touch()

    def kill_launchers(self) -> bool:
        """Whether there was one."""
        return _kill(self.launchers())

    def kill_kernel(self, kernel_id: str) -> bool:
        return _kill(self.processes_of(kernel_id))

    def until_state(self, kernel_id: str, state: str | None) -> None:
        wait_until(lambda: self.state(kernel_id) == state, f"kernel {kernel_id} to be {state} in the store's file", 30)

    def told(self) -> str:
        """The gateway's log, without who has asked how it is."""
        return "\n".join(line for line in self.gateway.log().splitlines() if "] 200 GET " not in line)

    # -- whether all agree ----------------------------------------------------------------------------------

    def disagreements(self, kernel_id: str, *, may_wait: bool = False) -> list[str]:
        """What is wrong with this kernel as store, host and API have it; ``may_wait``: it may be starting."""
        row = self.rows().get(kernel_id)
        pids = {one.pid for one in self.processes_of(kernel_id)}
        answer = self.gateway.request("GET", f"/api/kernels/{kernel_id}")
        if row is None:
            return _wrong([(bool(pids), f"without a row it has processes {pids}"),
                           (answer.status != 404, f"without a row it is {answer.body!r}")])  # fmt: skip
        if answer.status != 200:
            return [f"its row says {row.state}, the API {answer.status} {answer.words}"]
        model = answer.json
        wrong = [(row.owner != OWNER, f"it belongs to {row.owner}")]
        if row.state == "ready":
            pid = (row.process or {}).get("pid")
            wrong += [(pid not in pids, f"ready without its process {pid}: {pids}"),
                      (model["execution_state"] not in {"idle", "busy"}, f"ready, and told as {model}")]  # fmt: skip
        elif row.state == "dead":
            words, told = (row.reason, row.message), (model.get("reason_code"), model.get("reason"))
            wrong += [(bool(pids), f"dead with processes {pids}"),
                      (not all(words), f"dead without a reason: {words}"),
                      (told != words, f"dead of {words}, told {told}")]  # fmt: skip
        else:
            wrong += [(not (may_wait and row.state in PENDING and pids), f"still {row.state}")]
        return _wrong(wrong)

    def strays(self) -> list[str]:
        """Launchers that no row in the store knows, by their sockets' names."""
        known = [f"/{launcher_id[:16]}.sock" for launcher_id in self.launcher_rows()]
        found = [one.command for one in self._launchers()]
        return [command for command in found if not any(name in command for name in known)]

    def check_bystander(self) -> None:
        """Served as it was: state, process, owner, variables."""
        row = self.row(self.bystander)
        assert (row.state, row.owner, (row.process or {}).get("pid")) == ("ready", OWNER, self.bystanders_pid)
        wait_until(
            lambda: self.gateway.model(self.bystander)["execution_state"] == "idle", "the bystander to be idle again"
        )
        with self.gateway.connect(self.bystander) as client:
            assert client.value("kept") == 7

    def check_works(self, kernel_id: str) -> None:
        with self.gateway.connect(kernel_id) as client:
            said = client.run("who are you?").text
        assert int(said) in {one.pid for one in self.processes_of(kernel_id)}

    def check_nothing_left(self) -> None:
        """After a last launch, which clears up behind launchers that were killed, all is ended, and nothing is left of
        it: rows, processes, sockets, files."""
        self.kill_launchers()
        for folder in (self.gateway.folder / "tmp").iterdir():
            os.utime(folder, (time.time() - 120,) * 2)  # the next launcher takes it for one of a killed one's
        self.kill_gateway()
        start_gateway(self.gateway, EG_TEST_KEEP_UNUSED="1")  # seconds, instead of an hour
        self.gateway.start_kernel("light")
        wait_until(lambda: len(self.launcher_rows()) == 2, "the rows of launchers that never were to go", 20)
        started = self.gateway.processes()
        self.gateway.stop(signal.SIGINT, 30)
        wait_gone(started, 60)
        assert self.gateway.processes() == []
        assert self.rows() == {}
        assert str(self.gateway.folder) not in Path("/proc/net/unix").read_text()
        kept = {".log", ".err", ".json"}  # of the last launchers: their logs, and that there was one
        files = [path for part in ("run", "tmp") for path in (self.gateway.folder / part).rglob("*") if path.is_file()]
        assert [path for path in files if path.suffix not in kept and path.name != "lock"] == []
        assert len([path for path in files if path.suffix == ".json"]) <= 2


def _kill(found: list[Found]) -> bool:
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    wait_gone(found)
    return bool(found)


def _wrong(found: list[tuple[bool, str]]) -> list[str]:
    return [words for is_wrong, words in found if is_wrong]


def _write_kernelspecs(folder: Path) -> None:
    for name, (argv, stanza) in _kernelspecs(folder):
        spec = folder / "jupyter" / "kernels" / name
        spec.mkdir(parents=True)
        content = {"argv": argv, "display_name": name, "language": "python", "env": {}, "metadata": {"eg": stanza}}
        (spec / "kernel.json").write_text(json.dumps(content))


def _kernelspecs(folder: Path) -> Iterator[tuple[str, tuple[list[str], dict[str, Any]]]]:
    light = [sys.executable, str(STUB), "{connection_file}"]
    again = {"folder": folder, "python": sys.executable, "stub": STUB}

    def only_once(then: str) -> list[str]:
        return ["bash", "-c", AGAIN.format(then=then, **again), "once", "{connection_file}"]

    yield "elsewhere", (IPYKERNEL, {"backend": "elsewhere"})
    yield "light", (light, {})
    yield "culled", (light, {"cull_idle_timeout": 1})
    yield "falls", (["bash", "-c", "exit 3", "{connection_file}"], {})
    yield "late", (["sleep", "7706"], {"launch_timeout": 2})
    yield "mute", (["sleep", "7706"], {})
    yield "falls-again", (only_once("exit 3"), {})
    yield "mute-again", (only_once("exec sleep 7706"), {})
