"""What an adversary can make a whole gateway hold, open or hand on: bounded, with the token and without."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from eg_integration.channels import V1
from eg_integration.gateway import Gateway
from eg_integration.processes import resident
from eg_integration.raw import frame, raw_socket, read_all, read_until, upgrade
from eg_integration.waiting import wait_until

MIB = 1 << 20


def no_message(size: int) -> bytes:
    return frame(0x1, json.dumps({"channel": "iopub", "header": {"msg_id": "x" * size, "msg_type": "a"}}).encode())


@pytest.mark.parametrize(
    "data", [no_message(64), frame(0x1, b"{"), frame(0x9, b"p" * 100)], ids=["channel", "JSON", "ping"]
)
def test_mended_who_sends_nonsense_and_reads_nothing_fills_nobodys_memory(gateway: Gateway, data: bytes) -> None:
    """Each is answered, so answers pile up somewhere: in the sender's own sockets, not in the launcher."""
    kernel_id = gateway.start_kernel()
    (launcher,) = gateway.launchers()
    with gateway.connect(kernel_id) as bystander, raw_socket(gateway) as sock:
        bystander.run("pass")
        before = resident(launcher.pid), resident(gateway.pid)
        sock.sendall(upgrade(gateway, kernel_id))
        sock.settimeout(2)
        sent, block = 0, data * 1000
        with suppress(TimeoutError):
            while sent < 40 * MIB:
                sock.sendall(block)
                sent += len(block)
        assert bystander.value("1 + 1") == 2
        grown = resident(launcher.pid) - before[0], resident(gateway.pid) - before[1]
        print(f"{sent / MIB:.1f} MiB sent; launcher +{grown[0] / MIB:.1f} MiB, gateway +{grown[1] / MIB:.1f} MiB")
        assert max(grown) < 16 * MIB


@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
def test_what_is_no_message_is_said_to_be_none(gateway: Gateway, subprotocol: str | None) -> None:
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, subprotocol=subprotocol) as client, gateway.connect(kernel_id) as bystander:
        bystander.run("pass")
        for opcode, payload, words in (
            (0x1, b"nonsense", "not JSON"),
            (0x1, b"[" * 100_000, "nested too deeply"),
            (0x1, b"[]", "not a JSON object"),
            (0x1, b'{"channel": "shell"}', "no header"),
            (0x1, b'{"header": {"msg_id": 1, "msg_type": "x"}}', "no msg_id"),
            (0x1, b'{"channel": "iopub", "header": {"msg_id": "a", "msg_type": "x"}}', "clients send on"),
            (0x2, struct.pack("<4Q", 3, 1 << 60, 1 << 61, 1 << 62), "offsets"),
            (0x2, struct.pack(">4I", 3, 1 << 31, 1 << 20, 1), "offsets"),
            (0x2, b"", "too short"),
        ):
            client.socket.send(payload, opcode)
            said = client.wait_for(lambda message: message.type == "stream", f"what is said of {payload[:30]!r}")
            assert words in said.content["text"], (payload[:60], said.content)
            assert said.content["name"] == "stderr"
        assert client.value("1 + 1") == 2
        assert not [message for message in bystander.seen if "dropped" in str(message.content)]


BROKEN: dict[str, tuple[bytes, int]] = {
    "one byte": (frame(0x8, b"\x03"), 1002),
    "1005": (frame(0x8, b"\x03\xed"), 1002),
    "1": (frame(0x8, b"\x00\x01"), 1002),
    "a reason that is no UTF-8": (frame(0x8, b"\x03\xe8\xff"), 1007),
    "a message within a message": (frame(0x1, b"", first=0) + frame(0x1, b""), 1002),
}
TEXT_THAT_IS_NONE = ("python3", frame(0x1, b'{"header": "\xff"}'), 1007)
"""Not looked into while it is held: there is no kernel to take it."""


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [*((name, *case) for name in ("python3", "silent") for case in BROKEN.values()), TEXT_THAT_IS_NONE],
    ids=[*(f"{how}, {case}" for how in ("spliced", "held") for case in BROKEN), "spliced, no UTF-8"],
)
def test_what_breaks_the_protocol_closes_with_the_right_code(
    gateway: Gateway, name: str, data: bytes, code: int
) -> None:
    answer = gateway.request("POST", "/api/kernels", {"name": name}, headers={"Prefer": "respond-async"})
    with raw_socket(gateway) as sock:
        sock.sendall(upgrade(gateway, answer.json["id"]) + data)
        said = b""
        while not (close := re.search(rb"\x88[\x02-\x7d](..)", said, re.DOTALL)):
            part = sock.recv(65536)
            assert part, said
            said += part
    assert struct.unpack(">H", close[1])[0] == code, said


def test_a_gateway_without_a_token_is_no_prey_of_a_pages_dns(new_gateway: Callable[..., Gateway]) -> None:
    """The page's name leads to this machine by now, so the browser takes both for one host and asks nobody."""
    gateway = new_gateway("open").start(env={"EG_AUTH_TOKEN": ""})
    body = b'{"name": "python3"}'
    for origin in ("", "Origin: http://evil.example:8888\r\n"):
        with raw_socket(gateway) as sock:
            sock.sendall(
                b"POST /api/kernels HTTP/1.1\r\nHost: evil.example:8888\r\nContent-Type: text/plain\r\n"
                b"Connection: close\r\n" + origin.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        assert b"EG_AUTH_TOKEN" in answer
    assert gateway.request("GET", "/api/kernels", token=None).json == []
    assert gateway.kernels() == []


def test_a_kernel_gets_no_variable_that_nobody_allowed_and_no_secret(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway("env")
    spec = gateway.folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    content = json.loads(spec.read_text())
    content["env"] |= {"COPY": "<$EG_AUTH_TOKEN$EG_STORE_KEY>", "SEEN": "<$ALLOWED>"}
    spec.write_text(json.dumps(content))
    secrets = {"EG_CLIENT_ENVS": "ALLOWED,LD_", "EG_INHERITED_ENVS": "EG_AUTH_TOKEN,EG_STORE_KEY,PATH"}
    gateway.start(env=secrets)
    hostile = dict.fromkeys(
        ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "EG_AUTH_TOKEN"), "/x"
    )
    hostile |= {"ALLOWED": "yes", "KERNEL_ID_": "1", "KERNEL_GATEWAY": "no", "PATH": "/evil"}
    kernel_id = gateway.start_kernel(env=hostile)
    with gateway.connect(kernel_id) as client:
        found = client.value("dict(__import__('os').environ)")
    assert {name: found.get(name) for name in hostile if name in found} == {
        "ALLOWED": "yes", "KERNEL_ID_": "1", "KERNEL_GATEWAY": "1", "PATH": found["PATH"]}  # fmt: skip
    assert found["SEEN"] == "<yes>"
    assert gateway.token not in str(found)
    assert "EG_STORE_KEY" not in {name for name in found if name != "COPY"}
    assert all(gateway.token not in one.environ for one in gateway.processes() if one.pid != gateway.pid)


def test_half_closed_and_reset_connections_leave_nothing_open(gateway: Gateway) -> None:
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as bystander:
        bystander.run("pass")
        (launcher,) = gateway.launchers()
        before = gateway.model(kernel_id)["connections"]
        for number in range(100):
            with raw_socket(gateway) as sock:
                if number % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(upgrade(gateway, kernel_id) + [b"", b"\x81", frame(0x1, b"{")][number % 3])
                if number % 3:
                    read_until(sock, b"\r\n\r\n")
        wait_until(lambda: gateway.model(kernel_id)["connections"] == before, "the channels to be closed")
        assert bystander.value("1 + 1") == 2
        assert launcher.alive()
