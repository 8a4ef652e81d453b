"""A client that stops reading costs the gateway next to nothing, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import pytest

from eg_launcher.websocket import Opcode
from splice_support import KERNEL_ID, RawClient, StubLauncher, make_tls, until

MIB = 1024


class Outside:
    """As much of a gateway in another process as a raw client needs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: list[RawClient] = []


@contextlib.asynccontextmanager
async def gateway_process(*args: str):
    script = Path(__file__).with_name("splice_gateway.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), *args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    outside = None
    try:
        assert process.stdout is not None
        outside = Outside(int(await asyncio.wait_for(process.stdout.readline(), 20)))
        yield outside, process.pid
    finally:
        for client in outside.clients if outside else []:
            client.writer.transport.abort()
            await client.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def resident(pid: int) -> int:
    """KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls-launcher"])
async def test_a_client_that_stops_reading_during_300_mb(tls, tmp_path):
    launcher = StubLauncher()
    contexts = make_tls(tmp_path) if tls else None
    await launcher.start(contexts[0] if contexts else None)
    args = [str(launcher.port)]
    if contexts:
        (tmp_path / "ca.pem").write_text(_ca(contexts[1]))
        args.append(str(tmp_path / "ca.pem"))
    try:
        async with gateway_process(*args) as (gateway, pid):
            stalled = await RawClient.connect(gateway, path=f"/api/kernels/{KERNEL_ID}/channels")
            other = await RawClient.connect(gateway, path=f"/api/kernels/{KERNEL_ID}/channels")
            stalled.send(Opcode.BINARY, b"flood 30 1000000")  # warm up: the shared buffer, the allocator
            for _ in range(30):
                await stalled.receive()
            for _ in range(12):  # and what is kept of a client whose launcher confirms nothing
                await echo(other, 100_000)
            before = resident(pid)
            stalled.writer.transport.pause_reading()
            stalled.send(Opcode.BINARY, b"flood 300 1000000")
            await until(lambda: launcher.channels[0].blocked, "the launcher feels it")
            held, slowest = 0, 0.0
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                slowest = max(slowest, await echo(other, 100_000))
                held = max(held, resident(pid) - before)
            assert held <= MIB, f"{held} KiB held"
            assert slowest < 0.5, f"another client waited {slowest:.3f} s"
            stalled.writer.transport.resume_reading()
            for _ in range(300):
                opcode, payload = await stalled.receive()
                assert (opcode, len(payload)) == (Opcode.BINARY, 1_000_000)
            assert resident(pid) - before <= MIB
    finally:
        await launcher.stop()


async def echo(client: RawClient, size: int) -> float:
    began = time.monotonic()
    client.send(Opcode.BINARY, b"e" * size)
    assert await client.receive() == (Opcode.BINARY, b"e" * size)
    return time.monotonic() - began


def _ca(context) -> str:
    import ssl

    (der,) = context.get_ca_certs(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(der)
