"""A client that stops reading costs the gateway next to nothing, and nobody else notices."""

from __future__ import annotations

import socket
import statistics
import time

import pytest
from eg_integration.channels import V1, Channels, Closed
from eg_integration.gateway import Gateway
from eg_integration.processes import resident
from eg_integration.waiting import wait_until

TOTAL = 300 << 20
CHUNK = 1 << 20
# Says when it is through by a file: the client that asked does not read.
FLOOD = f"""
import sys
for n in range({TOTAL // CHUNK}):
    sys.stdout.write('x' * {CHUNK})
    sys.stdout.flush()
open({{marker!r}}, 'w').close()
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
def test_a_client_that_stops_reading(gateway: Gateway, subprotocol: str | None) -> None:
    flooding, quiet = gateway.start_kernel(), gateway.start_kernel()
    marker = gateway.folder / "tmp" / f"through-{subprotocol}"
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)]
    with (
        gateway.connect(quiet) as bystander,
        gateway.connect(flooding, subprotocol=subprotocol, sockopt=small) as sleeper,
    ):
        sleeper.run("pass")
        alone = [_round_trip(bystander) for _ in range(30)]
        # What a client that reads makes the gateway hold is none of this: its own buffers, the allocator's.
        bystander.run(f"print('x' * {64 << 20})", 60)
        before = resident(gateway.pid)

        sleeper.execute(FLOOD.format(marker=str(marker)))
        beside: list[float] = []
        peak = before

        def through() -> bool:
            nonlocal peak
            beside.append(_round_trip(bystander))
            peak = max(peak, resident(gateway.pid))
            return marker.exists()

        wait_until(through, "the flood to be over", 120, every=0.01)
        print(
            f"gateway holds {(peak - before) >> 10} KiB more at most; round trips of another kernel: "
            f"alone median {statistics.median(alone) * 1000:.1f} ms, beside the flood median "
            f"{statistics.median(beside) * 1000:.1f} ms, worst {max(beside) * 1000:.0f} ms of {len(beside)}"
        )
        assert peak - before <= 1 << 20
        assert statistics.median(beside) < 0.1
        assert max(beside) < 2.0

        # It wakes up: it gets what has been kept, is told of what has not, and goes on.
        _wakes_up(sleeper)


def _round_trip(client: Channels) -> float:
    start = time.monotonic()
    client.finish(client.send("kernel_info_request", {}), 30)
    client.seen.clear()
    return time.monotonic() - start


def _wakes_up(client: Channels) -> None:
    try:
        done = client.run("print('awake')", 60)
    except Closed as closed:
        pytest.fail(f"the socket was closed: {closed}")
    assert done.text.endswith("awake\n")  # perhaps after the word that something was lost before it
    texts = [m.content["text"] for m in client.seen if m.type == "stream"]
    received = sum(len(text) for text in texts if text.startswith("x"))
    assert received >= TOTAL or [text for text in texts if "lost" in text], "nothing is said of what is missing"
