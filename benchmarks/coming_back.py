"""What coming back costs: a client to its kernel's output, a gateway to its kernels; and what is kept for that.

Ours alone, for the incumbents do neither. The baseline of the journal's cost is our own gateway that keeps
nothing on disk and replays nothing (``eg-bare``).
"""

from __future__ import annotations

import time

from benchmarks.client import V1, Failed, call
from benchmarks.contestants import Contestant, until
from benchmarks.measures import SMALL_TEXT, Counts, Kernel, running
from benchmarks.samples import Samples

CUTS = 5
MISSED = 2000
"""Messages that are said while nobody is connected."""


def reconnect(samples: Samples, gateway: Contestant, counts: Counts) -> None:
    """From the connect to the first replayed message, with everything said before the client comes back."""
    with running(gateway, "stub") as kernel:
        for _ in range(CUTS if counts.rounds > 1 else 1):
            with kernel.channels(V1) as channels:
                channels.prepare(MISSED, SMALL_TEXT)
                channels.execute("blast")
            until(lambda: _is_idle(gateway, kernel), "the kernel has said it all", 20.0)
            began = time.perf_counter()
            with kernel.channels(V1, session=channels.session) as again:
                while again.message()["header"]["msg_type"] != "stream":
                    pass
                samples.add("reconnect", gateway.name, 1000 * (time.perf_counter() - began))


def _is_idle(gateway: Contestant, kernel: Kernel) -> bool:
    model = call(gateway.port, "GET", f"/api/kernels/{kernel.id}")[1]
    return bool(model["execution_state"] == "idle" and model["connections"] == 0)


def journal(samples: Samples, gateway: Contestant, bare: Contestant, counts: Counts) -> None:
    """Small messages, one after the other, with and without it."""
    with running(gateway, "stub") as mine, running(bare, "stub") as its:
        for _ in range(counts.rounds):
            for key, kernel in (("journal", mine), ("journal_bare", its)):
                with kernel.channels(V1) as channels:
                    channels.prepare(counts.small, SMALL_TEXT)
                    burst = channels.burst(counts.small)
                    samples.add(key, gateway.name, burst.count / burst.seconds)


def restart(samples: Samples, gateway: Contestant, kernels: list[Kernel]) -> None:
    """Killed, and started again: until all kernels are there with their state, and one answers a client."""
    gateway.kill()
    began = time.perf_counter()
    gateway.start(gateway.port)
    until(lambda: _all_idle(gateway, len(kernels)), f"{len(kernels)} are served", 30.0, 0.1)
    with kernels[-1].channels(V1) as channels:
        channels.round_trip()
    samples.add("restart", gateway.name, 1000 * (time.perf_counter() - began))


def _all_idle(gateway: Contestant, count: int) -> bool:
    models = call(gateway.port, "GET", "/api/kernels")[1]
    if len(models) != count:
        raise Failed(f"{len(models)} kernels of {count} are in the list after the restart")
    return all(model["execution_state"] == "idle" for model in models)
