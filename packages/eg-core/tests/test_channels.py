"""The upgrade, and the way of a client whose kernel is not there yet, comes late, or never comes."""

from __future__ import annotations

import asyncio
import json
import struct
from urllib.parse import parse_qsl

import pytest

from eg_core.errors import BackendUnavailable
from eg_core.handlers import hold
from eg_core.handlers.leg import Switchboard, Timers
from eg_core.kernels.states import KernelState
from eg_launcher import frames
from eg_launcher.websocket import Opcode
from eg_launcher.wire import V1_SUBPROTOCOL
from splice_support import KERNEL_ID, RawClient, frame, json_answer, make_tls, request, running, until, upgrade_request

CHANNELS = f"/api/kernels/{KERNEL_ID}/channels"


def said(payload: bytes) -> tuple[str, str, dict]:
    message = json.loads(payload)
    return message["channel"], message["msg_type"], message["content"]


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def legs(request, tmp_path):
    contexts = make_tls(tmp_path) if request.param else None
    return {"client_tls": contexts, "launcher_tls": contexts}


# -- the upgrade ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Upgrade": None}, 426, "Upgrade"),
        ({"Connection": "keep-alive"}, 426, "Upgrade"),
        ({"Sec-WebSocket-Version": "8"}, 426, "'8'"),
        ({"Sec-WebSocket-Key": "short"}, 400, "16 bytes"),
        ({"Sec-WebSocket-Key": None}, 400, "16 bytes"),
        ({"Origin": "http://evil.example"}, 403, "origin"),
        ({"Authorization": "token wrong"}, 401, "token"),
    ],
)
async def test_upgrade_refused(headers, status, words):
    async with running(token="right") as (gateway, _launcher):
        client = await RawClient.connect(gateway, headers={"Authorization": "token right", **headers})
        assert client.status == status
        assert words in json.loads(client.body)["message"]
        assert not gateway.kernel.sockets
        if status == 426:
            assert "websocket" in (client.headers.get("Upgrade"), "websocket")
        await client.close()


async def test_upgrade_of_a_kernel_that_is_not_there():
    async with running() as (gateway, _):
        client = await RawClient.connect(gateway, path="/api/kernels/00000000-0-0-0-0/channels")
        assert client.status == 404
        await client.close()
        gateway.kernel.state = KernelState.DEAD
        client = await RawClient.connect(gateway)
        assert client.status == 404
        assert json.loads(client.body)["message"] == "The kernel exited with code 3."
        await client.close()


async def test_connection_header_of_firefox_and_same_origin():
    async with running() as (gateway, _):
        headers = {"Connection": "keep-alive, Upgrade", "Origin": f"http://127.0.0.1:{gateway.port}"}
        client = await RawClient.connect(gateway, headers=headers)
        assert client.status == 101
        await client.close()


@pytest.mark.parametrize(
    ("headers", "path", "peer", "subprotocol"),
    [
        ({"User-Agent": "Tornado/6.6.1"}, "", "gwclient", None),
        ({"User-Agent": "Tornado/6.6.1", "Sec-WebSocket-Protocol": V1_SUBPROTOCOL}, "", "weak", V1_SUBPROTOCOL),
        ({"Origin": "http://HOST", "User-Agent": "Mozilla/5.0"}, "", "weak", None),
        ({"Origin": "http://HOST", "User-Agent": "Tornado/6"}, "", "weak", None),
        ({"Sec-WebSocket-Protocol": f"other, {V1_SUBPROTOCOL}"}, "", "strong", V1_SUBPROTOCOL),
        ({"Sec-WebSocket-Protocol": "other"}, "", "strong", None),
        ({}, f"{CHANNELS}?after=0123456789ab.7", "exact", None),
    ],
)
async def test_peer_and_subprotocol(headers, path, peer, subprotocol):
    async with running() as (gateway, launcher):
        headers = {k: v.replace("HOST", f"127.0.0.1:{gateway.port}") for k, v in headers.items()}
        client = await RawClient.connect(gateway, headers=headers, path=path)
        assert client.status == 101
        assert client.headers.get("Sec-WebSocket-Protocol") == subprotocol
        (about,) = await until(lambda: gateway.kernel.opened)
        assert (about["query"]["peer"], about["subprotocol"]) == (peer, subprotocol)
        channels = await until(lambda: launcher.channels)
        assert channels[0].headers.get("sec-websocket-protocol") == subprotocol
        await client.close()


async def test_an_upgrade_of_http_1_0_is_refused_in_words():
    async with running() as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(upgrade_request(gateway, CHANNELS, {}).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"HTTP/1.1, not with HTTP/1.0" in answer
        assert gateway.kernel.opened == []


@pytest.mark.parametrize(
    "query", ["after=ab.7", "after=0123456789ab", "after=0123456789ab.1&skip=x", "session_id=" + "s" * 300]
)
async def test_what_an_exact_peer_says_is_checked(query):
    async with running() as (gateway, _):
        client = await RawClient.connect(gateway, path=f"{CHANNELS}?{query}")
        assert client.status == 400
        assert gateway.kernel.opened == []


async def test_an_exact_peer_and_its_session_are_told_to_the_launcher():
    async with running() as (gateway, launcher):
        client = await RawClient.connect(gateway, path=f"{CHANNELS}?session_id=s&after=0123456789ab.7.3&skip=2")
        channels = await until(lambda: launcher.channels)
        query = dict(parse_qsl(channels[0].path.partition("?")[2]))
        assert len(query.pop("link")) == 32
        assert query == {"peer": "exact", "session_id": "s", "after": "0123456789ab.7.3", "skip": "2"}
        await client.close()


# -- held -----------------------------------------------------------------------------------------------------


async def test_held_frames_arrive_in_order_once_the_kernel_is_there(legs):
    async with running(**legs) as (gateway, launcher):
        gateway.kernel.state, gateway.kernel.session = KernelState.LAUNCHING, None
        context = legs["client_tls"][1] if legs["client_tls"] else None
        early = frame(1, b"0", masked=True)
        client = await RawClient.connect(gateway, pipelined=early, context=context)
        assert said((await client.receive())[1]) == ("iopub", "status", {"execution_state": "starting"})
        client.send(Opcode.PING, b"there?")
        client.send(Opcode.TEXT, b"1")
        client.send(Opcode.PONG, b"unasked")
        client.send(Opcode.BINARY, b"2", fin=False)
        client.send(Opcode.PING, b"between fragments")
        client.send(Opcode.CONTINUATION, b"3")
        assert await client.receive() == (Opcode.PONG, b"there?")
        assert await client.receive() == (Opcode.PONG, b"between fragments")
        cut = frame(1, b"4" * 1000, masked=True)
        client.writer.write(cut[:500])
        await client.writer.drain()
        gateway.kernel.state = KernelState.READY
        await until(lambda: launcher.channels and len(launcher.channels[0].received) == 3, "what was held")
        client.writer.write(cut[500:])
        await until(lambda: len(launcher.channels[0].received) == 4, "the cut frame")
        assert [p for _, p in launcher.channels[0].received] == [b"0", b"1", b"23", b"4" * 1000]
        assert not launcher.channels[0].pongs
        for word in (b"0", b"1", b"23", b"4" * 1000):
            assert (await client.receive())[1] == word
        await client.close()


async def test_starting_is_said_only_of_a_kernel_that_never_spoke():
    async with running() as (gateway, _launcher):
        gateway.kernel.state = KernelState.RESTARTING
        client = await RawClient.connect(gateway)
        client.send(Opcode.PING, b"1")
        assert await client.receive() == (Opcode.PONG, b"1")
        gateway.kernel.state = KernelState.READY
        client.send(Opcode.TEXT, b"x")
        assert await client.receive() == (Opcode.TEXT, b"x")
        await client.close()


@pytest.mark.parametrize("one_frame", [True, False])
async def test_no_more_is_held_than_may_be_and_nothing_is_lost(legs, one_frame):
    async with running(**legs) as (gateway, launcher):
        gateway.kernel.state = KernelState.STARTING
        launcher.echo = False
        context = legs["client_tls"][1] if legs["client_tls"] else None
        client = await RawClient.connect(gateway, context=context)
        (client_socket,) = gateway.kernel.sockets
        count = 1 if one_frame else 200
        for i in range(count):
            client.send(Opcode.BINARY, bytes([i]) * (20_000_000 // count))
        await until(lambda: client_socket._hold._size >= hold.HELD_MAX, "held all that may be")
        assert client_socket._hold._size <= hold.HELD_MAX + 256 * 1024
        leg = client_socket._hold._leg
        assert not leg._reading
        gateway.kernel.state = KernelState.READY
        await until(lambda: launcher.channels and len(launcher.channels[0].received) == count, "all of it")
        assert [p[:1] for _, p in launcher.channels[0].received] == [bytes([i]) for i in range(count)]
        await client.close()


async def test_the_client_is_pinged_while_it_waits():
    async with running() as (gateway, _):
        gateway.application.settings["switchboard"] = Switchboard(ping_every=0.02)
        gateway.kernel.state = KernelState.LAUNCHING
        client = await RawClient.connect(gateway)
        for _ in range(3):
            assert (await client.receive())[0] is Opcode.PING
        gateway.kernel.state = KernelState.READY
        client.send(Opcode.TEXT, b"x")
        while (await client.receive())[0] is not Opcode.TEXT:
            pass
        await client.close()


async def test_a_client_that_floods_pings_and_never_reads_is_not_read_for_ever():
    async with running() as (gateway, _):
        gateway.kernel.state = KernelState.LAUNCHING
        client = await RawClient.connect(gateway)
        (client_socket,) = gateway.kernel.sockets
        client.writer.transport.pause_reading()
        client.writer.write(frame(Opcode.PING, b"p" * 125, masked=True) * 200_000)
        leg = client_socket._hold._leg
        await until(lambda: not leg._reading, "not read any more")
        assert len(leg.out) < 1024 * 1024
        client.writer.transport.abort()
        await until(lambda: gateway.legs == 0, "closed")


@pytest.mark.parametrize("how", ["close", "close-without-code", "fin", "rst", "garbage", "kernel-arrives-then-fin"])
async def test_a_client_that_leaves_while_it_waits(how):
    async with running() as (gateway, _launcher):
        gateway.kernel.state = KernelState.LAUNCHING
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, request("execute_request"))
        if how.startswith("close"):
            client.send(Opcode.CLOSE, b"" if how == "close-without-code" else b"\x03\xe9going")
            assert await client.receive() == (Opcode.CLOSE, b"" if how == "close-without-code" else b"\x03\xe9")
            await client.ended()
        elif how == "rst":
            client.reset()
        elif how == "garbage":
            client.writer.write(b"\x81\x05hello")  # not masked
            (code, reason), _ = await client.receive_close()
            assert code == 1002
            assert "masked" in reason
        elif how == "kernel-arrives-then-fin":
            gateway.kernel.state = KernelState.READY
        if how != "rst":
            await client.close()
        await until(lambda: gateway.legs == 0, "closed")
        await until(lambda: not gateway.kernel.sockets, "forgotten")
        await until(lambda: not any("channels of" in task.get_name() for task in asyncio.all_tasks()), "no task")


# -- the launcher does not answer -----------------------------------------------------------------------------


async def test_a_launcher_that_is_away_for_a_moment():
    async with running() as (gateway, launcher):
        launcher.answers["channels"] = json_answer(500, {"reason": "busy", "message": "Not now."})
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, b"held")
        await until(lambda: len(gateway.kernel.opened) >= 2, "tried again")
        launcher.answers.clear()
        assert await client.receive() == (Opcode.TEXT, b"held")
        await client.close()


async def test_a_kernel_that_dies_while_its_launcher_is_away():
    async with running() as (gateway, launcher):
        launcher.answers["channels"] = b""
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, request("kernel_info_request"))
        await until(lambda: gateway.kernel.opened, "tried")
        gateway.kernel.state = KernelState.DEAD
        (code, reason), before = await client.receive_close()
        assert (code, reason) == (4001, "The kernel exited with code 3.")
        assert [said(p)[1] for _, p in before] == ["kernel_info_reply", "status", "status"]
        await client.close()


async def test_a_mistake_of_ours_does_not_leave_a_client_hanging(monkeypatch, caplog):
    async with running() as (gateway, _):

        async def broken(**about):
            raise RuntimeError("oops")

        gateway.kernel.open_channels = broken
        client = await RawClient.connect(gateway)
        assert (await client.receive_close())[0][0] == 1012
        assert "oops" in caplog.text
        await client.close()


async def test_the_backend_is_away():
    async with running() as (gateway, _launcher):
        real, failures = gateway.kernel.open_channels, iter([BackendUnavailable("away"), OSError("refused")])

        async def sometimes(**about):
            for error in failures:
                raise error
            return await real(**about)

        gateway.kernel.open_channels = sometimes
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, b"held")
        assert await client.receive() == (Opcode.TEXT, b"held")
        await client.close()


# -- the kernel never comes -----------------------------------------------------------------------------------


def v1_request(msg_type: str, msg_id: str) -> bytes:
    header = json.dumps({"msg_id": msg_id, "msg_type": msg_type, "session": "client"}).encode()
    opcode, buffers = frames.encode("shell", [header, b"{}", b"{}", b"{}", b"buffer"], V1_SUBPROTOCOL)
    assert opcode is Opcode.BINARY
    return b"".join(buffers)


@pytest.mark.parametrize("by", ["state", "registry"])
@pytest.mark.parametrize("subprotocol", [None, V1_SUBPROTOCOL])
async def test_a_launch_that_fails_ends_every_request(by, subprotocol):
    async with running() as (gateway, _):
        gateway.kernel.state, gateway.kernel.session = KernelState.LAUNCHING, None
        client = await RawClient.connect(gateway, headers={"Sec-WebSocket-Protocol": subprotocol})
        if subprotocol:
            client.send(Opcode.BINARY, v1_request("execute_request", "e1"))
            client.send(Opcode.BINARY, v1_request("kernel_info_request", "k1"))
            client.send(Opcode.BINARY, b"nonsense")
        else:
            client.send(Opcode.TEXT, request("execute_request", msg_id="e1"), fin=True)
            text = request("kernel_info_request", channel="control", msg_id="k1")
            client.send(Opcode.TEXT, text[:20], fin=False)
            client.send(Opcode.CONTINUATION, text[20:])
            client.send(Opcode.TEXT, b"nonsense")
            client.send(Opcode.TEXT, request("input_reply", channel="stdin"))
            client.send(Opcode.TEXT, request("comm_open"))
        client.send(Opcode.PING, b"all sent")
        first = [await client.receive(), await client.receive()]
        assert first[1] == (Opcode.PONG, b"all sent")
        why = "No python3 on this host: ü"
        gateway.kernel.failure = why
        if by == "state":
            gateway.kernel.state = KernelState.DEAD
        else:
            next(iter(gateway.kernel.sockets)).close(4000, why)
        (code, reason), before = await client.receive_close()
        assert (code, reason) == (4000, why)
        decoded = [frames.decode(opcode, payload, subprotocol) for opcode, payload in [first[0], *before]]
        assert {m.header["session"] for m in decoded} == {KERNEL_ID}
        got = [
            (m.channel, m.header["msg_type"], json.loads(m.parts[1]).get("msg_id"), json.loads(m.parts[3]))
            for m in decoded
        ]
        control = "shell" if subprotocol else "control"
        assert [(c, t, p, d.get("status") or d.get("execution_state") or d["evalue"]) for c, t, p, d in got] == [
            ("iopub", "status", None, "starting"),
            ("iopub", "error", "e1", why),
            ("shell", "execute_reply", "e1", "error"),
            ("iopub", "status", "e1", "idle"),
            (control, "kernel_info_reply", "k1", "error"),
            ("iopub", "status", "k1", "idle"),
            ("iopub", "status", None, "dead"),
        ]
        assert got[2][3]["evalue"] == why
        await client.ended()
        await client.close()
        await until(lambda: gateway.legs == 0 and not gateway.kernel.sockets, "all closed")


async def test_draining_while_held_says_nothing_but_close():
    async with running() as (gateway, _):
        gateway.kernel.state = KernelState.LAUNCHING
        client = await RawClient.connect(gateway)
        client.send(Opcode.TEXT, request("execute_request"))
        client.send(Opcode.PING, b"")
        await client.receive()
        next(iter(gateway.kernel.sockets)).close(1012, "The gateway is restarting.")
        assert await client.receive_close() == ((1012, "The gateway is restarting."), [])
        board = gateway.application.settings["switchboard"]
        await client.close()
        await board.drained(5)
        assert not board.legs


async def test_a_reason_longer_than_a_close_frame():
    async with running() as (gateway, _):
        client = await RawClient.connect(gateway)
        await until(lambda: gateway.legs == 2, "spliced")
        next(iter(gateway.kernel.sockets)).close(4001, "ü" * 100)
        assert (await client.receive_close())[0] == (4001, "ü" * 61)
        await client.close()


# -- timers ---------------------------------------------------------------------------------------------------


async def test_timers_run_in_order_and_survive_a_failing_one():
    loop, ran, failures = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    timers = Timers(loop)

    def fail() -> None:
        raise RuntimeError

    timers.after(0.03, lambda: ran.append("last"))
    timers.after(0.02, fail)
    timers.after(0.01, lambda: timers.after(0.0, lambda: ran.append("nested")))
    timers.after(0.0, lambda: ran.append("first"))
    timers.after(0.0, lambda: ran.append("cancelled")).cancel()
    await until(lambda: "last" in ran, "all ran")
    assert ran == ["first", "nested", "last"]
    assert len(failures) == 1
    timers.after(60, fail)
    timers.close()


def test_frame_of_our_own_in_v1():
    raw = hold.status("dead", session="s", subprotocol=V1_SUBPROTOCOL)
    assert raw[0] == 0x82
    payload = raw[4:] if raw[1] == 126 else raw[2:]
    (count,) = struct.unpack_from("<Q", payload)
    assert count == 6
    assert frames.decode(Opcode.BINARY, payload, V1_SUBPROTOCOL).channel == "iopub"
