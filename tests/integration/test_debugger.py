"""What JupyterLab's debugger says, over control and through the gateway; kernel subshells."""

from __future__ import annotations

import itertools
from importlib.metadata import version
from typing import Any

import pytest
from eg_integration.channels import V1, Channels
from eg_integration.gateway import Gateway

CODE = "x = 41\nx += 1\nprint(x)\n"


@pytest.fixture(params=[None, V1], ids=["default", "v1"])
def subprotocol(request: pytest.FixtureRequest) -> str | None:
    return request.param


class Debugger:
    def __init__(self, client: Channels) -> None:
        self.client = client
        self.numbers = itertools.count(1)

    def __call__(self, command: str, **arguments: Any) -> Any:
        content = {"type": "request", "seq": next(self.numbers), "command": command, "arguments": arguments}
        done = self.client.finish(self.client.send("debug_request", content, channel="control"))
        assert done.reply["success"], done.reply
        return done.reply.get("body")


def test_a_breakpoint(gateway: Gateway, subprotocol: str | None) -> None:
    kernel_id = gateway.start_kernel(env={"KERNEL_X": "y"})
    with gateway.connect(kernel_id, subprotocol=subprotocol) as client:
        debug = Debugger(client)
        assert debug("initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True)
        debug("attach")
        source = debug("dumpCell", code=CODE)
        debug("setBreakpoints", source={"path": source["sourcePath"]}, breakpoints=[{"line": 2}])
        debug("configurationDone")
        running = client.execute(CODE)
        event = client.wait_for(lambda m: m.type == "debug_event" and m.content["event"] == "stopped", "a stop")
        thread = event.content["body"]["threadId"]
        assert gateway.model(kernel_id)["execution_state"] == "busy"
        assert debug("stackTrace", threadId=thread)["stackFrames"][0]["line"] == 2
        debug("continue", threadId=thread)
        assert client.finish(running).text == "42\n"
        debug("disconnect", restart=False, terminateDebuggee=False)
    assert gateway.model(kernel_id)["execution_state"] == "idle"


@pytest.mark.skipif(int(version("ipykernel").split(".")[0]) < 7, reason="this ipykernel has no subshells")
def test_a_subshell_answers_while_a_cell_runs(gateway: Gateway, subprotocol: str | None) -> None:
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, subprotocol=subprotocol) as client:
        made = client.finish(client.send("create_subshell_request", {}, channel="control"))
        subshell = made.reply["subshell_id"]
        request = {"silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}

        def beside(code: str) -> str:
            return client.send("execute_request", {**request, "code": code}, subshell_id=subshell)

        cell = client.execute("import time\nwhile 'enough' not in globals(): time.sleep(0.01)\nprint('main')")
        assert client.finish(beside("print('beside')")).text == "beside\n"
        assert gateway.model(kernel_id)["execution_state"] == "busy"
        client.finish(beside("enough = True"))
        assert client.finish(cell).text == "main\n"
        long = beside("import threading; go = threading.Event(); print('waiting'); go.wait(20)")
        client.wait_for(lambda m: m.type == "stream" and m.parent_id == long, "the subshell's cell to run")
        assert gateway.model(kernel_id)["execution_state"] == "idle"
        client.run("go.set()")
        client.finish(long)
