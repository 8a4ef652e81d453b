"""Bad input on a kernel's channels and on the launcher's port: told, and nobody else notices."""

from __future__ import annotations

import re
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from eg_integration.channels import V1, Channels
from eg_integration.gateway import Gateway
from eg_integration.processes import resident
from eg_integration.raw import KEY, frame, head, raw_socket, read_all, read_until, upgrade
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MIB = 1024 * 1024
POST = "POST /api/kernels HTTP/1.1"
ANYTHING = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture
def kernel(gateway: Gateway) -> Iterator[str]:
    """A kernel that must still answer after the test."""
    kernel_id = gateway.start_kernel()
    yield kernel_id
    with gateway.connect(kernel_id) as client:
        assert client.value("6 * 7") == 42


@pytest.fixture(scope="module")
def shared(
    gateway_factory: Callable[..., Gateway], pytestconfig: pytest.Config
) -> Iterator[tuple[Gateway, str, Channels]]:
    """A gateway, its only kernel, and a client of that which must not notice any garbage."""
    made = gateway_factory("garbage")
    try:
        kernel_id = made.start().start_kernel()
        with made.connect(kernel_id) as bystander:
            yield made, kernel_id, bystander
    finally:
        made.end()


def test_frames_behind_the_upgrade_arrive_and_its_body_is_none(gateway: Gateway, kernel: str) -> None:
    """However the stream is cut, gateway, launcher and client agree on where the first frame begins."""
    ping = frame(0x9, b"still here")
    pong = b"\x8a\x0astill here"
    before = head(gateway, "GET /api HTTP/1.1")
    for request in (
        upgrade(gateway, kernel),
        before * 50 + upgrade(gateway, kernel),
        upgrade(gateway, kernel, "Content-Length: 5") + b"hello",
        upgrade(gateway, kernel, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    ):
        with raw_socket(gateway) as sock:
            sock.sendall(request + ping)
            data = read_until(sock, pong)
        assert data.count(b"HTTP/1.1 101 ") == 1
        assert b"HTTP/1.1 " not in data[data.index(b" 101 ") :]


def test_no_request_is_answered_behind_the_upgrade(gateway: Gateway, kernel: str) -> None:
    with raw_socket(gateway) as sock:
        sock.sendall(upgrade(gateway, kernel) + head(gateway, POST, "Content-Length: 0"))
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"\x03\xea" in data  # 1002
    assert [model["id"] for model in gateway.list_kernels()] == [kernel]


@pytest.mark.parametrize(
    "headers",
    [
        ("Sec-WebSocket-Key: eA==",),
        ("Host: evil.example",),
        ("Sec-WebSocket-Version: 8",),
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Sec-WebSocket-Protocol: a\x0bb",),
    ],
)
def test_an_upgrade_that_is_wrong_is_refused(gateway: Gateway, kernel: str, headers: tuple[str, ...]) -> None:
    with raw_socket(gateway) as sock:
        sock.sendall(upgrade(gateway, kernel, *headers))
        assert re.match(rb"HTTP/1\.1 4\d\d ", read_until(sock, b"\r\n\r\n"))


def test_a_clients_words_do_not_reach_the_launchers_request(gateway: Gateway, kernel: str) -> None:
    """What is in the query of the one is a value in the query of the other."""
    for query in (
        "?session_id=a%0d%0aX-Evil:%20y%0d%0a%0d%0a",
        "?session_id=a%26peer%3Dexact%20HTTP/1.1",
        "?session_id=%00",
    ):
        with raw_socket(gateway) as sock:
            sock.sendall(upgrade(gateway, kernel, query=query) + frame(0x9, b"x"))
            assert read_until(sock, b"\x8a\x01x").count(b"HTTP/1.1") == 1


GARBAGE: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "not masked": (b"\x81\x02{}", (1002,)),
    "reserved bits": (frame(0x1, b"{}", first=0xF0), (1002,)),
    "an unknown opcode": (frame(0x5, b"{}"), (1002,)),
    "a long ping": (frame(0x9, b"x" * 200), (1002,)),
    "a ping in fragments": (frame(0x9, b"x", first=0), (1002,)),
    "a continuation of nothing": (frame(0x0, b"x"), (1002,)),
    "a length of 2**63": (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + bytes(4), (1002, 1009)),
    "64 GiB": (b"\x82\xff" + struct.pack(">Q", 1 << 36) + bytes(4), (1009,)),
    "no UTF-8": (frame(0x1, b"\xff\xfe"), (1007, 1003, 1008, 0)),
    "no JSON": (frame(0x1, b"{"), (0,)),
    "no object": (frame(0x1, b"[]"), (0,)),
    "no header": (frame(0x1, b'{"channel": "shell"}'), (0,)),
    "an unknown channel": (frame(0x1, b'{"channel": "\\u0000", "header": {"msg_type": "x", "msg_id": "y"}}'), (0,)),
    "a wrong type everywhere": (frame(0x1, b'{"channel": 1, "header": 2, "content": 3, "buffers": 4}'), (0,)),
    "offsets beyond the end": (frame(0x2, struct.pack("<QQQ", 2, 1 << 60, 1 << 61) + b"x" * 50), (0,)),
    "half a header": (frame(0x2, b"\x01"), (0,)),
    "a close of one byte": (frame(0x8, b"\x03"), (1002,)),
}


@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
@pytest.mark.parametrize(("data", "codes"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_frames_are_told_and_harm_nobody(
    shared: tuple[Gateway, str, Channels], data: bytes, codes: tuple[int, ...], subprotocol: str | None
) -> None:
    """``codes``: those of the Close frame; 0: what is no message is dropped, and the connection goes on."""
    gateway, kernel_id, bystander = shared
    protocol = [f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []
    with raw_socket(gateway) as sock:
        sock.sendall(upgrade(gateway, kernel_id, *protocol))
        read_until(sock, b"\r\n\r\n")
        sock.sendall(data + frame(0x9, b"on"))
        said = b""
        while not (ended := re.search(rb"\x88[\x02-\x7d](..)|\x8a\x02on", said, re.DOTALL)):
            part = sock.recv(65536)
            assert part, said
            said += part
    code = struct.unpack(">H", ended[1])[0] if ended[1] else 0
    assert code in codes, (code, said[-300:])
    assert bystander.value("1 + 1") == 2


def test_garbage_frames_while_the_kernel_is_starting(gateway: Gateway) -> None:
    """The gateway itself holds them then: what breaks the WebSocket protocol is told, the rest waits for the kernel."""
    answer = gateway.request("POST", "/api/kernels", {"name": "silent"}, headers={"Prefer": "respond-async"})
    for name, (data, codes) in GARBAGE.items():
        with raw_socket(gateway) as sock:
            sock.sendall(upgrade(gateway, answer.json["id"]) + data + frame(0x9, b"on"))
            said = b""
            while not (ended := re.search(rb"\x88[\x02-\x7d](..)|\x8a\x02on", said, re.DOTALL)):
                part = sock.recv(65536)
                assert part, (name, said)
                said += part
        code = struct.unpack(">H", ended[1])[0] if ended[1] else 0
        assert code in codes or data[:1] in b"\x81\x82", (name, code)


def test_any_bytes_instead_of_frames(shared: tuple[Gateway, str, Channels]) -> None:
    gateway, kernel_id, bystander = shared

    @ANYTHING
    @given(st.binary(min_size=1, max_size=300) | st.binary(max_size=100).map(lambda data: frame(2, data)))
    def check(data: bytes) -> None:
        with raw_socket(gateway) as sock:
            sock.sendall(upgrade(gateway, kernel_id) + data)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock).startswith(b"HTTP/1.1 101 ")

    check()
    assert bystander.value("1 + 1") == 2


# -- the launcher's port ----------------------------------------------------------------------------------------------


@contextmanager
def launcher_socket(gateway: Gateway) -> Iterator[socket.socket]:
    """A connection as any process of this user could make one."""
    (path,) = (gateway.folder / "run" / "eg").rglob("*.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        yield sock


def launcher_says(gateway: Gateway, data: bytes) -> bytes:
    with launcher_socket(gateway) as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def test_garbage_on_the_launchers_port(shared: tuple[Gateway, str, Channels]) -> None:
    gateway, kernel_id, bystander = shared
    shutdown = f"POST /kernels/{kernel_id}/shutdown HTTP/1.1\r\nHost: x\r\n"
    channels = f"GET /kernels/{kernel_id}/channels?peer=strong HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    unauthorized = [
        f"{shutdown}Content-Length: 2\r\n\r\n{{}}",
        f"{shutdown}Authorization: Bearer {gateway.token}\r\nContent-Length: 2\r\n\r\n{{}}",
        f"{channels}Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
    ]
    for request in unauthorized:
        assert launcher_says(gateway, request.encode()).startswith(b"HTTP/1.1 401 "), request
    assert b" 413 " in launcher_says(gateway, f"{shutdown}Content-Length: {1 << 40}\r\n\r\n".encode())

    @ANYTHING
    @given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda data: b"GET /" + data + b" HTTP/1.1\r\n\r\n"))
    def check(data: bytes) -> None:
        answer = launcher_says(gateway, data)
        assert not answer or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer

    check()
    assert bystander.value("1 + 1") == 2


def test_silence_on_the_launchers_port_keeps_nobody_waiting(shared: tuple[Gateway, str, Channels]) -> None:
    """A gateway that is told to start or to connect still comes through, however many hold a connection."""
    gateway, kernel_id, bystander = shared
    (launcher,) = gateway.launchers()
    before = resident(launcher.pid)
    with ExitStack() as held:
        for number in range(1000):
            try:
                sock = held.enter_context(launcher_socket(gateway))
            except BlockingIOError:  # as many wait as the launcher lets wait
                continue
            with suppress(ConnectionError):
                sock.sendall(
                    [b"", b"GET /sta", b"POST /kernels/x/start HTTP/1.1\r\nContent-Length: 999999\r\n\r\n{"][number % 3]
                )
        with gateway.connect(kernel_id) as client:
            assert client.value("1 + 1") == 2
        second = gateway.start_kernel()
        gateway.delete_kernel(second)
        assert resident(launcher.pid) - before < 32 * MIB
    assert bystander.value("1 + 1") == 2


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048, reason="not enough descriptors")
def test_a_thousand_idle_clients_that_come_at_once(shared: tuple[Gateway, str, Channels]) -> None:
    """As after a restart of the gateway: all hear of their kernel, and cost little while they are idle."""
    gateway, kernel_id, bystander = shared
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (launcher,) = gateway.launchers()
    before = [resident(pid) for pid in (gateway.pid, launcher.pid)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with ExitStack() as held:
            clients = [held.enter_context(raw_socket(gateway)) for _ in range(1100)]
            for sock in clients:
                sock.sendall(upgrade(gateway, kernel_id))
            for sock in clients:
                read_until(sock, b'"execution_state": "idle"')
            assert bystander.value("1 + 1") == 2
            grown = [resident(pid) - then for pid, then in zip((gateway.pid, launcher.pid), before, strict=True)]
            assert max(grown) < 64 * MIB, grown
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
