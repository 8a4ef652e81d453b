"""Numbered lines while the client's connection is cut again and again: by what kind of client is what lost?

The clients join nothing and drop nothing: every line that arrives is counted.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
import websocket
from eg_integration.channels import Channels, unpack
from eg_integration.gateway import Gateway
from eg_integration.waiting import wait_until

LINES = 20_000
CUTS = 8
CODE = f"""
import sys, time
for n in range({LINES}):
    print(n)
    if n % 20 == 0:
        sys.stdout.flush()
        time.sleep(0.001)
"""


class Reader:
    """A client that is cut at random, comes back, and counts lines. ``exact``: it says what it has had."""

    def __init__(self, gateway: Gateway, kernel_id: str, seed: int, *, exact: bool) -> None:
        self.gateway = gateway
        self.kernel_id = kernel_id
        self.random = random.Random(seed)
        self.exact = exact
        self.place: str | None = None
        self.behind = 0
        self.text = ""
        self.lines = 0
        self.replies = 0
        self.session = f"reader-{seed}-{exact}"

    def run(self) -> None:
        channels = self.connect()
        parent = channels.execute(CODE)
        cuts = 0
        deadline = time.monotonic() + 120
        cuts_at = sorted(self.random.sample(range(LINES * 9 // 10), CUTS))
        while not (self.replies and self.text.endswith(f"{LINES - 1}\n")):
            assert time.monotonic() < deadline, f"{self.lines} lines after {cuts} cuts"
            if cuts_at and self.lines >= cuts_at[0]:
                del cuts_at[0]
                cuts += 1
                cut(channels)
                channels = self.connect()
            self.take(channels, parent)
        assert cuts == CUTS, "the output was over before the cuts were"
        channels.close()

    def connect(self) -> Channels:
        query = f"&after={self.place}&skip={self.behind}" if self.exact and self.place else ""
        return self.gateway.connect(self.kernel_id, session=self.session, query=query)

    def take(self, channels: Channels, parent: str) -> None:
        opcode, data = channels.socket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_PING:
            self.heard(data)
        if opcode != websocket.ABNF.OPCODE_TEXT:
            return
        self.behind += 1
        message = unpack(None, False, data)
        if message.parent_id == parent:
            if message.type == "stream":
                self.text += message.content["text"]
                self.lines += message.content["text"].count("\n")
            self.replies += message.type == "execute_reply"

    def heard(self, payload: bytes) -> None:
        """Which place a ping names: epoch, number, serial."""
        if len(payload) == 26:
            epoch, number, serial, _ = struct.unpack("!6sQIQ", payload)
            self.place = f"{epoch.hex()}.{number}.{serial}" if serial else None
            self.behind = 0


def cut(channels: Channels) -> None:
    """A reset: what is on its way is gone."""
    sock = channels.socket.sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channels.close()


def lines_of(gateway: Gateway, **options: Any) -> list[str]:
    kernel_id = gateway.start_kernel()
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    reader = Reader(gateway, kernel_id, seed, **options)
    reader.run()
    gateway.delete_kernel(kernel_id)
    return reader.text.splitlines()


WANTED = [str(n) for n in range(LINES)]


@pytest.mark.timeout(180)
def test_an_exact_client_has_every_line_once_and_in_order(gateway: Gateway) -> None:
    assert lines_of(gateway, exact=True) == WANTED


@pytest.mark.timeout(180)
def test_a_stock_client_misses_no_line(gateway: Gateway) -> None:
    assert set(lines_of(gateway, exact=False)) >= set(WANTED)


@pytest.mark.timeout(240)
def test_without_replay_lines_are_lost_or_these_tests_would_prove_nothing(
    new_gateway: Callable[..., Gateway],
) -> None:
    gateway = new_gateway()
    gateway.start("--EnterpriseGatewayApp.replay=False")
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, session="s") as channels:
        parent = channels.execute("import time\nfor n in range(200):\n    print(n, flush=True)\n    time.sleep(0.01)")
        channels.wait_for(lambda m: m.type == "stream", "the first line")
        cut(channels)

    def printed() -> int:
        """Lines, as the launcher has them while nobody is there."""
        told = gateway.request("GET", f"/api/kernels/{kernel_id}/outputs?parent={parent}")
        return "".join(output["text"] for output in told.json["outputs"]).count("\n")

    wait_until(lambda: printed() >= 50, "output that nobody reads")
    with gateway.connect(kernel_id, session="s") as channels:
        done = channels.finish(parent)
    lines = "".join(m.content["text"] for m in done.iopub if m.type == "stream").split()
    assert lines[-1] == "199"
    assert len(lines) < 190
