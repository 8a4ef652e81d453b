"""Every end of a kernel has one code and one sentence, the same wherever it is told: in the REST model, in the record
of events, in the metrics, and the sentence in the notebook, too."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from eg_integration.cgroup import MemoryCgroup
from eg_integration.gateway import Gateway
from eg_integration.kernelspecs import FAREWELL, IPYKERNEL
from eg_integration.waiting import wait_until

CONFIG = """
import logging
c.EventLogger.handlers = [logging.FileHandler({events!r})]
c.MappingKernelManager.cull_interval = 0.5
c.EnterpriseGatewayApp.poll_interval = 0.5
"""
HOARD = "hoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * (8 << 20))"
SLEEPING = "import time\nprint('going', flush=True)\ntime.sleep(600)"
COUNTERS = {"died": "eg_kernel_deaths_total", "culled": "eg_kernel_deaths_total"}
FAILURES = "eg_launch_failures_total"


class Told:
    """A gateway that records its events, and what it tells of an end in each place."""

    def __init__(self, gateway: Gateway, *args: str, **start: Any) -> None:
        self.gateway = gateway
        self.events = gateway.folder / "events.jsonl"
        self.config = gateway.folder / "config.py"
        self.config.write_text(CONFIG.format(events=str(self.events)))
        for name, stanza in (("culled", {"cull_idle_timeout": 1}), ("late", {"launch_timeout": 2})):
            spec = gateway.folder / "jupyter" / "kernels" / name
            spec.mkdir()
            argv = IPYKERNEL if name == "culled" else ["sleep", "7702"]
            content = {"argv": argv, "display_name": name, "language": "python", "metadata": {"eg": stanza}}
            (spec / "kernel.json").write_text(json.dumps(content))
        gateway.start(f"--config={self.config}", *args, **start)

    def begin(self, kernelspec: str) -> str:
        answer = self.gateway.request("POST", "/api/kernels", {"name": kernelspec}, headers={"Prefer": "respond-async"})
        assert answer.status == 201, answer.words
        return str(answer.json["id"])

    def event(self, kernel_id: str, name: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in self.events.read_text().splitlines()]
            return [line for line in lines if (line["kernel_id"], line["event"]) == (kernel_id, name)]

        return wait_until(found, f"the event {name} of kernel {kernel_id}")[-1]

    def count(self, name: str, code: str) -> float:
        text = self.gateway.request("GET", "/metrics").body.decode()
        found = re.search(rf'^{name}{{backend="local",reason="{code}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def check_dead(self, kernel_id: str, code: str, event: str = "died") -> str:
        """Dead for that reason, wherever one looks; the sentence."""
        model = wait_until(
            lambda: (m := self.gateway.model(kernel_id)).get("reason_code") and m, f"{kernel_id} to be dead", 30
        )
        assert model["execution_state"] == "dead"
        assert model["reason_code"] == code, model
        assert model["reason"]
        told = self.event(kernel_id, event)
        assert (told["reason"], told["message"]) == (code, model["reason"])
        assert self.count(COUNTERS.get(event, FAILURES), code) == 1
        assert model["reason"] in self.gateway.log()
        return str(model["reason"])


@pytest.fixture
def told(new_gateway: Callable[..., Gateway]) -> Told:
    return Told(new_gateway())


def _ends_in_the_notebook(told: Told, kernel_id: str, code: str, kill: Callable[[], None]) -> str:
    """What the cell that ran is told; it is what everybody is told."""
    with told.gateway.connect(kernel_id) as client:
        running = client.execute(SLEEPING)
        client.wait_for(lambda m: m.type == "stream" and m.parent_id == running, "the cell to run")
        kill()
        done = client.finish(running)
    sentence = told.check_dead(kernel_id, code)
    assert done.reply["status"] == "error"
    assert str((done.error or {})["evalue"]).strip() == sentence.strip()
    return sentence


def test_a_kernel_that_ends_by_itself_by_a_signal_or_with_its_launcher(told: Told) -> None:
    gateway = told.gateway
    exited = gateway.start_kernel()
    with gateway.connect(exited) as client:
        done = client.finish(client.execute("import os; os._exit(41)"))
    assert done.reply["evalue"] == told.check_dead(exited, "exited")
    signalled = gateway.start_kernel()
    (kernel,) = gateway.kernels()
    _ends_in_the_notebook(told, signalled, "signalled", lambda: os.kill(kernel.pid, signal.SIGTERM))
    lost = gateway.start_kernel()
    launcher = next(one for one in gateway.processes() if "-m eg_launcher spawn " in one.command)
    with gateway.connect(lost) as client:
        os.kill(launcher.pid, signal.SIGKILL)
        closed = client.until_closed()
    assert closed.code == 4003
    assert told.check_dead(lost, "lost_contact").startswith(closed.reason[:100])
    # A restart makes it a living kernel again, and its end is somebody's wish.
    assert gateway.request("POST", f"/api/kernels/{lost}/restart", {}).status == 200
    assert "reason_code" not in gateway.model(lost)
    gateway.delete_kernel(lost)
    ended = told.event(lost, "ended")
    assert (ended["reason"], ended["message"]) == ("shutdown", "The kernel was shut down.")
    # A dead one's record goes, and why it died is told once more.
    gateway.delete_kernel(exited)
    assert told.event(exited, "ended")["reason"] == "exited"


def test_a_kernel_that_never_ran(told: Told) -> None:
    gateway = told.gateway
    assert "/nowhere/" in told.check_dead(told.begin("absent"), "exec_failed", "launch_failed")
    assert FAREWELL in told.check_dead(told.begin("exits"), "exited")
    late = told.begin("late")
    told.check_dead(late, "launch_timeout", "launch_failed")
    cancelled = told.begin("silent")
    gateway.delete_kernel(cancelled)
    ended = told.event(cancelled, "ended")
    assert ended["reason"] == "cancelled"
    assert "while it was starting" in ended["message"]
    assert told.count(FAILURES, "cancelled") == 1


def test_a_launch_that_a_killed_gateway_had_begun(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway()
    slow = [sys.executable, "-c", "import time; time.sleep(7703)"]
    told = Told(gateway, f"--LocalBackend.launcher_command={slow}")
    kernel_id = told.begin("silent")
    wait_until(lambda: [one for one in gateway.processes() if "7703" in one.command], "its launcher to be started")
    gateway.stop(signal.SIGKILL)
    gateway.start(f"--config={told.config}")
    assert "start it again" in told.check_dead(kernel_id, "gateway_ended", "launch_failed")


def test_a_kernel_that_nobody_used(told: Told) -> None:
    kernel_id = told.gateway.start_kernel("culled")
    assert "cull_idle_timeout" in told.check_dead(kernel_id, "culled_idle", "culled")


@pytest.fixture
def memory_cgroup(needs: Callable[..., None]) -> Iterator[MemoryCgroup]:
    made = MemoryCgroup.create(limit=900 << 20)
    needs("memory-cgroup", made, "a memory limit needs a cgroup that can be written to: run as root")
    yield made
    made.remove()


def test_a_kernel_that_ran_out_of_memory(new_gateway: Callable[..., Gateway], memory_cgroup: MemoryCgroup) -> None:
    told = Told(new_gateway(), prefix=memory_cgroup.prefix)
    try:
        kernel_id = told.gateway.start_kernel()
        with told.gateway.connect(kernel_id) as client:
            done = client.finish(client.execute(HOARD), 60)
        assert done.reply["evalue"] == told.check_dead(kernel_id, "oom_killed")
    finally:
        told.gateway.end()
