"""Any client that speaks Jupyter's WebSocket protocol, in both sub-protocols, straight to the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import websocket
from eg_integration.channels import V1, Channels
from eg_integration.gateway import Gateway

COMM_TARGET = """
from ipykernel.comm import Comm
def opened(comm, message):
    def echo(message):
        buffers = [bytes(b)[::-1] for b in message["buffers"]]
        comm.send({"echo": message["content"]["data"]}, buffers=buffers)
    comm.on_msg(echo)
get_ipython().kernel.comm_manager.register_target("echo", opened)
"""


@pytest.fixture(params=[None, V1], ids=["default", "v1"])
def subprotocol(request: pytest.FixtureRequest) -> str | None:
    return request.param


@pytest.fixture
def kernel_id(gateway: Gateway) -> str:
    return gateway.start_kernel()


@pytest.fixture
def client(gateway: Gateway, kernel_id: str, subprotocol: str | None) -> Iterator[Channels]:
    with gateway.connect(kernel_id, subprotocol=subprotocol) as made:
        assert made.subprotocol == subprotocol
        yield made


def test_a_cell_with_its_reply_and_its_state(client: Channels) -> None:
    done = client.run("print('to stdout'); 6 * 7")

    assert done.reply["status"] == "ok"
    assert done.text == "to stdout\n"
    assert [m.content["data"]["text/plain"] for m in done.iopub if m.type == "execute_result"] == ["42"]
    states = [m.content["execution_state"] for m in done.iopub if m.type == "status"]
    assert states == ["busy", "idle"]


def test_input_is_asked_and_answered(client: Channels) -> None:
    msg_id = client.execute("name = input('who? '); print('hello', name)", allow_stdin=True)
    asked = client.wait_for(lambda m: m.type == "input_request", "the question")
    assert asked.channel == "stdin"
    assert asked.parent_id == msg_id

    client.send("input_reply", {"value": "world"}, channel="stdin", parent=asked.header)

    assert client.finish(msg_id).text == "hello world\n"


def test_two_clients_see_all_outputs_and_only_their_own_replies(
    gateway: Gateway, kernel_id: str, client: Channels, subprotocol: str | None
) -> None:
    # The other one in the other sub-protocol: what is encoded once must not reach the wrong client.
    with gateway.connect(kernel_id, subprotocol=None if subprotocol else V1) as other:
        client.run("shared = 'set by one'")
        other.run("pass")
        first = client.execute("print('from one')")
        second = other.execute("print(shared)")
        assert client.finish(first).text == "from one\n"
        assert other.finish(second).text == "set by one\n"
        # A last request each: all that came before it has been read then.
        last = client.run("pass"), other.run("pass")
        assert all(done.reply["status"] == "ok" for done in last)

    def texts(channels: Channels, parent: str) -> str:
        return "".join(m.content["text"] for m in channels.seen if m.type == "stream" and m.parent_id == parent)

    assert texts(client, second) == "set by one\n"
    assert texts(other, first) == "from one\n"
    for channels in (client, other):
        replies = [m for m in channels.seen if m.channel == "shell"]
        assert {m.parent["session"] for m in replies} == {channels.session}


def test_display_and_update_display_data(client: Channels) -> None:
    done = client.run(
        "from IPython.display import display, HTML\n"
        "shown = display(HTML('<b>first</b>'), display_id='one')\n"
        "shown.update(HTML('<b>second</b>'))"
    )
    displays = [m for m in done.iopub if m.type in {"display_data", "update_display_data"}]

    assert [m.type for m in displays] == ["display_data", "update_display_data"]
    assert [m.content["data"]["text/html"] for m in displays] == ["<b>first</b>", "<b>second</b>"]
    assert {m.content["transient"]["display_id"] for m in displays} == {"one"}


def test_comms_with_buffers(client: Channels) -> None:
    client.run(COMM_TARGET)
    client.send("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})
    buffers = [bytes(range(256)), b"", b"x" * 100_000]

    client.send("comm_msg", {"comm_id": "c1", "data": {"n": 1}}, buffers=buffers)

    answer = client.wait_for(lambda m: m.type == "comm_msg", "the comm's answer")
    assert answer.content["data"] == {"echo": {"n": 1}}
    assert answer.buffers == [buffer[::-1] for buffer in buffers]


def test_a_message_of_50_mb_each_way(client: Channels) -> None:
    """By comm: 50 MB of a cell's source would be a test of IPython's tokenizer."""
    size = 50_000_000
    client.run(COMM_TARGET)
    client.send("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})

    client.send("comm_msg", {"comm_id": "c1", "data": "x" * size})

    answer = client.wait_for(lambda m: m.type == "comm_msg", "the comm's answer", 60)
    assert answer.content["data"] == {"echo": "x" * size}
    assert len(client.run(f"print('y' * {size})", 60).text) == size + 1


def test_an_interrupt_of_a_flooding_kernel_takes_effect_within_200_ms(
    gateway: Gateway, kernel_id: str, client: Channels
) -> None:
    """From the POST until a client that reads has the KeyboardInterrupt; the median, for the host is busy too."""
    took: list[float] = []
    for _ in range(5):
        msg_id = client.execute("n = 0\nwhile True:\n    n += 1; print('flood', n, 'x' * 200)")
        client.wait_for(lambda m, i=msg_id: m.type == "stream" and m.parent_id == i, "the flood")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(client.finish, msg_id, 30)
            time.sleep(0.5)  # the load itself, no condition: half a second of flood
            asked = time.monotonic()
            answer = gateway.request("POST", f"/api/kernels/{kernel_id}/interrupt", {})
            done = reading.result()
        assert answer.status == 204, answer.words
        assert done.reply["status"] == "error"
        assert done.reply["ename"] == "KeyboardInterrupt"
        error = next(m for m in done.iopub if m.type == "error")
        took.append(error.at - asked)
        client.seen.clear()
    print(f"interrupts took {[f'{second * 1000:.0f} ms' for second in took]}")
    assert sorted(took)[2] < 0.2


def test_no_credentials_no_channels(gateway: Gateway, kernel_id: str) -> None:
    for token in (None, "wrong"):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            Channels(gateway.channels_url(kernel_id), token)
        assert refused.value.status_code in {401, 403}


def test_the_token_in_the_url_will_do(gateway: Gateway, kernel_id: str) -> None:
    """For clients that cannot set a header, such as browsers."""
    url = f"{gateway.channels_url(kernel_id)}?token={gateway.token}"
    socket = websocket.create_connection(url, timeout=10)
    socket.close()


def test_a_kernel_nobody_knows_is_a_404(gateway: Gateway) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        gateway.connect("00000000-0000-4000-8000-000000000000")
    assert refused.value.status_code == 404
