"""Kernels, launchers and gateways that end unasked: everybody is told why, in words, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eg_integration.cgroup import MemoryCgroup
from eg_integration.channels import V1, Channels
from eg_integration.gateway import Gateway
from eg_integration.kernelspecs import FAREWELL
from eg_integration.processes import wait_gone
from eg_integration.waiting import wait_until
from websocket import WebSocketBadStatusException

SLEEPING = "import time\nprint('going', flush=True)\ntime.sleep(600)"


@pytest.fixture(params=[None, V1], ids=["default", "v1"])
def subprotocol(request: pytest.FixtureRequest) -> str | None:
    return request.param


def _dead_model(gateway: Gateway, kernel_id: str, words: str) -> None:
    """The model stays, dead and with the reason; a new socket is refused with it; the gateway's log has it."""
    model = wait_until(
        lambda: (m := gateway.model(kernel_id))["execution_state"] == "dead" and m, "the model to be dead", 20
    )
    assert words in model["reason"]
    assert kernel_id in [one["id"] for one in gateway.list_kernels()]
    with pytest.raises(WebSocketBadStatusException) as refused:
        gateway.connect(kernel_id)
    assert refused.value.status_code == 404
    assert words in (refused.value.resp_body or b"").decode()
    assert words in gateway.log()


def _all_ended(client: Channels, asked: list[str]) -> list[str]:
    """Read until the socket closes; each request has its reply with an error and its idle. The errors' words."""
    closed = client.until_closed(30)
    assert 4000 <= closed.code < 5000, closed
    words = []
    for msg_id in asked:
        mine = [m for m in client.seen if m.parent_id == msg_id]
        replies = [m for m in mine if m.channel in {"shell", "control"}]
        assert [m.content["status"] for m in replies] == ["error"], f"{[m.type for m in mine]}"
        assert [m.content["execution_state"] for m in mine if m.type == "status"][-1] == "idle"
        words.append(str(replies[0].content["evalue"]))
    states = [m.content["execution_state"] for m in client.seen if m.type == "status" and not m.parent]
    assert states[-1] == "dead"
    return [*words, closed.reason]


def test_a_kernel_that_exits_at_once(gateway: Gateway) -> None:
    kernel_id = str(uuid.uuid4())
    answer = gateway.request("POST", "/api/kernels", {"name": "exits", "env": {"KERNEL_ID": kernel_id}})

    assert answer.status == 500
    assert FAREWELL in answer.json["message"]
    assert "3" in answer.json["message"]
    _dead_model(gateway, kernel_id, FAREWELL)
    assert FAREWELL in gateway.request("GET", f"/api/kernels/{kernel_id}/log").json["text"]


def test_a_kernel_whose_program_is_not_there(gateway: Gateway) -> None:
    kernel_id = str(uuid.uuid4())
    answer = gateway.request("POST", "/api/kernels", {"name": "absent", "env": {"KERNEL_ID": kernel_id}})

    assert answer.status == 500
    assert "/nowhere/to/be/found/python" in answer.json["message"]
    _dead_model(gateway, kernel_id, "/nowhere/to/be/found/python")


def test_a_kernel_that_never_answers(new_gateway: Callable[..., Gateway], subprotocol: str | None) -> None:
    gateway = new_gateway().start(env={"EG_KERNEL_LAUNCH_TIMEOUT": "6"})
    body = {"name": "silent", "env": {}}
    answer = gateway.request("POST", "/api/kernels", body, headers={"Prefer": "respond-async"})
    assert answer.status == 201, answer.words
    assert answer.json["execution_state"] == "starting"

    # Its socket opens at once, tells the truth, and takes requests; they end with the launch.
    with gateway.connect(answer.json["id"], subprotocol=subprotocol) as client:
        client.wait_for(lambda m: m.type == "status" and m.content["execution_state"] == "starting", "its state", 5)
        refused = gateway.request("POST", f"/api/kernels/{answer.json['id']}/interrupt", {})
        assert refused.status == 409, refused.words
        asked = [client.execute("1"), client.send("kernel_info_request", {})]
        said = _all_ended(client, asked)
    assert all("answer" in words for words in said), said
    _dead_model(gateway, answer.json["id"], "answer")
    wait_until(lambda: not [p for p in gateway.processes() if "7702" in p.command], "the silent process to be gone")

    answer = gateway.request("POST", "/api/kernels", body)
    assert answer.status == 500
    assert "answer" in answer.json["message"]


def test_a_kernel_that_is_killed(gateway: Gateway, subprotocol: str | None) -> None:
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, subprotocol=subprotocol) as client, gateway.connect(kernel_id) as other:
        running = client.execute(SLEEPING)
        client.wait_for(lambda m: m.type == "stream", "the cell to run")
        waiting = [client.execute("1"), client.send("complete_request", {"code": "a", "cursor_pos": 1})]
        others = [other.execute("2")]
        (kernel,) = gateway.kernels()
        os.kill(kernel.pid, signal.SIGKILL)

        said = _all_ended(client, [running, *waiting]) + _all_ended(other, others)
    assert all("SIGKILL" in words for words in said), said
    _dead_model(gateway, kernel_id, "SIGKILL")

    # It is started again when somebody asks for it, under the same id.
    answer = gateway.request("POST", f"/api/kernels/{kernel_id}/restart", {})
    assert answer.status == 200, answer.words
    with gateway.connect(kernel_id) as client:
        assert client.run("print('back')").text == "back\n"


def test_a_kernel_that_crashes_tells_its_last_words(gateway: Gateway) -> None:
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        # To where ipykernel's own stderr really goes: file descriptor 2 is a pipe back into the kernel.
        words = "import os, sys; os.write(sys.stderr._original_stdstream_copy, b'the disk is on fire\\n')"
        said = _all_ended(client, [client.execute(f"{words}; os._exit(41)")])
    assert "41" in said[0]
    assert "the disk is on fire" in said[0]
    _dead_model(gateway, kernel_id, "the disk is on fire")


def test_a_kernel_that_ends_itself_in_order(gateway: Gateway) -> None:
    """``exit()`` in a cell: told as what it is, and the request that did it has its own reply."""
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        msg_id = client.execute("exit()")
        client.until_closed()
        replies = [m.content["status"] for m in client.seen if m.parent_id == msg_id and m.channel == "shell"]
        assert replies == ["ok"]
    model = wait_until(lambda: (m := gateway.model(kernel_id))["execution_state"] == "dead" and m, "it to be dead")
    assert "exit code 0" in model["reason"] or "ended" in model["reason"]


@pytest.fixture
def memory_cgroup(needs: Callable[..., None]) -> Iterator[MemoryCgroup]:
    made = MemoryCgroup.create(limit=900 << 20)
    needs("memory-cgroup", made, "a memory limit needs a cgroup that can be written to: run as root")
    yield made
    made.remove()


def test_a_kernel_that_runs_out_of_memory(new_gateway: Callable[..., Gateway], memory_cgroup: MemoryCgroup) -> None:
    """Gateway, launcher and kernel share a limit; the kernel must be the one that goes, and be told apart."""
    gateway = new_gateway().start(prefix=memory_cgroup.prefix)
    try:
        kernel_id, neighbour = gateway.start_kernel(), gateway.start_kernel()
        with gateway.connect(kernel_id) as client:
            asked = client.execute("hoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * (8 << 20))")
            said = _all_ended(client, [asked])
        assert all("memory" in words for words in said), said
        _dead_model(gateway, kernel_id, "memory")
        with gateway.connect(neighbour) as client:
            assert client.run("print('alive')").text == "alive\n"
            asked = client.execute(SLEEPING)
            client.wait_for(lambda m: m.type == "stream" and m.parent_id == asked, "the cell to run")
            (kernel,) = gateway.kernels()
            os.kill(kernel.pid, signal.SIGKILL)
            said = _all_ended(client, [asked])
        assert all("SIGKILL" in words and "ran out of memory" not in words for words in said), said
    finally:
        gateway.end()


def test_a_launcher_that_is_killed_leaves_no_process(gateway: Gateway, subprotocol: str | None) -> None:
    kernel_id = gateway.start_kernel("shell")
    with gateway.connect(kernel_id, subprotocol=subprotocol) as client:
        client.run(
            "import subprocess, sys\n"
            "child = subprocess.Popen(['sleep', '7703'])\n"
            "daemon = subprocess.Popen(['bash', '-c', 'setsid sleep 7704 & disown'], start_new_session=True)\n"
            "daemon.wait()\n"
            "import os\n"
            "if os.fork() == 0:\n"
            "    import time; time.sleep(7705)"
        )
        running = client.execute(SLEEPING)
        client.wait_for(lambda m: m.type == "stream" and m.parent_id == running, "the cell to run")
        asked = [running, client.execute("1"), client.send("complete_request", {"code": "a", "cursor_pos": 1})]
        started = gateway.processes()
        for part in ("7700", "7701", "7703", "7704"):
            assert [p for p in started if f"sleep {part}" in p.command], part
        (launcher,) = gateway.launchers()
        os.kill(launcher.pid, signal.SIGKILL)

        wait_gone(started)
        said = _all_ended(client, asked)
    assert all("launcher" in words for words in said), said
    _dead_model(gateway, kernel_id, "launcher")
    # The next kernel gets a new launcher.
    with gateway.connect(gateway.start_kernel()) as client:
        assert client.run("print('on')").text == "on\n"


def test_delete_leaves_no_process(gateway: Gateway) -> None:
    kernel_id = gateway.start_kernel("shell")
    started = [p for p in gateway.processes() if "sleep 770" in p.command or "ipykernel" in p.command]
    assert len(started) >= 3
    gateway.delete_kernel(kernel_id)
    assert gateway.request("GET", f"/api/kernels/{kernel_id}").status == 404
    wait_gone(started)


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6, 1.2])
def test_a_gateway_that_is_killed_mid_launch(new_gateway: Callable[..., Gateway], delay: float) -> None:
    """Whatever had come of the launch by then, nothing of it is left once the gateway runs again."""
    gateway = new_gateway().start()
    body = {"name": "silent", "env": {}}
    answer = gateway.request("POST", "/api/kernels", body, headers={"Prefer": "respond-async"})
    assert answer.status == 201, answer.words
    time.sleep(delay)  # where in the launch it is hit; any place will do
    gateway.stop(signal.SIGKILL)

    gateway.start()
    gateway.delete_kernel(answer.json["id"])  # a launch may be taken up again; then it can be ended
    wait_until(lambda: not gateway.list_kernels(), "no kernel to be left at the gateway")
    wait_until(lambda: not [p for p in gateway.processes() if "7702" in p.command], "the process to be gone", 30)
    # And the gateway works.
    with gateway.connect(gateway.start_kernel()) as client:
        assert client.run("print('on')").text == "on\n"


def test_a_gateway_that_is_killed_and_stays_away(new_gateway: Callable[..., Gateway]) -> None:
    """The lease: launcher and kernels end by themselves."""
    gateway = new_gateway().start("--EnterpriseGatewayApp.lease=4")
    gateway.start_kernel("shell")
    answer = gateway.request("POST", "/api/kernels", {"name": "silent"}, headers={"Prefer": "respond-async"})
    assert answer.status == 201
    wait_until(lambda: [p for p in gateway.processes() if "7702" in p.command], "the silent kernel's process")
    started = gateway.processes()
    gateway.stop(signal.SIGKILL)
    assert [p for p in started if p.alive()], "they must outlive the gateway for a while"
    wait_gone(started, 30)


def test_kernels_outlive_a_gateway(new_gateway: Callable[..., Gateway]) -> None:
    """Killed, and told to end by SIGTERM: the kernels keep their variables. By SIGINT: they end with it."""
    gateway = new_gateway().start()
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        client.run("kept = 7")
    for how in (signal.SIGKILL, signal.SIGTERM):
        gateway.stop(how)
        gateway.start()
        with gateway.connect(kernel_id) as client:
            assert client.value("kept") == 7
    started = gateway.processes()
    gateway.stop(signal.SIGINT, 10)
    wait_gone(started)
    assert not list((Path(gateway.folder) / "run").rglob("*.sock"))
