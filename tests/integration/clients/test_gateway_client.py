"""jupyter_server's gateway client: what stands between most people and a gateway.

By API, through a running jupyter_server: every call it makes to a gateway is made by one of these tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime

import pytest
from eg_integration.channels import Channels
from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer
from eg_integration.kernelspecs import ARGV, FAREWELL
from eg_integration.waiting import wait_until


@pytest.fixture(scope="module")
def module_server(module_gateway: Gateway) -> Iterator[JupyterServer]:
    with JupyterServer(module_gateway) as server:
        yield server


@pytest.fixture
def server(module_server: JupyterServer, gateway: Gateway) -> JupyterServer:
    assert gateway is module_server.gateway
    return module_server


@pytest.fixture
def kernel_id(server: JupyterServer) -> str:
    answer = server.request("POST", "/api/kernels", {"name": "python3"})
    assert answer.status == 201, answer.words
    return str(answer.json["id"])


def test_kernelspecs_and_their_resources(server: JupyterServer) -> None:
    specs = server.request("GET", "/api/kernelspecs").json
    assert specs["default"] == "python3"
    assert set(ARGV) <= set(specs["kernelspecs"])

    one = server.request("GET", "/api/kernelspecs/python3").json
    assert one["spec"]["display_name"] == "Python 3 (test)"
    assert set(one["resources"]) >= {"kernel.js", "logo-64x64"}

    for path in (one["resources"]["kernel.js"], one["resources"]["logo-64x64"]):
        assert server.request("GET", path).status == 200
    assert server.gateway.request("GET", "/kernelspecs/python3/private.txt").status == 404
    assert server.request("GET", "/kernelspecs/python3/private.txt").status != 200
    assert server.request("GET", "/api/kernelspecs/unheard-of").status == 404


def test_a_kernel_s_life(server: JupyterServer, kernel_id: str, gateway: Gateway) -> None:
    assert [model["id"] for model in server.request("GET", "/api/kernels").json] == [kernel_id]
    model = server.request("GET", f"/api/kernels/{kernel_id}").json
    assert model["name"] == "python3"
    assert model["execution_state"] in {"starting", "idle"}
    datetime.strptime(model["last_activity"].replace("Z", "+0000"), "%Y-%m-%dT%H:%M:%S.%f%z")

    with server.connect(kernel_id) as client:
        assert client.run("kept = 21; print(kept * 2)").text == "42\n"
        # The list, for only that asks the gateway anew: JupyterLab polls it.
        wait_until(lambda: server.request("GET", "/api/kernels").json[0]["connections"] == 1, "a connection")

        sleeping = client.execute("import time; time.sleep(600)")
        client.wait_for(lambda m: m.parent_id == sleeping and m.type == "execute_input", "the sleeping cell to run")
        assert server.request("POST", f"/api/kernels/{kernel_id}/interrupt").status == 204
        done = client.finish(sleeping)
        assert done.error is not None
        assert done.error["ename"] == "KeyboardInterrupt"
        assert client.value("kept") == 21

    first = client.seen[0].header["session"]
    assert server.request("POST", f"/api/kernels/{kernel_id}/restart").status == 200
    with server.connect(kernel_id) as client:
        done = client.run("kept")
        assert done.error is not None
        assert done.error["ename"] == "NameError"
        assert client.seen[-1].header["session"] != first

    assert server.request("DELETE", f"/api/kernels/{kernel_id}").status == 204
    assert server.request("GET", f"/api/kernels/{kernel_id}").status == 404
    assert gateway.list_kernels() == []
    wait_until(lambda: not gateway.kernels(), "the kernel's process to be gone")


def test_restart_under_an_open_socket(server: JupyterServer, kernel_id: str) -> None:
    with server.connect(kernel_id) as client:
        client.run("kept = 1")
        assert server.request("POST", f"/api/kernels/{kernel_id}/restart").status == 200
        done = client.run("kept")
        assert done.error is not None
        assert done.error["ename"] == "NameError"


def test_a_session_with_a_notebook_s_folder(server: JupyterServer) -> None:
    (server.root / "below").mkdir(exist_ok=True)
    body = {"path": "below/n.ipynb", "type": "notebook", "name": "n", "kernel": {"name": "python3"}}
    answer = server.request("POST", "/api/sessions", body)
    assert answer.status == 201, answer.words
    kernel_id = answer.json["kernel"]["id"]

    with server.connect(kernel_id) as client:
        assert os.path.samefile(client.value("__import__('os').getcwd()"), server.root / "below")  # noqa: PTH121

    assert server.request("DELETE", f"/api/sessions/{answer.json['id']}").status == 204
    wait_until(lambda: not server.gateway.list_kernels(), "the session's kernel to be gone")


def test_input_through_the_gateway_client(server: JupyterServer, kernel_id: str) -> None:
    with server.connect(kernel_id) as client:
        msg_id = client.execute("print('hello', input('who? '))", allow_stdin=True)
        asked = client.wait_for(lambda m: m.type == "input_request", "the question")
        client.send("input_reply", {"value": "world"}, channel="stdin", parent=asked.header)
        assert client.finish(msg_id).text == "hello world\n"


def _refused(client: Channels, code: str, words: str) -> None:
    done = client.run(code, 20)
    said = "".join(m.content["text"] for m in done.iopub if m.type == "stream" and m.content["name"] == "stderr")
    assert words in said, f"nothing about {words!r} in {said[:500]!r}"
    assert client.run("print('still here')").text == "still here\n"


def test_what_it_cannot_carry_is_replaced_by_words(server: JupyterServer, kernel_id: str) -> None:
    """Buffers kill its reader, and frames over 10 MiB its socket: both become a sentence, and the notebook goes on."""
    with server.connect(kernel_id) as client:
        _refused(client, "from ipykernel.comm import Comm; c = Comm('x', buffers=[b'abc'])", "buffers")
        _refused(client, "print('x' * (11 << 20))", "MiB")


@pytest.mark.parametrize(("name", "words"), [("absent", "/nowhere/to/be/found/python"), ("exits", FAREWELL)])
def test_why_a_kernel_cannot_start(server: JupyterServer, gateway: Gateway, name: str, words: str) -> None:
    """The text survives by way of sessions, which is how JupyterLab starts kernels."""
    body = {"path": "n.ipynb", "type": "notebook", "name": "n", "kernel": {"name": name}}
    answer = server.request("POST", "/api/sessions", body)

    assert answer.status >= 500
    assert words in answer.words
    assert "Traceback" not in answer.json["message"]
    assert not [m for m in gateway.list_kernels() if m["execution_state"] != "dead"]


def test_variables_of_the_server_that_concern_kernels(gateway: Gateway) -> None:
    """KERNEL_* of the server's environment and what JUPYTER_GATEWAY_ALLOWED_ENVS names, and nothing else."""
    env = {"KERNEL_FLAVOUR": "plain", "TEST_PRIVATE": "not for kernels"}
    with JupyterServer(gateway, env=env) as server:
        kernel_id = server.request("POST", "/api/kernels", {"name": "python3"}).json["id"]
        with server.connect(kernel_id) as client:
            environ = client.value("dict(__import__('os').environ)")
    assert environ["KERNEL_FLAVOUR"] == "plain"
    assert "TEST_PRIVATE" not in environ
    assert gateway.token not in environ.values()


def test_a_wrong_token_is_said(gateway: Gateway) -> None:
    with JupyterServer(gateway, env={"JUPYTER_GATEWAY_AUTH_TOKEN": "wrong"}) as server:
        answer = server.request("POST", "/api/kernels", {"name": "python3"})
        assert answer.status in {401, 403, 500}
        assert gateway.list_kernels() == []


def test_log_names_no_secret(server: JupyterServer, gateway: Gateway) -> None:
    server.request("GET", "/api/kernels")
    logs = {name: text for name, text in gateway.logs().items() if not name.startswith("server-")}
    assert not [name for name, text in logs.items() if gateway.token in text]
