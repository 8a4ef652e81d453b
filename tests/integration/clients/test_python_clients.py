"""Programs in Python that speak to the gateway by themselves: `aiohttp` for everything, and `websocket-client` with
callbacks in a thread of its own (its blocking way is what `test_channels.py` is made of). Both sub-protocols.
"""

from __future__ import annotations

import abc
import asyncio
import queue
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import aiohttp
import pytest
import websocket
from eg_integration.channels import V1, Execution, Message, idles, new_header, pack, replies, unpack
from eg_integration.gateway import Gateway

pytestmark = pytest.mark.timeout(60)

ECHO = """
def opened(comm, message):
    def echo(message):
        buffers = [bytes(b)[::-1] for b in message["buffers"]]
        comm.send({"echo": message["content"]["data"]}, buffers=buffers)
    comm.on_msg(echo)
get_ipython().kernel.comm_manager.register_target("echo", opened)
"""


class Client(abc.ABC):
    """Jupyter's messages over somebody's WebSocket."""

    def __init__(self, subprotocol: str | None) -> None:
        self.subprotocol = subprotocol
        self.session = uuid.uuid4().hex
        self.seen: list[Message] = []

    @abc.abstractmethod
    async def send_payload(self, data: str | bytes) -> None: ...

    @abc.abstractmethod
    async def receive_payload(self) -> str | bytes: ...

    @abc.abstractmethod
    async def close(self) -> None: ...

    async def send(
        self,
        msg_type: str,
        content: dict[str, Any],
        channel: str = "shell",
        *,
        parent: dict[str, Any] | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        header = new_header(msg_type, self.session)
        await self.send_payload(pack(self.subprotocol, channel, [header, parent or {}, {}, content], buffers))
        return str(header["msg_id"])

    async def execute(self, code: str, *, allow_stdin: bool = False) -> str:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        return await self.send("execute_request", {**content, "allow_stdin": allow_stdin, "stop_on_error": True})

    async def wait_for(self, wanted: Callable[[Message], bool], timeout: float = 20) -> Message:
        """The first new message that is wanted."""

        async def read() -> Message:
            while True:
                data = await self.receive_payload()
                binary = isinstance(data, bytes)
                self.seen.append(unpack(self.subprotocol, binary, data if isinstance(data, bytes) else data.encode()))
                if wanted(self.seen[-1]):
                    return self.seen[-1]

        return await asyncio.wait_for(read(), timeout)

    async def finish(self, msg_id: str) -> Execution:
        def mine() -> list[Message]:
            return [m for m in self.seen if m.parent_id == msg_id]

        while not (any(map(replies, mine())) and any(map(idles, mine()))):
            await self.wait_for(lambda m: m.parent_id == msg_id)
        return Execution(next(filter(replies, mine())).content, [m for m in mine() if m.channel == "iopub"])

    async def run(self, code: str) -> Execution:
        return await self.finish(await self.execute(code))


class Aiohttp(Client):
    socket: aiohttp.ClientWebSocketResponse

    @classmethod
    async def connect(cls, http: aiohttp.ClientSession, kernel_id: str, subprotocol: str | None) -> Aiohttp:
        made = cls(subprotocol)
        made.socket = await http.ws_connect(
            f"/api/kernels/{kernel_id}/channels",
            params={"session_id": made.session},
            protocols=[subprotocol] if subprotocol else [],
            max_msg_size=0,  # its own default ends a connection at a message of 4 MiB
            heartbeat=1.0,  # it closes when a ping is not answered
        )
        assert made.socket.protocol == subprotocol
        return made

    async def send_payload(self, data: str | bytes) -> None:
        await (self.socket.send_bytes(data) if isinstance(data, bytes) else self.socket.send_str(data))

    async def receive_payload(self) -> str | bytes:
        message = await self.socket.receive()
        assert message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}, message
        return message.data

    async def close(self) -> None:
        begun = time.monotonic()
        await self.socket.close()
        assert self.socket.close_code == 1000
        assert time.monotonic() - begun < 2, "the closing handshake was not answered"


class Callbacks(Client):
    """websocket-client's WebSocketApp."""

    app: websocket.WebSocketApp

    @classmethod
    async def connect(cls, gateway: Gateway, kernel_id: str, subprotocol: str | None) -> Callbacks:
        made = cls(subprotocol)
        made.got: queue.Queue[Any] = queue.Queue()
        opened = threading.Event()
        made.app = websocket.WebSocketApp(
            f"{gateway.channels_url(kernel_id)}?session_id={made.session}",
            header=[f"Authorization: token {gateway.token}"],
            subprotocols=[subprotocol] if subprotocol else None,
            on_open=lambda _: opened.set(),
            on_message=lambda _, data: made.got.put(data),
            on_error=lambda _, error: made.got.put(error),
            on_close=lambda *_: made.got.put(None),
        )
        # It sends an Origin, that of the URL it connects to.
        made.thread = threading.Thread(target=made.app.run_forever, kwargs={"ping_interval": 2, "ping_timeout": 1})
        made.thread.start()
        assert await asyncio.to_thread(opened.wait, 10), made.got.queue
        assert made.app.sock.getsubprotocol() == subprotocol
        return made

    async def send_payload(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            self.app.send_bytes(data)
        else:
            self.app.send_text(data)

    async def receive_payload(self) -> str | bytes:
        data = await asyncio.to_thread(self.got.get, timeout=20)
        assert isinstance(data, str | bytes), data
        return data

    async def close(self) -> None:
        await asyncio.to_thread(self.app.close)
        await asyncio.to_thread(self.thread.join, 10)
        assert not self.thread.is_alive()
        assert not [error for error in self.got.queue if isinstance(error, Exception)]


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"token {gateway.token}"}
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(gateway.url, headers=headers, timeout=timeout) as session:
        yield session


@pytest.fixture
async def kernel_id(http: aiohttp.ClientSession) -> AsyncIterator[str]:
    async with http.post("/api/kernels", json={"name": "python3"}) as answer:
        assert answer.status == 201
        made = (await answer.json())["id"]
    yield made
    async with http.delete(f"/api/kernels/{made}") as answer:
        assert answer.status == 204


@pytest.fixture(params=[None, V1], ids=["default", "v1"])
def subprotocol(request: pytest.FixtureRequest) -> str | None:
    return request.param


@pytest.fixture(params=["aiohttp", "websocket-client"])
async def client(
    request: pytest.FixtureRequest,
    gateway: Gateway,
    http: aiohttp.ClientSession,
    kernel_id: str,
    subprotocol: str | None,
) -> AsyncIterator[Client]:
    if request.param == "aiohttp":
        made: Client = await Aiohttp.connect(http, kernel_id, subprotocol)
    else:
        made = await Callbacks.connect(gateway, kernel_id, subprotocol)
    yield made
    await made.close()


async def test_cells_streams_and_errors(client: Client) -> None:
    done = await client.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert done.reply["status"] == "ok"
    streams = {m.content["name"]: m.content["text"] for m in done.iopub if m.type == "stream"}
    assert streams == {"stdout": "out\n", "stderr": "err\n"}
    assert [m.content["data"]["text/plain"] for m in done.iopub if m.type == "execute_result"] == ["42"]
    assert [m.content["execution_state"] for m in done.iopub if m.type == "status"] == ["busy", "idle"]

    failed = await client.run("1 / 0")
    assert failed.reply["status"] == "error"
    assert failed.error is not None
    assert failed.error["ename"] == "ZeroDivisionError"

    # Fewer than a kernel's PUB socket holds: on a busy host ipykernel drops what comes after 1000 unsent ones.
    many = await client.run("for n in range(500): print(n, flush=True)")
    assert many.text == "".join(f"{n}\n" for n in range(500))


async def test_input(client: Client) -> None:
    msg_id = await client.execute("name = input('who? '); print('hello', name)", allow_stdin=True)
    asked = await client.wait_for(lambda m: m.type == "input_request")
    assert asked.channel == "stdin"
    await client.send("input_reply", {"value": "world"}, "stdin", parent=asked.header)
    assert (await client.finish(msg_id)).text == "hello world\n"


async def test_an_interrupt(client: Client, http: aiohttp.ClientSession, kernel_id: str) -> None:
    msg_id = await client.execute("import time\nprint('going to sleep', flush=True)\ntime.sleep(600)")
    await client.wait_for(lambda m: m.type == "stream")
    async with http.post(f"/api/kernels/{kernel_id}/interrupt") as answer:
        assert answer.status == 204
    done = await client.finish(msg_id)
    assert done.reply["ename"] == "KeyboardInterrupt"
    assert (await client.run("print('alive')")).text == "alive\n"


async def test_buffers(client: Client) -> None:
    await client.run(ECHO)
    await client.send("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})
    buffers = [bytes(range(256)), b"", b"ab" * 3_000_000]
    await client.send("comm_msg", {"comm_id": "c1", "data": {"n": 1}}, buffers=buffers)
    answer = await client.wait_for(lambda m: m.type == "comm_msg")
    assert answer.content["data"] == {"echo": {"n": 1}}
    assert answer.buffers == [buffer[::-1] for buffer in buffers]


@pytest.mark.parametrize("subprotocol", [V1], indirect=True)
async def test_a_socket_that_is_quiet_for_longer_than_its_heartbeat(client: Client) -> None:
    """Both libraries close a connection whose pings are not answered; here they go on."""
    begun = time.monotonic()
    done = await client.run("import time; time.sleep(2.5); print('done')")
    assert done.text == "done\n"
    assert time.monotonic() - begun > 2.4


async def test_many_cells_at_once_in_several_tasks(http: aiohttp.ClientSession, kernel_id: str) -> None:
    """A connection each of ten tasks to one kernel: each gets the replies to its own and everybody's outputs."""
    clients = await asyncio.gather(*(Aiohttp.connect(http, kernel_id, (None, V1)[n % 2]) for n in range(10)))
    done = await asyncio.gather(*(one.run(f"print({n})") for n, one in enumerate(clients)))
    assert [one.text for one in done] == [f"{n}\n" for n in range(10)]
    for one in clients:
        assert {m.parent["session"] for m in one.seen if m.channel == "shell"} == {one.session}
        await one.close()


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_no_credentials(gateway: Gateway, kernel_id: str, token: str | None) -> None:
    headers = {"Authorization": f"token {token}"} if token else {}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"/api/kernels/{kernel_id}/channels")
        assert refused.value.status in {401, 403}
        async with http.get("/api/kernels") as answer:
            assert answer.status == 401
