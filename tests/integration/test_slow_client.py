"""A client that stops reading costs the gateway next to nothing, and nobody else notices."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

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
for n in range({{total}} // {CHUNK}):
    sys.stdout.write('x' * {CHUNK})
    sys.stdout.flush()
open({{marker!r}}, 'w').close()
"""
SMALL = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
def test_a_client_that_stops_reading(gateway: Gateway, subprotocol: str | None) -> None:
    flooding, quiet = gateway.start_kernel(), gateway.start_kernel()
    marker = gateway.folder / "tmp" / f"through-{subprotocol}"
    with (
        gateway.connect(quiet) as bystander,
        gateway.connect(flooding, subprotocol=subprotocol, sockopt=SMALL) as sleeper,
    ):
        sleeper.run("pass")
        alone = [_round_trip(bystander) for _ in range(30)]
        # What a client that reads makes the gateway hold is none of this: its own buffers, the allocator's.
        bystander.run(f"print('x' * {64 << 20})", 60)
        before = resident(gateway.pid)

        sleeper.execute(FLOOD.format(total=TOTAL, marker=str(marker)))
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
        assert statistics.median(beside) < 0.5
        assert max(beside) < 2.0

        # It wakes up: it gets what has been kept, is told of what has not, and goes on.
        _wakes_up(sleeper, TOTAL)


DISK = 200 << 20
"""Bytes of the disk, on which the journal may have a GiB."""


@pytest.fixture
def on_a_small_disk(new_gateway: Callable[..., Gateway], needs: Callable[..., None]) -> Iterator[Gateway]:
    """A gateway whose temporary folder, where launchers spill, is a disk of its own."""
    gateway = new_gateway()
    image, folder = gateway.folder / "disk", gateway.folder / "tmp"
    with image.open("wb") as file:
        file.truncate(DISK)
    made = os.geteuid() == 0 and shutil.which("mkfs.ext4") and not any(
        subprocess.run(command, capture_output=True, check=False).returncode
        for command in (["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, folder])
    )  # fmt: skip
    needs("loop-mount", made, "a disk of the test's own needs mkfs.ext4 and mount -o loop: run as root")
    yield gateway
    gateway.end()
    wait_until(
        lambda: not subprocess.run(["umount", folder], check=False).returncode, "nobody to use the disk any more"
    )


@pytest.mark.timeout(240)
def test_a_gigabyte_that_nobody_reads_on_a_disk_that_fills_up(on_a_small_disk: Gateway) -> None:
    gateway = on_a_small_disk.start()
    disk, marker = gateway.folder / "tmp", gateway.folder / "run" / "through"
    flooding, quiet = gateway.start_kernel(), gateway.start_kernel()
    (launcher,) = gateway.launchers()
    with gateway.connect(quiet) as bystander, gateway.connect(flooding, sockopt=SMALL) as sleeper:
        sleeper.run("pass")
        before, empty = resident(launcher.pid), shutil.disk_usage(disk).free
        sleeper.execute(FLOOD.format(total=1 << 30, marker=str(marker)))
        beside, peak, least = [0.0], before, empty

        def through() -> bool:
            nonlocal peak, least
            beside.append(_round_trip(bystander))
            peak = max(peak, resident(launcher.pid))
            least = min(least, shutil.disk_usage(disk).free)
            return marker.exists()

        wait_until(through, "the flood to be over", 120, every=0.01)
        print(
            f"launcher holds {(peak - before) >> 20} MiB more at most, {least >> 20} MiB of {empty >> 20} were left of "
            f"the disk; round trips of another kernel: median {statistics.median(beside) * 1000:.1f} ms, worst "
            f"{max(beside) * 1000:.0f} ms of {len(beside)}"
        )
        assert least < empty // 4, "the disk was never full, and the test proves nothing"
        assert peak - before < 512 << 20  # what all kernels of a launcher may hold, and as much again on its way
        assert statistics.median(beside) < 0.5
        assert max(beside) < 2.0
        _wakes_up(sleeper, 1 << 30)
    logs = "".join(text for name, text in gateway.logs().items() if name.startswith("run/"))
    assert 0 < logs.count("cannot be kept on disk") < 20, "said when it begins, not for each block"
    gateway.delete_kernel(flooding)
    wait_until(lambda: shutil.disk_usage(disk).free > empty * 9 // 10, "the disk to be given back")


def _round_trip(client: Channels) -> float:
    start = time.monotonic()
    client.finish(client.send("kernel_info_request", {}), 30)
    client.seen.clear()
    return time.monotonic() - start


def _wakes_up(client: Channels, total: int) -> None:
    """It gets what has been kept, and is told of what has not."""
    try:
        done = client.run("print('awake')", 60)
    except Closed as closed:
        pytest.fail(f"the socket was closed: {closed}")
    assert done.text.endswith("awake\n")  # perhaps after the word that something was lost before it
    texts = [m.content["text"] for m in client.seen if m.type == "stream"]
    received = sum(len(text) for text in texts if text.startswith("x"))
    assert received >= total or [text for text in texts if "lost" in text], "nothing is said of what is missing"
