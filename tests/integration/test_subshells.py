"""Two subshells of one kernel beside its main shell: all run at once, and the kernel is what its main shell is."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from eg_integration.channels import V1, Channels
from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer
from eg_integration.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.skipif(int(version("ipykernel").split(".")[0]) < 7, reason="this ipykernel has no subshells"),
]

REQUEST = {"silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
EVENTS = "import threading\nfirst, second, main = (threading.Event() for _ in range(3))"


class Subshells:
    """What a client says about them, over control."""

    def __init__(self, client: Channels) -> None:
        self.client = client

    def _ask(self, what: str, **content: str) -> dict[str, object]:
        reply = self.client.finish(self.client.send(f"{what}_subshell_request", content, channel="control")).reply
        assert reply["status"] == "ok", reply
        return reply

    def create(self) -> str:
        return str(self._ask("create")["subshell_id"])

    def delete(self, subshell: str) -> None:
        self._ask("delete", subshell_id=subshell)

    def ids(self) -> object:
        return self._ask("list")["subshell_id"]

    def start(self, subshell: str | None, code: str) -> str:
        """Run code in a subshell, or in the main shell, that says "at it"; its msg_id when it does."""
        content = {**REQUEST, "code": f"print('at it', flush=True)\n{code}"}
        msg_id = self.client.send("execute_request", content, subshell_id=subshell)
        self.client.wait_for(lambda m: m.type == "stream" and m.parent_id == msg_id, f"{code!r} to run")
        return msg_id

    def run(self, subshell: str, code: str) -> str:
        content = {**REQUEST, "code": code}
        return self.client.finish(self.client.send("execute_request", content, subshell_id=subshell)).text


def _check_two_subshells(client: Channels, gateway: Gateway, kernel_id: str) -> None:
    shells = Subshells(client)

    def is_and_stays(state: str) -> None:
        """The model follows the socket by some milliseconds: wait for it, then let no round trip change it."""
        wait_until(lambda: gateway.model(kernel_id)["execution_state"] == state, f"the kernel to be {state}", 5)
        for _ in range(5):
            shells.ids()
            assert gateway.model(kernel_id)["execution_state"] == state

    client.run(EVENTS)
    one, two = shells.create(), shells.create()
    assert one != two
    assert sorted(shells.ids()) == sorted([one, two])  # type: ignore[call-overload]

    # Both subshells at work, the main shell free: the kernel is idle, and takes a cell.
    in_one = shells.start(one, "first.wait(30); print('one')")
    in_two = shells.start(two, "second.wait(30); print('two')")
    is_and_stays("idle")
    assert client.run("print('main')").text == "main\n"
    is_and_stays("idle")

    # All three at work: busy. The subshells' ends change nothing about that.
    in_main = shells.start(None, "main.wait(30); print('of main')")
    is_and_stays("busy")
    third = shells.create()
    shells.run(third, "first.set()")
    assert client.finish(in_one).text == "at it\none\n"
    is_and_stays("busy")
    shells.run(third, "second.set()")
    assert client.finish(in_two).text == "at it\ntwo\n"
    is_and_stays("busy")
    assert shells.run(one, "print('one is free')") == "one is free\n"
    shells.run(two, "main.set()")
    assert client.finish(in_main).text == "at it\nof main\n"
    is_and_stays("idle")

    for subshell in (one, two, third):
        shells.delete(subshell)
    assert shells.ids() == []
    assert client.run("print('goes on')").text == "goes on\n"


@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
def test_two_subshells_and_the_main_shell(gateway: Gateway, subprotocol: str | None) -> None:
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, subprotocol=subprotocol) as client:
        _check_two_subshells(client, gateway, kernel_id)


def test_two_subshells_through_jupyter_server(gateway: Gateway) -> None:
    with JupyterServer(gateway) as server:
        kernel_id = server.request("POST", "/api/kernels", {"name": "python3"}).json["id"]
        with server.connect(kernel_id) as client:
            _check_two_subshells(client, gateway, kernel_id)


@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
def test_a_second_client_while_a_subshell_works(gateway: Gateway, subprotocol: str | None) -> None:
    """Who comes later is told of the main shell, not of whichever status was last."""
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, subprotocol=subprotocol) as client:
        shells = Subshells(client)
        client.run(EVENTS)
        one = shells.create()
        working = shells.start(one, "first.wait(30)")
        with gateway.connect(kernel_id, subprotocol=subprotocol) as late:
            told = late.wait_for(lambda m: m.type == "status", "the first status")
            assert told.content["execution_state"] == "idle"
        in_main = shells.start(None, "main.wait(30)")
        shells.run(shells.create(), "first.set()")
        client.finish(working)
        with gateway.connect(kernel_id, subprotocol=subprotocol) as late:
            told = late.wait_for(lambda m: m.type == "status", "the first status")
            assert told.content["execution_state"] == "busy"
        shells.run(one, "main.set()")
        client.finish(in_main)
