"""The server over real sockets, with a service that only echoes; time is moved by moving deadlines."""

import asyncio
import json
import socket
import ssl

import pytest

from eg_launcher import listener, server, wire
from eg_launcher.handshake import check_upgrade
from eg_launcher.http1 import HttpError, Response
from eg_launcher.server import Server, Upgrade
from eg_launcher.websocket import Opcode

LIMIT = 10.0


class EchoSocket:
    def __init__(self, websocket):
        self.websocket = websocket
        self.closed = asyncio.get_running_loop().create_future()

    def on_message(self, opcode, payload):
        self.websocket.send(opcode, [payload])

    def on_pong(self, payload):
        self.websocket.send(Opcode.TEXT, [b"pong " + payload])

    def on_drain(self):
        pass

    def on_close(self):
        self.closed.set_result(None)


class EchoService:
    """Knows the token "right"; answers what it was asked; ``gate`` holds answers back."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.sockets = []
        self.served = []

    def check(self, head):
        if head.headers.get("authorization") != "token right":
            raise HttpError(401, "unauthorized", "No.")
        if head.path == ("channels",):
            check_upgrade(head)

    async def respond(self, head, body):
        self.served.append(head.path)
        await self.gate.wait()
        if head.path == ("channels",):
            return Upgrade(self.open, subprotocol="chosen", max_message=1 << 20)
        if head.path == ("fail",):
            raise RuntimeError("secret details")
        if head.path == ("refuse",):
            raise HttpError(409, "busy", "Not now.")
        if head.path == ("large",):
            return Response(200, bytes(8 << 20))
        return Response.of_json({"path": head.path, "body": body.decode()})

    def open(self, websocket):
        self.sockets.append(EchoSocket(websocket))
        return self.sockets[-1]


@pytest.fixture
async def service():
    return EchoService()


@pytest.fixture
async def running(service):
    sock = listener.listen_tcp("127.0.0.1", 0)
    made = Server(service)
    made.listen(sock)
    made.port = sock.getsockname()[1]
    yield made
    service.gate.set()
    await made.close()
    sock.close()


class Peer:
    """A client that sends exactly what it is told."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, running, **kwargs):
        return cls(*await asyncio.open_connection("127.0.0.1", running.port, limit=1 << 24, **kwargs))

    def send(self, data):
        self.writer.write(data.encode() if isinstance(data, str) else data)

    def request(self, path="/", method="GET", body="", headers="Authorization: token right\r\n"):
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n{body}")

    async def answer(self):
        async def read():
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return int(lines[0].split()[1]), headers, body

        return await asyncio.wait_for(read(), LIMIT)

    async def end(self):
        """What is left, and the end of the stream."""
        try:
            return await asyncio.wait_for(self.reader.read(), LIMIT)
        except ConnectionResetError:
            return b""

    async def close(self):
        self.writer.close()
        try:
            await asyncio.wait_for(self.writer.wait_closed(), LIMIT)
        except (OSError, asyncio.TimeoutError):
            pass


@pytest.fixture
async def peer(running):
    made = await Peer.connect(running)
    yield made
    await made.close()


async def until(condition, limit=LIMIT):
    deadline = asyncio.get_running_loop().time() + limit
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def everything_is_late(running):
    for connection in [*running._unauthenticated, *running._authenticated]:
        if connection._deadline is not None:
            connection._deadline = 0.0
    running.tick()


async def test_requests_of_one_connection_are_answered_one_after_the_other(running, peer, service):
    for i in range(20):
        peer.request(f"/{i}", "POST", body=f"body {i}")
    for i in range(20):
        status, headers, body = await peer.answer()
        assert (status, json.loads(body)) == (200, {"path": [str(i)], "body": f"body {i}"})
        assert headers["connection"] == "keep-alive"
    assert running.connections == 1


async def test_a_request_may_come_byte_by_byte(peer):
    data = b"\r\nPOST /x HTTP/1.1\r\nAuthorization: token right\r\nContent-Length: 2\r\n\r\nhi"
    for i in range(len(data)):
        peer.send(data[i : i + 1])
        await peer.writer.drain()
        await asyncio.sleep(0)
    assert json.loads((await peer.answer())[2])["body"] == "hi"


async def test_connection_close_is_kept(peer):
    peer.request(headers="Authorization: token right\r\nConnection: close\r\n")
    assert (await peer.answer())[1]["connection"] == "close"
    assert await peer.end() == b""


async def test_half_a_connection_gets_its_answer(running, peer, service):
    service.gate.clear()
    peer.request()
    await until(lambda: service.served)
    peer.writer.write_eof()
    await until(lambda: next(iter(running._authenticated))._ending)
    service.gate.set()
    assert (await peer.answer())[0] == 200
    assert await peer.end() == b""


async def test_an_unexpected_failure_tells_the_client_nothing(peer, caplog):
    peer.request("/fail")
    status, _, body = await peer.answer()
    assert status == 500
    assert b"secret" not in body
    assert b"Traceback" not in body
    assert "secret details" in caplog.text
    peer.request("/refuse")
    status, _, body = await peer.answer()
    assert (status, json.loads(body)) == (409, {"reason": "busy", "message": "Not now."})


async def test_100_continue(peer):
    peer.send("POST / HTTP/1.1\r\nAuthorization: token right\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await asyncio.wait_for(peer.reader.readuntil(b"\r\n\r\n"), LIMIT) == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.send("ok")
    assert (await peer.answer())[0] == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01 this is TLS\r\n\r\n", 400),
        (b"SSH-2.0-client\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nAuthorization: token right\r\nBad line\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nAuthorization: token right\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nAuthorization: token right\r\nContent-Length: 8388609\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nAuthorization: token right\r\nX: " + b"a" * wire.MAX_HEAD + b"\r\n\r\n", 431),
        (b"a" * (wire.MAX_HEAD + 1), 431),
        (b"GET / HTTP/1.1\r\nAuthorization: token wrong\r\n\r\n", 401),
        (b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", 401),
    ],
)
async def test_what_is_refused_is_told_and_cut(running, peer, data, status):
    peer.send(data)
    if status != 411:
        peer.send(bytes(200_000))  # it goes on talking: the answer must reach it all the same
    assert (await peer.answer())[0] == status
    assert await peer.end() == b""
    await peer.close()
    await until(lambda: not running._unauthenticated and not running._authenticated)


async def test_a_body_is_not_kept_before_the_token_was_right(running, peer):
    peer.send(b"POST / HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n")
    assert (await peer.answer())[0] == 401
    (connection,) = running._unauthenticated
    peer.send(bytes(2_000_000))
    await peer.writer.drain()
    assert not connection._buffer


@pytest.mark.parametrize(
    "sent",
    ["", "GET / HT", "POST / HTTP/1.1\r\nAuthorization: token right\r\nContent-Length: 5\r\n\r\nab"],
)
async def test_a_silent_or_slow_peer_is_cut(running, peer, sent):
    peer.send(sent)
    await until(lambda: running._unauthenticated or running._authenticated)
    if "right" in sent:
        await until(lambda: running._authenticated)
    elif sent:
        await until(lambda: next(iter(running._unauthenticated))._buffer)
    everything_is_late(running)
    if sent:
        assert (await peer.answer())[0] == 408
    assert await peer.end() == b""


async def test_an_idle_connection_is_cut_but_not_one_whose_answer_is_awaited(running, peer, service):
    service.gate.clear()
    peer.request()
    await until(lambda: service.served)
    everything_is_late(running)
    service.gate.set()
    assert (await peer.answer())[0] == 200
    everything_is_late(running)
    assert await peer.end() == b""


async def test_a_refused_peer_that_does_not_leave_is_cut(running, peer):
    peer.request(headers="")
    assert (await peer.answer())[0] == 401
    await until(lambda: running._unauthenticated)
    everything_is_late(running)
    await until(lambda: not running._unauthenticated)


async def test_a_peer_that_does_not_read_its_answers_holds_one(running, peer, service):
    """Its further requests wait, and it is cut in the end."""
    for _ in range(50):
        peer.request("/large")
    await until(lambda: service.served)
    (connection,) = running._authenticated
    await until(lambda: connection._blocked)
    assert len(service.served) < 10  # what this client's own buffers take
    assert connection._transport.get_write_buffer_size() <= 9 << 20
    everything_is_late(running)
    await until(lambda: not running._authenticated)


async def test_pipelined_requests_are_not_read_without_bound(running, peer, service):
    service.gate.clear()
    body = "x" * 100_000
    for _ in range(100):
        peer.request("/x", "POST", body=body)
    await until(lambda: service.served)
    (connection,) = running._authenticated
    await until(lambda: not connection._transport.is_reading())
    assert len(connection._buffer) < 1 << 20
    service.gate.set()
    for _ in range(100):
        assert (await peer.answer())[0] == 200


async def test_silent_peers_make_room_for_one_that_speaks(running, monkeypatch):
    monkeypatch.setattr(server, "MAX_UNAUTHENTICATED", 5)
    monkeypatch.setattr(server, "TURN", 0.05)
    silent = [await Peer.connect(running) for _ in range(12)]
    await until(lambda: len(running._unauthenticated) == 5)
    speaker = await Peer.connect(running)
    speaker.request()
    assert (await speaker.answer())[0] == 200
    assert len(running._unauthenticated) == 4
    assert await silent[0].end() == b""
    for each in [*silent, speaker]:
        await each.close()


async def test_a_crowd_that_speaks_is_served_to_the_last(running, monkeypatch):
    """Such as all clients of a gateway that was started again: nobody is cut before its request could be read."""
    monkeypatch.setattr(server, "MAX_UNAUTHENTICATED", 5)
    monkeypatch.setattr(server, "TURN", 30.0)
    peers = await asyncio.gather(*(Peer.connect(running) for _ in range(200)))
    for each in peers:
        each.request()
    assert {(await each.answer())[0] for each in peers} == {200}
    assert running.connections == 200
    for each in peers:
        await each.close()


async def test_connections_are_bounded_in_all(running, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    peers = [await Peer.connect(running) for _ in range(3)]
    for each in peers:
        each.request()
        await each.answer()
    late = await Peer.connect(running)
    assert await late.end() == b""
    await peers[0].close()
    await until(lambda: running.connections == 2)
    again = await Peer.connect(running)
    again.request()
    assert (await again.answer())[0] == 200
    for each in [*peers, late, again]:
        await each.close()


UPGRADE = (
    "GET /channels HTTP/1.1\r\nHost: x\r\nAuthorization: token right\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


async def test_the_upgrade_is_to_the_letter(peer):
    peer.send(UPGRADE)
    head = await asyncio.wait_for(peer.reader.readuntil(b"\r\n\r\n"), LIMIT)
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert set(lines[1:]) == {
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: chosen",
        "",
    }


async def test_frames_sent_with_the_upgrade_and_behind_a_request_arrive(peer):
    from eg_launcher.websocket import apply_mask, frame_header

    frame = frame_header(Opcode.TEXT, 5, mask=b"abcd") + apply_mask(b"abcd", b"hello")
    peer.request("/first")
    peer.send(UPGRADE.encode() + frame + frame)
    assert (await peer.answer())[0] == 200
    await asyncio.wait_for(peer.reader.readuntil(b"\r\n\r\n"), LIMIT)
    assert await asyncio.wait_for(peer.reader.readexactly(14), LIMIT) == b"\x81\x05hello" * 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade\r\n", ""),
        ("Version: 13", "Version: 8"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="),
    ],
)
async def test_half_an_upgrade_is_refused(peer, old, new):
    assert old in UPGRADE
    peer.send(UPGRADE.replace(old, new))
    assert (await peer.answer())[0] == 400


async def test_a_client_that_vanishes_is_a_close(running, peer, service):
    peer.send(UPGRADE)
    await until(lambda: service.sockets)
    peer.writer.transport.abort()
    await asyncio.wait_for(service.sockets[0].closed, LIMIT)
    await until(lambda: running.connections == 0)


async def test_a_peer_that_never_answers_a_close_is_cut(running, peer, service):
    peer.send(UPGRADE)
    await until(lambda: service.sockets)
    service.sockets[0].websocket.close(4002, "ended")
    await asyncio.wait_for(service.sockets[0].closed, LIMIT)
    assert running.connections == 1
    service.sockets[0].websocket.deadline = 0.0
    running.tick()
    await until(lambda: running.connections == 0)


async def test_websocket_client_and_aiohttp_as_they_are(running, service):
    import aiohttp
    import websocket

    def sync_client():
        client = websocket.create_connection(
            f"ws://127.0.0.1:{running.port}/channels", header=["Authorization: token right"], timeout=LIMIT
        )
        client.send("text")
        first = client.recv()
        client.send_binary(bytes(300_000))
        second = client.recv()
        client.ping("x")
        client.close()
        return first, len(second)

    assert await asyncio.to_thread(sync_client) == ("text", 300_000)
    async with (
        aiohttp.ClientSession(headers={"Authorization": "token right"}) as session,
        session.ws_connect(f"http://127.0.0.1:{running.port}/channels", compress=15) as client,
    ):
        await client.send_str("text")
        assert (await client.receive(LIMIT)).data == "text"
        await client.send_bytes(bytes(2 << 20))
        assert (await client.receive(LIMIT)).type is aiohttp.WSMsgType.CLOSE
        assert client.close_code == 1009
    await until(lambda: running.connections == 0)


async def test_the_servers_end_says_goodbye(running, service):
    watching, asking = await Peer.connect(running), await Peer.connect(running)
    watching.send(UPGRADE)
    await until(lambda: service.sockets)
    service.gate.clear()
    asking.request("/slow")
    await until(lambda: ("slow",) in service.served)
    ending = asyncio.ensure_future(running.close(grace=5))
    await until(lambda: not running._doorway)
    service.gate.set()
    assert (await asking.answer())[0] == 200
    assert await asking.end() == b""
    data = await asyncio.wait_for(watching.reader.readuntil(b"The launcher ends."), LIMIT)
    assert b"\x03\xe9The launcher ends." in data  # 1001
    await watching.close()
    await asyncio.wait_for(ending, LIMIT)
    late = await Peer.connect(running)  # the listening socket is its maker's, but nobody serves it any more
    late.request()
    await late.writer.drain()
    assert not running._unauthenticated
    for each in (asking, late):
        await each.close()


async def test_tls(service, certificate_and_key):
    certificate, key = certificate_and_key
    sock = listener.listen_tcp("127.0.0.1", 0)
    running = Server(service, ssl_context=listener.tls_context(certificate, key))
    running.listen(sock)
    running.port = sock.getsockname()[1]
    context = ssl.create_default_context(cadata=certificate)
    try:
        silent = await Peer.connect(running)  # stays in its handshake
        garbage = await Peer.connect(running)
        garbage.send("GET / HTTP/1.1\r\n\r\n")
        await garbage.end()
        peer = await Peer.connect(running, ssl=context, server_hostname="launcher-1")
        peer.request("/large")
        assert len((await peer.answer())[2]) == 8 << 20
        peer.send(UPGRADE)
        await asyncio.wait_for(peer.reader.readuntil(b"\r\n\r\n"), LIMIT)
        service.sockets[0].websocket.send(Opcode.BINARY, [memoryview(bytes(range(256)) * (40 << 12))])
        assert (await asyncio.wait_for(peer.reader.readexactly((40 << 20) + 10), LIMIT))[10:] == bytes(range(256)) * (
            40 << 12
        )
        await until(lambda: len(running._unauthenticated) == 1)
        running._unauthenticated and next(iter(running._unauthenticated)).abort()
        assert await silent.end() == b""
        for each in (silent, garbage, peer):
            await each.close()
    finally:
        await running.close()
        sock.close()
    assert not running._tasks


def test_a_listening_socket_out_of_descriptors_rests_and_comes_back(monkeypatch):
    class NoDescriptors:
        def __init__(self, sock):
            self._sock = sock
            self.failures = 1

        def accept(self):
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return self._sock.accept()

        def fileno(self):
            return self._sock.fileno()

        def setblocking(self, flag):
            self._sock.setblocking(flag)

    async def run():
        sock = listener.listen_tcp("127.0.0.1", 0)
        running = Server(EchoService())
        running.port = sock.getsockname()[1]
        running.listen(NoDescriptors(sock))
        peer = await Peer.connect(running)
        peer.request()
        await until(lambda: running._doorway.resting)
        running.tick()
        assert (await peer.answer())[0] == 200
        await peer.close()
        await running.close()
        sock.close()

    asyncio.run(run())


def test_a_closed_port_is_free_again():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listener.listen_tcp("127.0.0.1", port).close()
    listener.listen_tcp("127.0.0.1", port).close()
