"""Kernels that a limit ends, and what launchers limit: options under the names that sites have in their files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from eg_integration.gateway import Gateway
from eg_integration.waiting import wait_until
from websocket import WebSocketBadStatusException

CONFIG = """
c.MappingKernelManager.cull_idle_timeout = 1
c.RemoteMappingKernelManager.cull_interval = 0.2
c.RemoteKernelManager.cull_connected = False
c.AsyncMappingKernelManager.cull_busy = False
c.SeedingMappingKernelManager.allow_tracebacks = False
c.RemoteMappingKernelManager.traceback_replacement_message = "ask the operator"
c.MappingKernelManager.allowed_message_types = ["execute_request", "kernel_info_request"]
c.ZMQChannelsWebsocketConnection.iopub_msg_rate_limit = 50
"""


def _dead(gateway: Gateway, kernel_id: str, reason: str) -> dict[str, Any]:
    model = wait_until(
        lambda: (m := gateway.model(kernel_id))["execution_state"] == "dead" and m, f"{kernel_id} to be culled", 20
    )
    assert model["reason_code"] == reason
    return dict(model)


def test_the_names_of_enterprise_gateways_files(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway()
    config = gateway.folder / "jupyter_enterprise_gateway_config.py"
    config.write_text(CONFIG)
    gateway.start(f"--config={config}")
    kept, idle = gateway.start_kernel(), gateway.start_kernel()
    with gateway.connect(kept) as client:
        model = _dead(gateway, idle, "culled_idle")
        assert "cull_idle_timeout" in model["reason"]
        with pytest.raises(WebSocketBadStatusException) as refused:
            gateway.connect(idle)
        assert refused.value.status_code == 404
        assert "nothing has happened" in (refused.value.resp_body or b"").decode()

        error = client.run("secret = 1\nraise ValueError('secret')")
        assert (error.error or {})["traceback"] == ["ask the operator"] == error.reply["traceback"]
        refused_reply = client.finish(client.send("history_request", {})).reply
        assert refused_reply["ename"] == "MessageNotAllowed"
        assert "IOPub message rate exceeded" in client.run("for i in range(500):\n    print(i, flush=True)").text
        assert gateway.model(kept)["execution_state"] == "idle"  # somebody is connected
    _dead(gateway, kept, "culled_idle")
    wait_until(lambda: not gateway.kernels(), "their processes to be gone")
    assert gateway.request("POST", f"/api/kernels/{kept}/restart", {}).status == 200


def test_an_idle_kernels_clients_are_told(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start(env={"EG_CULL_IDLE_TIMEOUT": "2", "EG_CULL_INTERVAL": "0.2"})
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        began = time.monotonic()
        client.run("import time; time.sleep(2.5)")  # a cell is not idleness, however long
        assert time.monotonic() - began > 2.4
        closed = client.until_closed()
        assert client.seen[-1].content["execution_state"] == "dead"
    assert closed.code == 4002
    assert "nothing has happened for" in closed.reason
    assert _dead(gateway, kernel_id, "culled_idle")["reason"].startswith(closed.reason[:100])


def test_a_cell_that_runs_too_long_is_ended_in_words(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start(env={"EG_CULL_BUSY_TIMEOUT": "1", "EG_CULL_INTERVAL": "0.2"})
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        asked = client.execute("import time\nfor i in range(600):\n    print(i, flush=True); time.sleep(0.1)")
        closed = client.until_closed()
        replies = [m for m in client.seen if m.parent_id == asked and m.channel == "shell"]
        assert [m.content["status"] for m in replies] == ["error"]
        assert "one cell has been running for" in replies[0].content["evalue"]
    assert closed.code == 4002
    assert "one cell has been running for" in closed.reason
    _dead(gateway, kernel_id, "culled_busy")


def test_a_kernelspec_has_its_own_limits(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway()
    for name, metadata in {"old": {"eg": {"cull_max_age": 6}}, "idle": {"cull_idle_timeout": 1}}.items():
        spec = json.loads((gateway.folder / "jupyter" / "kernels" / "python3" / "kernel.json").read_text())
        folder = gateway.folder / "jupyter" / "kernels" / name
        folder.mkdir()
        (folder / "kernel.json").write_text(json.dumps({**spec, "metadata": metadata}))
    gateway.start("--RemoteMappingKernelManager.cull_interval=0.2")
    kernels = {name: gateway.start_kernel(name) for name in ("old", "idle", "python3")}
    with gateway.connect(kernels["old"]) as client:
        client.execute("import time; time.sleep(600)")
        _dead(gateway, kernels["old"], "culled_age")
    _dead(gateway, kernels["idle"], "culled_idle")
    assert gateway.model(kernels["python3"])["execution_state"] == "idle"
