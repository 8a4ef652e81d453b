"""The measurements. Each takes one contestant and adds to the samples; run.py says which, how often and when."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.bare_kernel import BareKernel
from benchmarks.client import JSON, PROTOCOLS, V1, Burst, Channels, Failed, call
from benchmarks.contestants import Contestant, until
from benchmarks.samples import Samples, percentile

POLL_EVERY = 0.01
SMALL_TEXT, LARGE_TEXT = 64, 10_000_000
LARGE_AT_ONCE = 8
"""More than our launcher's journal has in memory for one kernel."""


@dataclass(frozen=True)
class Counts:
    """How much of everything."""

    rounds: int = 3
    stub_starts: int = 5
    ipykernel_starts: int = 2
    echoes: int = 50
    small: int = 20_000
    large: int = 8
    starts: int = 20
    settle: float = 3.0
    few: int = 100
    many: int = 1000
    idle_seconds: float = 8.0


class Kernel:
    """A kernel that a gateway started for us."""

    def __init__(self, gateway: Contestant, spec: str, timeout: float = 120.0) -> None:
        self._port = gateway.port
        body = {"name": spec, "env": {"KERNEL_USERNAME": "bench"}}
        status, model = call(gateway.port, "POST", "/api/kernels", body, timeout)
        if status != 201:
            raise Failed(f"{gateway.name}: POST of {spec}: {status} {model}")
        self.id: str = model["id"]

    def channels(self, protocol: str, *, session: str = "") -> Channels:
        return Channels(self._port, f"/api/kernels/{self.id}/channels", protocol, session=session)

    def delete(self) -> float:
        """Seconds until it is answered."""
        began = time.perf_counter()
        status, body = call(self._port, "DELETE", f"/api/kernels/{self.id}")
        if status != 204:
            raise Failed(f"DELETE: {status} {body}")
        return time.perf_counter() - began


@contextlib.contextmanager
def running(gateway: Contestant, spec: str) -> Iterator[Kernel]:
    kernel = Kernel(gateway, spec)
    try:
        yield kernel
    finally:
        with contextlib.suppress(Failed):
            kernel.delete()


def first_result(samples: Samples, gateway: Contestant, spec: str, key: str = "first") -> None:
    """From before the POST to the first output on a WebSocket; then DELETE, and until the process is gone."""
    code = "import os; print(os.getpid())" if spec == "ipykernel" else "print(1)"
    began = time.perf_counter()
    kernel = Kernel(gateway, spec)
    with kernel.channels(V1) as channels:
        pid = int(channels.first_output(code))
        samples.add(f"{key}_{spec}", gateway.name, 1000 * (time.perf_counter() - began))
        channels.round_trip("print(1)")
    if key == "cold":
        kernel.delete()
        return
    began = time.perf_counter()
    samples.add(f"delete_{spec}", gateway.name, 1000 * kernel.delete())
    until(lambda: not processes.exists(pid), f"{gateway.name}: the process of a deleted {spec} is gone", 30.0)
    samples.add(f"gone_{spec}", gateway.name, 1000 * (time.perf_counter() - began))


def bare_first_result(samples: Samples, kernelspecs: Path, spec: str) -> None:
    kernel = BareKernel(kernelspecs, spec)
    try:
        samples.add(f"first_{spec}", "kernel", 1000 * kernel.first_output())
        samples.add(f"gone_{spec}", "kernel", 1000 * kernel.delete())
    except BaseException:
        kernel.kill()
        raise


def _echo(samples: Samples, name: str, protocol: str, round_trip: Callable[[], float], count: int) -> None:
    for _ in range(3):
        round_trip()
    times = [1000 * round_trip() for _ in range(count)]
    samples.add(f"echo_{protocol}_p50", name, percentile(times, 50))
    samples.add(f"echo_{protocol}_p99", name, percentile(times, 99))


def echo(samples: Samples, gateway: Contestant, counts: Counts) -> None:
    with running(gateway, "stub") as kernel:
        for protocol, subprotocol in PROTOCOLS.items():
            with kernel.channels(subprotocol) as channels:
                _echo(samples, gateway.name, protocol, channels.round_trip, counts.echoes)


class Meter:
    """CPU and memory of a gateway and its launcher from now on."""

    def __init__(self, gateway: Contestant) -> None:
        self.gateway, self.launcher = gateway.pid, gateway.launcher()
        self._pids = [self.gateway, *([self.launcher] if self.launcher else [])]
        for pid in self._pids:
            processes.forget_peak(pid)
        self.resident = processes.resident_kib(self.gateway)
        self._cpu = [processes.cpu(pid) for pid in self._pids]

    def cpu(self) -> tuple[float, float | None]:
        """Seconds: the gateway's, the launcher's."""
        spent = [processes.cpu(pid) - before for pid, before in zip(self._pids, self._cpu, strict=True)]
        return spent[0], spent[1] if len(spent) > 1 else None


def _add_small(samples: Samples, name: str, protocol: str, burst: Burst) -> None:
    samples.add(f"small_{protocol}", name, burst.count / burst.seconds)
    samples.add(f"small_{protocol}_client", name, 1e6 * burst.client_cpu / burst.count)
    samples.add(f"small_{protocol}_bytes", name, burst.payload / burst.count)


def small(samples: Samples, gateway: Contestant, counts: Counts) -> None:
    with running(gateway, "stub") as kernel:
        for protocol, subprotocol in PROTOCOLS.items():
            with kernel.channels(subprotocol) as channels:
                channels.prepare(counts.small, SMALL_TEXT)
                meter = Meter(gateway)
                burst = channels.burst(counts.small)
                mine, launchers = meter.cpu()
            _add_small(samples, gateway.name, protocol, burst)
            each = 1e6 / burst.count
            samples.add(f"small_{protocol}_gateway", gateway.name, each * mine)
            samples.add(f"small_{protocol}_launcher", gateway.name, None if launchers is None else each * launchers)
            samples.add(f"small_{protocol}_cpu", gateway.name, each * (mine + (launchers or 0.0)))


def large(samples: Samples, gateway: Contestant, counts: Counts) -> None:
    with running(gateway, "stub") as kernel, kernel.channels(V1) as channels:
        meter = Meter(gateway)
        rate = _large_rate(channels, counts)
        peak = processes.peak_kib(meter.gateway)
        samples.add("large", gateway.name, rate)
        samples.add("large_peak", gateway.name, peak / 1024)
        samples.add("large_rise", gateway.name, max(0.0, peak - meter.resident) / 1024)
        if meter.launcher:
            samples.add("large_launcher", gateway.name, processes.peak_kib(meter.launcher) / 1024)


def _large_rate(channels: Channels, counts: Counts) -> float:
    """MB a second; the time in which the kernel makes them does not count."""
    payload, seconds = 0, 0.0
    for begun in range(0, counts.large, LARGE_AT_ONCE):
        count = min(LARGE_AT_ONCE, counts.large - begun)
        channels.prepare(count, LARGE_TEXT)
        burst = channels.burst(count)
        payload, seconds = payload + burst.payload, seconds + burst.seconds
    return payload / seconds / 1e6


def bare_tornado(samples: Samples, floor: Contestant, counts: Counts) -> None:
    """Default protocol only: it is a floor, not a gateway."""
    path = "/api/kernels/0/channels"
    with Channels(floor.port, path, JSON) as channels:
        _echo(samples, floor.name, "json", channels.round_trip, counts.echoes)
        channels.prepare(counts.small, SMALL_TEXT)
        meter = Meter(floor)
        burst = channels.burst(counts.small)
        _add_small(samples, floor.name, "json", burst)
        samples.add("small_json_cpu", floor.name, 1e6 * meter.cpu()[0] / burst.count)
        Meter(floor)
        samples.add("large", floor.name, _large_rate(channels, counts))
        samples.add("large_peak", floor.name, processes.peak_kib(floor.pid) / 1024)


def bare_kernel(samples: Samples, kernelspecs: Path, counts: Counts) -> None:
    """Under "v1", for the client gets the kernel's own bytes; they are counted as the text's only, so not said."""
    kernel = BareKernel(kernelspecs, "stub")
    try:
        kernel.first_output()
        _echo(samples, "kernel", "v1", kernel.round_trip, counts.echoes)
        burst = kernel.burst(counts.small, SMALL_TEXT)
        samples.add("small_v1", "kernel", burst.count / burst.seconds)
        samples.add("small_v1_client", "kernel", 1e6 * burst.client_cpu / burst.count)
    finally:
        kernel.kill()


class Poller(threading.Thread):
    """GET /api/kernels again and again. ``times`` in milliseconds."""

    def __init__(self, contestant: Contestant) -> None:
        super().__init__(daemon=True)
        self.times: list[float] = []
        self.failures = 0
        self._port = contestant.port
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(POLL_EVERY):
            began = time.perf_counter()
            try:
                self.failures += call(self._port, "GET", "/api/kernels")[0] != 200
            except Failed:
                self.failures += 1
            self.times.append(1000 * (time.perf_counter() - began))

    def stop(self) -> None:
        self._ended.set()
        self.join(130.0)


def starts(samples: Samples, gateway: Contestant, floor: Contestant, counts: Counts) -> None:
    """All at once; the list is polled meanwhile, and beside it the bare tornado's, on the same busy machine."""
    ids: list[str] = []

    def one(_: int) -> None:
        kernel = Kernel(gateway, "stub")
        ids.append(kernel.id)
        with kernel.channels(V1) as channels:
            channels.first_output("print(1)")

    pollers = [Poller(gateway), Poller(floor)]
    for poller in pollers:
        poller.start()
    began = time.perf_counter()
    try:
        with concurrent.futures.ThreadPoolExecutor(counts.starts) as pool:
            list(pool.map(one, range(counts.starts)))
        took = time.perf_counter() - began
    finally:
        for poller in pollers:
            poller.stop()
        for kernel_id in ids:
            with contextlib.suppress(Failed):
                call(gateway.port, "DELETE", f"/api/kernels/{kernel_id}")
    samples.add("starts_failed", gateway.name, pollers[0].failures)
    samples.add("starts", gateway.name, 1000 * took)
    samples.add("starts_p50", gateway.name, percentile(pollers[0].times, 50))
    samples.add("starts_p99", gateway.name, percentile(pollers[0].times, 99))
    samples.add("starts_p99_bare", gateway.name, percentile(pollers[1].times, 99))
