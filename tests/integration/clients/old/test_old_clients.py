"""Notebook 6 with ``--gateway-url`` and NB2KG in Notebook 5: real servers of those days, used as their pages use them.

NB2KG speaks like nobody else: bodies without a Content-Type of JSON, no Accept, ``KERNEL_*`` out of its environment,
the folder as ``KERNEL_WORKING_DIR``, a WebSocket without ``session_id``; the last test says the same by hand.
"""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websocket
from eg_integration.channels import Channels
from eg_integration.gateway import Gateway
from eg_integration.kernelspecs import ARGV
from eg_integration.old_notebook import OldNotebook, ensure
from eg_integration.waiting import wait_until
from nbformat import v4

pytestmark = pytest.mark.timeout(300)  # the first one installs; what the tests wait for has bounds of its own

CELLS = ["print('some text')\nkept = 41\nkept + 1", "1 / 0", "print('kept is', kept)"]


@pytest.fixture(scope="module", params=["notebook6", "nb2kg"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def python(kind: str, needs: Callable[..., None]) -> Path | None:
    found, why = ensure(kind)
    needs(kind, found, why)
    return found


@pytest.fixture(scope="module")
def module_server(module_gateway: Gateway, kind: str, python: Path) -> Iterator[OldNotebook]:
    with OldNotebook(kind, python, module_gateway) as server:
        yield server


@pytest.fixture
def server(module_server: OldNotebook, gateway: Gateway) -> OldNotebook:
    assert gateway is module_server.gateway
    return module_server


def _open(server: OldNotebook, path: str, kernel: str = "python3") -> tuple[str, str]:
    """What a page does with a notebook: its session's and its kernel's id."""
    body = {"path": path, "type": "notebook", "name": "", "kernel": {"id": None, "name": kernel}}
    answer = server.request("POST", "/api/sessions", body)
    assert answer.status == 201, answer.words
    return str(answer.json["id"]), str(answer.json["kernel"]["id"])


def test_kernelspecs_and_their_resources(server: OldNotebook) -> None:
    specs = server.request("GET", "/api/kernelspecs").json
    assert specs["default"] == "python3"
    assert set(ARGV) <= set(specs["kernelspecs"])
    logo = specs["kernelspecs"]["python3"]["resources"]["logo-64x64"]
    assert server.request("GET", logo).body.startswith(b"\x89PNG")


def test_a_notebook_from_open_to_close(server: OldNotebook, gateway: Gateway) -> None:
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in CELLS])
    made = server.request("PUT", "/api/contents/n.ipynb", {"type": "notebook", "content": notebook})
    assert made.status == 201, made.words
    session, kernel_id = _open(server, "n.ipynb")
    cells = server.request("GET", "/api/contents/n.ipynb").json["content"]["cells"]

    with server.connect(kernel_id) as client:
        text, error, kept = (client.run("".join(cell["source"])) for cell in cells)
        assert text.text == "some text\n"
        assert [m.content["data"]["text/plain"] for m in text.iopub if m.type == "execute_result"] == ["42"]
        assert error.error is not None
        assert error.error["ename"] == "ZeroDivisionError"
        assert kept.text == "kept is 41\n"

        asking = client.execute("print('hello', input('who? '))", allow_stdin=True)
        asked = client.wait_for(lambda m: m.type == "input_request", "the question")
        client.send("input_reply", {"value": "world"}, channel="stdin", parent=asked.header)
        assert client.finish(asking).text == "hello world\n"

        sleeping = client.execute("import time; print('asleep', flush=True); time.sleep(600)")
        client.wait_for(lambda m: m.type == "stream" and m.parent_id == sleeping, "the sleeping cell to run")
        assert server.request("POST", f"/api/kernels/{kernel_id}/interrupt").status == 204
        assert client.finish(sleeping).reply["ename"] == "KeyboardInterrupt"

        assert server.request("POST", f"/api/kernels/{kernel_id}/restart").status == 200
        wait_until(lambda: gateway.model(kernel_id)["execution_state"] == "idle", "the kernel to be idle again")
        assert client.run("kept").reply["ename"] == "NameError"

    sessions = server.request("GET", "/api/sessions").json
    assert [(one["id"], one["kernel"]["id"]) for one in sessions] == [(session, kernel_id)]
    assert server.request("DELETE", f"/api/sessions/{session}").status == 204
    wait_until(lambda: not gateway.list_kernels(), "no kernel to be left at the gateway")
    wait_until(lambda: not gateway.kernels(), "no kernel process to be left")


def test_a_page_that_is_loaded_again(server: OldNotebook) -> None:
    _, kernel_id = _open(server, "again.ipynb")
    with server.connect(kernel_id) as client:
        client.run("kept = 'from before'")
    assert _open(server, "again.ipynb")[1] == kernel_id
    with server.connect(kernel_id) as client:
        assert client.run("print(kept)").text == "from before\n"


def test_its_environment_and_folder(server: OldNotebook) -> None:
    (server.root / "below").mkdir(exist_ok=True)
    _, kernel_id = _open(server, "below/n.ipynb")
    with server.connect(kernel_id) as client:
        environ = client.value("dict(__import__('os').environ)")
        folder = client.value("__import__('os').getcwd()")
    assert environ["KERNEL_USERNAME"] == "ada"
    assert Path(folder) == server.root / "below"
    assert server.token not in environ.values()
    assert server.gateway.token not in environ.values()


def test_what_its_client_cannot_carry_is_replaced_by_words(server: OldNotebook) -> None:
    """Tornado's client closes at 10 MiB, in these servers too; buffers they could carry, but nothing tells them from
    today's, which die of them."""
    _, kernel_id = _open(server, "large.ipynb")
    with server.connect(kernel_id) as client:
        for code, words in (
            ("from ipykernel.comm import Comm; c = Comm('x', buffers=[b'abc'])", "buffers"),
            ("print('x' * (11 << 20))", "MiB"),
        ):
            assert words in client.run(code).text
            assert client.run("print('still here')").text == "still here\n"


@pytest.mark.parametrize("name", ["absent", "exits"])
def test_a_kernel_that_cannot_start(server: OldNotebook, gateway: Gateway, name: str) -> None:
    """An error and nothing left. Why is in the gateway's log alone: both throw away what a gateway says."""
    body = {"path": "n.ipynb", "type": "notebook", "name": "", "kernel": {"id": None, "name": name}}
    answer = server.request("POST", "/api/sessions", body)
    assert answer.status >= 500
    assert server.request("GET", "/api/sessions").json == []
    assert not [m for m in gateway.list_kernels() if m["execution_state"] != "dead"]
    wait_until(lambda: not gateway.kernels(), "no kernel process to be left")


def test_a_wrong_token(gateway: Gateway, kind: str, python: Path) -> None:
    with OldNotebook(kind, python, gateway, gateway_token="wrong") as server:
        body = {"path": "n.ipynb", "type": "notebook", "name": "", "kernel": {"id": None, "name": "python3"}}
        answer = server.request("POST", "/api/sessions", body)
        assert answer.status in {401, 403, 500}
    assert gateway.list_kernels() == []


def test_a_server_that_ends_takes_its_kernels_along(gateway: Gateway, kind: str, python: Path) -> None:
    with OldNotebook(kind, python, gateway) as server:
        _, kernel_id = _open(server, "n.ipynb")
        assert [model["id"] for model in gateway.list_kernels()] == [kernel_id]
    wait_until(lambda: not gateway.list_kernels(), "its kernel to be gone from the gateway")


def _channels_over(socket: websocket.WebSocket) -> Channels:
    """The client, over a socket whose handshake was made by hand."""
    client = Channels.__new__(Channels)
    client.socket, client.session, client.subprotocol, client.seen = socket, uuid.uuid4().hex, None, []
    return client


def test_nb2kg_to_the_letter(gateway: Gateway) -> None:
    """Its requests, as tornado's client sends them for it: a form's content type on JSON, ``{}`` for actions."""
    where = urlsplit(gateway.url)

    def ask(method: str, path: str, body: object = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"token {gateway.token}", "User-Agent": "Tornado/6.1", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    assert ask("GET", "/api/kernelspecs")[0] == 200
    assert ask("GET", "/api/kernelspecs/python3")[0] == 200
    assert ask("GET", "/kernelspecs/python3/logo-64x64.png")[0] == 200
    env = {"KERNEL_USERNAME": "ada", "KERNEL_LAUNCH_TIMEOUT": "40", "KERNEL_WORKING_DIR": str(gateway.folder / "home")}
    status, body = ask("POST", "/api/kernels", {"name": "python3", "env": env})
    assert status == 201, body
    kernel_id = json.loads(body)["id"]
    assert json.loads(ask("GET", f"/api/kernels/{kernel_id}")[1])["id"] == kernel_id
    assert [model["id"] for model in json.loads(ask("GET", "/api/kernels")[1])] == [kernel_id]

    # Its WebSocket: the header, no session_id, no sub-protocol, no Origin.
    socket = websocket.create_connection(
        gateway.channels_url(kernel_id),
        header=[f"Authorization: token {gateway.token}", "User-Agent: Tornado/6.1"],
        suppress_origin=True,
        timeout=20,
    )
    assert socket.getsubprotocol() is None
    with _channels_over(socket) as client:
        assert client.run("print(6 * 7)").text == "42\n"
        assert client.value("__import__('os').getcwd()") == env["KERNEL_WORKING_DIR"]
        sleeping = client.execute("import time; print('asleep', flush=True); time.sleep(600)")
        client.wait_for(lambda m: m.type == "stream" and m.parent_id == sleeping, "the sleeping cell to run")
        assert ask("POST", f"/api/kernels/{kernel_id}/interrupt", {})[0] == 204
        assert client.finish(sleeping).reply["ename"] == "KeyboardInterrupt"
        assert ask("POST", f"/api/kernels/{kernel_id}/restart", {})[0] == 200
        wait_until(lambda: gateway.model(kernel_id)["execution_state"] == "idle", "the kernel to be idle again")
        assert client.run("print('anew')").text == "anew\n"
    assert ask("DELETE", f"/api/kernels/{kernel_id}")[0] == 204
    assert ask("GET", f"/api/kernels/{kernel_id}")[0] == 404
