"""The splice with real sockets: a stub launcher behind, raw and real clients in front."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
import tornado.websocket
import websocket
import websockets
from tornado.httpclient import HTTPRequest

from eg_core.handlers import channels as channels_module
from eg_core.handlers import hold as hold_module
from eg_core.handlers.leg import Leg, Switchboard
from eg_core.handlers.splice import FrameBoundary
from eg_core.kernels.states import KernelState
from eg_launcher.websocket import Opcode, frame_header
from eg_launcher.wire import V1_SUBPROTOCOL
from splice_support import (
    KERNEL_ID,
    RawClient,
    close,
    descriptors,
    frame,
    make_tls,
    running,
    until,
)


def readers() -> int:
    """File descriptors the loop watches."""
    return len(asyncio.get_running_loop()._selector.get_map())  # type: ignore[attr-defined]


@pytest.fixture(params=["plain", "tls-launcher", "tls-client", "tls-both"])
def legs(request, tmp_path):
    contexts = make_tls(tmp_path) if request.param != "plain" else None
    return {
        "client_tls": contexts if request.param in ("tls-client", "tls-both") else None,
        "launcher_tls": contexts if request.param in ("tls-launcher", "tls-both") else None,
    }


def context_of(legs) -> ssl.SSLContext | None:
    return legs["client_tls"][1] if legs["client_tls"] else None


# -- the boundary ---------------------------------------------------------------------------------------------


def test_boundary_knows_where_it_stands_however_the_stream_is_cut():
    rng = random.Random(7)
    sizes = [0, 1, 125, 126, 127, 65535, 65536, 70000]
    for _ in range(200):
        stream, ends = b"", set()
        for _ in range(rng.randint(1, 6)):
            stream += frame(rng.choice([1, 2, 9, 10]), b"\x81" * rng.choice(sizes))
            ends.add(len(stream))
        boundary, at = FrameBoundary(), 0
        assert boundary.between
        while at < len(stream):
            size = min(rng.choice([1, 1, 2, 3, 5, 9, 100, 65000, 200000]), len(stream) - at)
            buffer = bytearray(stream[at : at + size] + b"\xff" * 20)  # what is beyond size is not looked at
            boundary.feed(buffer, size)
            at += size
            assert boundary.between == (at in ends), (at, sorted(ends))
        assert not boundary.closed
        assert not boundary.fragmented


def test_boundary_sees_close_and_fragments():
    boundary = FrameBoundary()
    for data, closed, fragmented in [
        (frame(1, b"ab", fin=False), False, True),
        (frame(9, b"ping"), False, True),
        (frame(0, b"cd", fin=False), False, True),
        (frame(0, b"ef"), False, False),
        (close(1000), True, False),
    ]:
        boundary.feed(data, len(data))
        assert (boundary.closed, boundary.fragmented) == (closed, fragmented)
        assert boundary.between


# -- out of tornado -------------------------------------------------------------------------------------------


async def test_the_socket_leaves_tornado_with_everything_read_ahead(legs):
    """Fails when tornado changes what ``take_socket`` touches."""
    async with running(**legs) as (gateway, launcher):
        hello = f"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n\r\n".encode()
        pipelined = b"".join(frame(1, f"early {i}".encode(), masked=True) for i in range(50))
        client = await RawClient.connect(
            gateway, before=hello, pipelined=pipelined + frame(2, b"z" * 300_000, masked=True), context=context_of(legs)
        )
        assert client.status == 101
        assert client.headers["Connection"] == "Upgrade"
        assert "Sec-WebSocket-Extensions" not in client.headers
        for i in range(50):
            assert await client.receive() == (Opcode.TEXT, f"early {i}".encode())
        assert await client.receive() == (Opcode.BINARY, b"z" * 300_000)
        assert gateway.logged == [(200, "/hello"), (101, f"/api/kernels/{KERNEL_ID}/channels")]
        assert gateway.legs == 2
        await client.close()
        await until(lambda: gateway.legs == 0, "both legs closed")
        await until(lambda: launcher.channels[0].ended, "the launcher's side closed")


async def test_ping_pong_and_close_pass_untouched(legs):
    async with running(**legs) as (gateway, launcher):
        client = await RawClient.connect(gateway, context=context_of(legs))
        client.send(Opcode.PING, b"p" * 125)
        assert await client.receive() == (Opcode.PONG, b"p" * 125)
        await until(lambda: gateway.legs == 2, "spliced")
        launcher.channels[0].send(frame(Opcode.PING, b"\x00" * 7 + b"\x05"))
        assert await client.receive() == (Opcode.PING, b"\x00" * 7 + b"\x05")
        client.send(Opcode.PONG, b"\x00" * 7 + b"\x05")
        await until(lambda: launcher.channels[0].pongs == [b"\x00" * 7 + b"\x05"], "the pong")
        client.send(Opcode.CLOSE, b"\x03\xe8bye")
        assert await client.receive() == (Opcode.CLOSE, b"\x03\xe8bye")
        await client.ended()  # at once: the launcher has answered and ended
        await until(lambda: gateway.legs == 0, "both legs closed", 0.4)
        await client.close()


async def test_large_messages_both_ways(legs):
    size = 50 * 1024 * 1024
    async with running(**legs) as (gateway, _launcher):
        client = await RawClient.connect(gateway, context=context_of(legs))
        payload = os.urandom(1 << 16) * (size >> 16)
        client.send(Opcode.BINARY, payload)
        opcode, received = await client.receive(60)
        assert opcode is Opcode.BINARY
        assert received == payload
        await client.close()


async def test_many_small_messages_keep_their_order(legs):
    async with running(**legs) as (gateway, _launcher):
        client = await RawClient.connect(gateway, context=context_of(legs))
        for i in range(5000):
            client.send(Opcode.TEXT, b"%d" % i)
        for i in range(5000):
            assert await client.receive() == (Opcode.TEXT, b"%d" % i)
        await client.close()


# -- clients --------------------------------------------------------------------------------------------------


async def test_client_aiohttp():
    async with (
        running() as (gateway, _),
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url, compress=15, max_msg_size=0) as ws,
    ):
        await ws.send_str("hello")
        assert (await ws.receive(20)).data == "hello"
        await ws.send_bytes(b"\0" * 5_000_000)
        assert (await ws.receive(20)).data == b"\0" * 5_000_000


async def test_client_websockets():
    offered = ["a", V1_SUBPROTOCOL]
    async with (
        running() as (gateway, _),
        websockets.connect(gateway.url, max_size=None, subprotocols=offered) as ws,
    ):
        assert ws.subprotocol == V1_SUBPROTOCOL
        await ws.send("hello")
        assert await ws.recv() == "hello"
        await ws.send(b"\0" * 5_000_000)
        assert await ws.recv() == b"\0" * 5_000_000
        await (await ws.ping())


async def test_client_tornado():
    async with running() as (gateway, _launcher):
        request = HTTPRequest(f"{gateway.url}?session_id=x", headers={"Accept-Encoding": "gzip"})
        ws = await tornado.websocket.websocket_connect(request, ping_interval=20)
        await ws.write_message("hello")
        assert await ws.read_message() == "hello"
        ws.close(1000)
        assert await ws.read_message() is None
        (opened,) = gateway.kernel.opened
        assert (opened["query"]["session_id"], opened["query"]["peer"]) == ("x", "gwclient")


async def test_client_websocket_client():
    def talk(url: str) -> list:
        ws = websocket.create_connection(url, timeout=20)
        ws.send("hello")
        said = [ws.recv()]
        ws.send_binary(b"\0" * 5_000_000)
        said.append(ws.recv())
        ws.close(timeout=5)
        return said

    async with running() as (gateway, _):
        with ThreadPoolExecutor(1) as pool:
            said = await asyncio.get_running_loop().run_in_executor(pool, talk, gateway.url)
        assert said == ["hello", b"\0" * 5_000_000]
        await until(lambda: gateway.legs == 0, "both legs closed")


# -- ends -----------------------------------------------------------------------------------------------------


ENDS = (
    "warm-up",
    "client-fin",
    "client-rst",
    "launcher-rst-between",
    "launcher-fin-mid-frame",
    "client-rst-full",
)


async def test_no_end_leaves_a_descriptor_or_a_watcher(legs, monkeypatch):
    """Whoever goes, and however: both legs are closed."""
    monkeypatch.setattr(channels_module, "VERDICT_WITHIN", 0.3)
    async with running(**legs) as (gateway, launcher):
        before = None
        for how in ENDS:
            launcher.channels.clear()
            client = await RawClient.connect(gateway, context=context_of(legs))
            client.send(Opcode.TEXT, b"one")
            assert await client.receive() == (Opcode.TEXT, b"one")
            channels = launcher.channels[0]
            if how == "client-rst":
                client.reset()
            elif how == "client-rst-full":
                client.send(Opcode.TEXT, b"flood 2000 10000")
                await client.receive()
                client.reset()
            elif how == "launcher-rst-between":
                channels.reset()
                assert (await client.receive_close())[0][0] == 1012
                await client.ended()
            elif how == "launcher-fin-mid-frame":
                channels.send(frame_header(Opcode.TEXT, 100) + b"cut")
                await client.reader.readexactly(5)
                channels.writer.close()
                await client.ended()
            await client.close()
            await until(lambda: gateway.legs == 0, f"{how}: both legs closed")
            await until(lambda c=channels: c.ended, f"{how}: the launcher's side ended")
            assert not gateway.kernel.sockets
            if before is None:
                before = descriptors(), readers()
            await until(lambda b=before: (descriptors(), readers()) == b, f"{how}: descriptors as before")


async def test_what_the_client_sent_last_arrives_although_it_left():
    async with running() as (gateway, launcher):
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, b"hello")
        await client.receive()
        launcher.channels[0].echo = False
        for i in range(200):
            client.send(Opcode.BINARY, b"%d" % i * 1000)
        await client.close()
        await until(lambda: launcher.channels[0].ended, "the launcher's side ended")
        assert [p for _, p in launcher.channels[0].received[1:]] == [b"%d" % i * 1000 for i in range(200)]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls-launcher"])
async def test_what_the_client_sent_last_arrives_although_nobody_takes_the_answers(tmp_path, tls):
    """The gateway has unread answers when the client goes: closing with them would take away what went before."""
    async with running(launcher_tls=make_tls(tmp_path) if tls else None) as (gateway, launcher):
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, b"hello")
        await client.receive()
        client.writer.transport.pause_reading()
        client.writer.write(b"".join(frame(Opcode.BINARY, b"%d" % i * 1000, masked=True) for i in range(2000)))
        await client.writer.drain()
        await until(lambda: client.writer.transport.get_write_buffer_size() == 0, "all sent")
        await client.close()
        await until(lambda: launcher.channels[0].ended, "the launcher's side ended")
        assert len(launcher.channels[0].received) == 2001
        await until(lambda: gateway.legs == 0, "both legs closed")


async def test_close_waits_for_a_kernel_that_still_talks():
    async with running() as (gateway, _):
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, b"flood 3000 50000")
        await client.receive()
        (client_socket,) = gateway.kernel.sockets
        client_socket.close(4002, "Ended.")
        (code, _), before = await client.receive_close()
        assert (code, len(before)) == (4002, 2999)


@pytest.mark.parametrize("held", [False, True])
async def test_what_openssl_has_decrypted_is_not_left_there(tmp_path, monkeypatch, held):
    """No selector tells of it: a record that is longer than what is read at a time must be read to its end."""
    monkeypatch.setattr(hold_module, "HELD_MAX", 500)
    contexts = make_tls(tmp_path)
    async with running(client_tls=contexts, launcher_tls=contexts) as (gateway, _):
        board = gateway.application.settings["switchboard"] = Switchboard()
        board.buffer = bytearray(500)
        board.view = memoryview(board.buffer)
        gateway.kernel.state = KernelState.STARTING if held else KernelState.READY
        client = await RawClient.connect(gateway, context=contexts[1])
        await until(lambda: gateway.legs == (1 if held else 2), "there")
        client.send(Opcode.BINARY, b"r" * 12_000)
        if held:
            (client_socket,) = gateway.kernel.sockets
            await until(lambda: not client_socket._hold._leg._reading, "not read any more")
            gateway.kernel.state = KernelState.READY
        assert await client.receive() == (Opcode.BINARY, b"r" * 12_000)


async def test_close_is_said_after_the_kernels_last_words(legs):
    async with running(**legs) as (gateway, launcher):
        client = await RawClient.connect(gateway, context=context_of(legs))
        await until(lambda: gateway.legs == 2, "spliced")
        (client_socket,) = gateway.kernel.sockets
        client_socket.close(4001, "The kernel died: signal 9.")  # the registry is faster than the channels
        launcher.channels[0].send(frame(Opcode.TEXT, b"last words"))
        (code, reason), before = await client.receive_close()
        assert (code, reason) == (4001, "The kernel died: signal 9.")
        assert before == [(Opcode.TEXT, b"last words")]
        await client.ended()
        await until(lambda: gateway.legs == 0, "both legs closed")
        await client.close()


async def test_close_waits_for_the_frame_to_end():
    async with running() as (gateway, launcher):
        client = await RawClient.connect(gateway)
        await until(lambda: gateway.legs == 2, "spliced")
        channels = launcher.channels[0]
        channels.send(frame_header(Opcode.TEXT, 6) + b"abc")
        await client.reader.readexactly(5)
        (client_socket,) = gateway.kernel.sockets
        client_socket.close(1012, "Draining.")
        await asyncio.sleep(0)
        channels.send(b"def")
        assert await client.reader.readexactly(3) == b"def"
        assert (await client.receive_close())[0] == (1012, "Draining.")
        await client.close()


async def test_close_cuts_where_the_frame_never_ends():
    async with running() as (gateway, launcher):
        client = await RawClient.connect(gateway)
        await until(lambda: gateway.legs == 2, "spliced")
        launcher.channels[0].send(frame_header(Opcode.TEXT, 6) + b"abc")
        assert await client.reader.readexactly(5) == b"\x81\x06abc"
        (client_socket,) = gateway.kernel.sockets
        client_socket.close(4002, "Ended.")
        assert await asyncio.wait_for(client.reader.read(), 5) == b""
        await until(lambda: gateway.legs == 0, "both legs closed")
        await client.close()


async def test_a_lost_launcher_of_a_dead_kernel():
    async with running() as (gateway, launcher):
        client = await RawClient.connect(gateway)
        await until(lambda: gateway.legs == 2, "spliced")
        gateway.kernel.state = KernelState.DEAD
        launcher.channels[0].reset()
        (code, reason), before = await client.receive_close()
        assert (code, reason) == (4001, "The kernel exited with code 3.")
        (message,) = [json.loads(payload) for _, payload in before]
        assert message["content"] == {"execution_state": "dead"}
        assert message["header"]["session"] == "kernel-session"
        assert message["channel"] == "iopub"
        await client.close()


async def test_a_lost_launcher_and_the_registrys_word():
    async with running() as (gateway, launcher):
        client = await RawClient.connect(gateway)
        await until(lambda: gateway.legs == 2, "spliced")
        (client_socket,) = gateway.kernel.sockets
        launcher.channels[0].reset()
        await until(lambda: gateway.legs == 1, "the launcher's leg lost")
        client_socket.close(4003, "The launcher was killed.")
        (code, reason), before = await client.receive_close()
        assert (code, reason) == (4003, "The launcher was killed.")
        assert b'"dead"' in before[0][1]
        await client.close()


# -- back-pressure in the small -------------------------------------------------------------------------------


async def test_a_leg_keeps_what_the_socket_does_not_take():
    board = Switchboard()
    ours, theirs = socket.socketpair()
    events = []

    class Owner:
        def readable(self, leg):
            raise AssertionError

        def drained(self, leg):
            events.append(len(leg.out))

        def broken(self, leg):
            events.append("broken")

    leg = Leg(board, ours, Owner())
    data = os.urandom(4_000_000)
    leg.send(data[:3_000_000])
    leg.send(data[3_000_000:])
    assert 0 < len(leg.out) < len(data)
    theirs.setblocking(False)
    received = bytearray()
    while len(received) < len(data):
        try:
            received += theirs.recv(100_000)
        except BlockingIOError:
            await asyncio.sleep(0)
    assert bytes(received) == data
    await until(lambda: events and events[-1] == 0, "drained")
    theirs.close()
    leg.send(b"x")
    assert leg.failed
    assert events[-1] == "broken"
    leg.close()
    assert not board.legs
