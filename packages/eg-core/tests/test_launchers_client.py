"""The launcher's client against a stub that answers well, badly, late and never."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl

import pytest

import splice_support
from eg_core.launchers import client as client_module
from eg_core.launchers.client import LauncherClient, LauncherError, LauncherUnreachable
from eg_core.launchers.stream import SocketStream, start_tls
from eg_launcher import wire
from eg_launcher.websocket import Opcode
from splice_support import StubLauncher, connector, descriptors, frame, json_answer, make_tls, until


@contextlib.asynccontextmanager
async def talking(context=None, **options):
    launcher = StubLauncher()
    await launcher.start(context[0] if context else None)
    client = LauncherClient(connector(launcher.port, context[1] if context else None), "s3cret", **options)
    before = descriptors()
    try:
        yield client, launcher
        await until(lambda: descriptors() <= before, "no descriptor left")
    finally:
        await launcher.stop()


async def test_calls(tmp_path):
    async with talking(make_tls(tmp_path)) as (client, launcher):
        assert (await client.status())["protocol"] == 1
        body = {"argv": ["python"], "env": {"A": "ü" * 1000}}
        assert (await client.start("k-1", body))["body"] == body
        launcher.answers["interrupt"] = b"HTTP/1.1 204 No Content\r\n\r\n"
        await client.interrupt("k-1")
        launcher.answers["shutdown"] = json_answer(202, {})
        await client.shutdown("k-1", 2.5)
        assert (await client.restart("k-1"))["path"] == "/kernels/k-1/restart"
        assert (await client.log("k/1", 7))["path"] == "/kernels/k%2F1/log?after=7"
        methods = [(method, path) for method, path, _, _ in launcher.requests]
        assert methods[:4] == [
            ("GET", "/status"),
            ("POST", "/kernels/k-1/start"),
            ("POST", "/kernels/k-1/interrupt"),
            ("POST", "/kernels/k-1/shutdown"),
        ]
        assert json.loads(launcher.requests[3][3]) == {"grace": 2.5}
        for _, _, headers, _ in launcher.requests:
            assert headers["authorization"] == "Bearer s3cret"
            assert headers["eg-protocol"] == "1"
            assert headers["host"]


async def test_its_errors_in_its_words():
    async with talking() as (client, launcher):
        launcher.answers["start"] = json_answer(400, {"reason": "bad_request", "message": "env has 5000 entries"})
        with pytest.raises(LauncherError, match="env has 5000 entries") as caught:
            await client.start("k", {})
        assert (caught.value.status, caught.value.reason) == (400, "bad_request")
        launcher.answers["start"] = json_answer(500, b"<html>")
        with pytest.raises(LauncherError, match="POST /kernels/k/start with status 500"):
            await client.start("k", {})
        launcher.answers["channels"] = json_answer(404, {"reason": "unknown", "message": "No kernel k."})
        with pytest.raises(LauncherError, match=r"No kernel k\.") as caught:
            await client.open_channels("k", query={"peer": "weak"}, subprotocol=None)
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "99999999999"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "65536"),
        (b"y" * 100_000, "65536"),
        (json_answer(200, b"[1]"), "not a JSON object"),
        (json_answer(200, b"{"), "not JSON"),
        (json_answer(200, b"[" * 100_000), "not JSON"),
    ],
)
async def test_garbage_is_refused_in_words(answer, words):
    async with talking() as (client, launcher):
        launcher.answers["status"] = answer
        with pytest.raises(LauncherError, match="not the launcher protocol") as caught:
            await client.status()
        assert words in str(caught.value)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"])
async def test_an_answer_that_is_cut(answer):
    async with talking() as (client, launcher):
        launcher.answers["status"] = answer
        with pytest.raises(LauncherUnreachable, match="GET /status"):
            await client.status()


async def test_nobody_there():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        client = LauncherClient(connector(sock.getsockname()[1]), "t")
        with pytest.raises(LauncherUnreachable):
            await client.status()
        with pytest.raises(LauncherUnreachable):
            async for _ in client.events():
                pass


@pytest.mark.parametrize("where", ["connect", "answer", "handshake"])
async def test_deadlines_and_cancellation(where):
    listener = socket.create_server(("127.0.0.1", 0))
    hanging = connector(listener.getsockname()[1])
    given: list[socket.socket] = []

    async def connect():
        if where == "connect":
            await asyncio.sleep(3600)
        given.append(await hanging())
        return given[-1]

    client = LauncherClient(connect, "t", timeout=0.05)

    async def call():
        if where == "handshake":
            await client.open_channels("k", query={"peer": "weak"}, subprotocol=None)
        await client.status()

    with listener:
        with pytest.raises(LauncherUnreachable, match=r"0\.05 s") as caught:
            await call()
        assert caught.value.reason == "timeout"
        patient = LauncherClient(connect, "t", timeout=60)
        client = patient
        task = asyncio.create_task(call())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(sock.fileno() == -1 for sock in given)


async def test_a_connection_nobody_waits_for_any_more_is_closed():
    ours, theirs = socket.socketpair()
    started = asyncio.Event()

    async def connect():
        started.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return ours  # it came about in the same moment
        raise AssertionError

    task = asyncio.create_task(LauncherClient(connect, "t").status())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: ours.fileno() == -1, "closed")
    theirs.close()


# -- versions -------------------------------------------------------------------------------------------------


async def test_an_older_launcher_is_spoken_to_in_its_protocol():
    async with talking() as (client, launcher):
        launcher.answers["log"] = json_answer(426, {"message": "I speak 0", "protocol": [0]})
        with pytest.raises(LauncherError, match=r"\[0\]"):
            await client.log("k")  # it still does not like it the second time
        assert [r[2]["eg-protocol"] for r in launcher.requests] == ["1", "0"]
        sock, _, _ = await client.open_channels("k", query={"session_id": "s", "peer": "weak"}, subprotocol=None)
        sock.close()
        assert launcher.requests[-1][2]["eg-protocol"] == "0"


async def test_a_launcher_of_another_age_is_refused_in_words():
    async with talking() as (client, launcher):
        launcher.answers["status"] = json_answer(426, {"message": "no", "protocol": [9, 8]})
        with pytest.raises(LauncherError, match=r"speaks the launcher protocol \[9, 8\]; this gateway speaks 1 and 0"):
            await client.status()
        for protocol in (7, None, "1"):
            launcher.answers["status"] = json_answer(200, {"protocol": protocol})
            with pytest.raises(LauncherError, match="speaks the launcher protocol"):
                await client.status()


# -- channels and events --------------------------------------------------------------------------------------


async def test_open_channels_keeps_what_came_with_the_answer():
    async with talking() as (client, launcher):
        launcher.greeting = frame(Opcode.TEXT, b"status")
        sock, ahead, _ = await client.open_channels(
            "k", query={"session_id": "a b&c", "peer": "gwclient"}, subprotocol=None
        )
        received = ahead or await asyncio.get_running_loop().sock_recv(sock, 100)
        assert received == launcher.greeting
        assert launcher.requests[0][1] == "/kernels/k/channels?session_id=a+b%26c&peer=gwclient"
        sock.close()


@pytest.mark.parametrize("what", ["accept", "protocol", "200"])
async def test_a_wrong_handshake(what, monkeypatch):
    async with talking() as (client, launcher):
        if what == "200":
            launcher.answers["channels"] = json_answer(200, {})
        elif what == "accept":
            launcher.answers["channels"] = b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
        else:
            real = splice_support.handshake
            only_key = lambda headers: real({"sec-websocket-key": headers["sec-websocket-key"]})  # noqa: E731
            monkeypatch.setattr(splice_support, "handshake", only_key)
        with pytest.raises(LauncherError, match="not the launcher protocol"):
            await client.open_channels("k", query={"peer": "weak"}, subprotocol=wire.V1_SUBPROTOCOL)


STATUS = b'{"type": "status", "protocol": 1}'


async def test_events(tmp_path):
    async with talking(make_tls(tmp_path)) as (client, launcher):
        launcher.greeting = frame(Opcode.TEXT, STATUS)
        events = client.events()
        assert await anext(events) == json.loads(STATUS)
        link = launcher.channels[0]
        link.send(frame(Opcode.PING, b"there?") + frame(Opcode.TEXT, b'{"type": "kernel"}'))
        assert await anext(events) == {"type": "kernel"}
        await until(lambda: link.pongs == [b"there?"], "the pong")
        link.reset()
        assert [event async for event in events] == []


@pytest.mark.parametrize("protocol", [wire.PROTOCOL + 1, wire.PROTOCOL - 2, "1", None])
async def test_events_of_a_launcher_that_speaks_otherwise(protocol):
    async with talking() as (client, launcher):
        launcher.greeting = frame(Opcode.TEXT, json.dumps({"type": "status", "protocol": protocol}).encode())
        with pytest.raises(LauncherError, match="this gateway speaks 1 and 0") as refused:
            await anext(client.events())
        assert refused.value.status == 426


@pytest.mark.parametrize("how", ["fin", "close", "garbage", "not-json", "aclose", "cancel", "silence"])
async def test_the_end_of_events(how, monkeypatch):
    async with talking() as (client, launcher):
        launcher.greeting = frame(Opcode.TEXT, STATUS)
        events = client.events()
        await anext(events)
        link = launcher.channels[0]
        if how == "silence":
            monkeypatch.setattr(client_module, "SILENCE", 0.05)
        if how in ("garbage", "not-json"):
            link.send(frame(Opcode.TEXT, b"{") if how == "not-json" else b"\xff\xff")
            with pytest.raises(LauncherError, match="not the launcher protocol"):
                await anext(events)
        elif how == "aclose":
            await events.aclose()
        elif how == "cancel":
            task = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            if how == "fin":
                link.writer.close()
            elif how == "close":
                link.send(frame(Opcode.CLOSE, b""))
            assert [event async for event in events] == []
        await until(lambda: link.ended, "the launcher's side ended")


# -- streams --------------------------------------------------------------------------------------------------


async def test_stream_reads_and_sends():
    ours, theirs = socket.socketpair()
    stream, peer = SocketStream(ours), SocketStream(theirs)
    big = os.urandom(5_000_000)
    sending = asyncio.create_task(peer.send_all(b"head\r\n\r\nab" + big))
    assert await stream.read_until(b"\r\n\r\n", 8) == b"head\r\n\r\n"
    assert await stream.read_exactly(2) == b"ab"
    assert await stream.read_exactly(len(big)) == big
    await sending
    stream.deadline = asyncio.get_running_loop().time() + 0.02
    with pytest.raises(TimeoutError):
        await stream.read()
    await peer.send_all(b"rest")
    stream.deadline = None
    assert await stream.read(1) == b"r"
    peer.close()
    with pytest.raises(EOFError):
        await stream.read_until(b"x", 100)
    sock, ahead = stream.take()
    assert ahead == b"est"
    with pytest.raises(OSError, match="closed"):
        await stream.read()
    sock.close()


async def test_tls_trusts_its_own_and_the_name(tmp_path):
    server, client = make_tls(tmp_path)
    launcher = StubLauncher()
    await launcher.start(server)
    try:
        for context, name in [(client, "launcher-2"), (ssl.create_default_context(), "launcher-1")]:
            sock = await connector(launcher.port)()
            with pytest.raises(ssl.SSLCertVerificationError):
                await start_tls(sock, context, name)
            assert sock.fileno() == -1
    finally:
        await launcher.stop()


async def test_tls_handshake_has_a_deadline(tmp_path):
    _, context = make_tls(tmp_path)
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(TimeoutError):
        await start_tls(ours, context, "launcher-1", timeout=0.02)
