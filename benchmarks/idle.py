"""What an idle kernel costs a gateway and its launcher: memory, descriptors, CPU, by the difference to one kernel.

The kernels' own processes are stand-ins; one host process answers for them all. The gateway is a fresh one. Idle is
a kernel that a client has used and left; and, at the smaller number, one whose client is still connected.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import processes
from benchmarks.client import V1, Failed
from benchmarks.contestants import Contestant
from benchmarks.measures import Kernel
from benchmarks.samples import Samples

AT_ONCE = 4


@dataclass(frozen=True)
class Reading:
    memory: float
    descriptors: int | None
    cpu: float


def _read(pid: int) -> Reading:
    return Reading(processes.resident_kib(pid), processes.descriptors(pid), processes.cpu(pid))


def start_up_to(gateway: Contestant, kernels: list[Kernel], want: int, out_of_time: Callable[[], bool]) -> str:
    """Start so many that there are ``want``. Why there are not, if so."""
    why = ""

    def one(_: int) -> str:
        if why or out_of_time():
            return why or "time was up"
        try:
            kernel = Kernel(gateway, "many", timeout=30.0)
            with kernel.channels(V1) as channels:
                channels.round_trip()
            kernels.append(kernel)
        except Failed as error:
            return str(error) or "failed"
        return ""

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for result in pool.map(one, range(want - len(kernels))):
            why = why or result
    return why


def idle(
    samples: Samples,
    gateway: Contestant,
    kernels: list[Kernel],
    *,
    sizes: dict[str, int],
    seconds: float,
    settle: float,
    out_of_time: Callable[[], bool],
) -> str:
    """Measure at each of the sizes (``{"few": 100}``). Why it has come no further, if it has not. ``kernels`` has
    them afterwards."""
    why = start_up_to(gateway, kernels, 1, out_of_time)
    if why:
        raise Failed(why)
    time.sleep(settle)  # what comes late after a start is no cost of a kernel
    pids = {"gateway": gateway.pid}
    launcher = gateway.launcher()
    if launcher:
        pids["launcher"] = launcher
    base = {role: _read(pid) for role, pid in pids.items()}
    for key, size in sizes.items():
        why = start_up_to(gateway, kernels, size, out_of_time)
        samples.add(f"idle_{key}", gateway.name, len(kernels))
        if why:
            return f"{gateway.name}: {len(kernels)} kernels, then: {why[:300]}"
        time.sleep(settle)
        before = {role: _read(pid) for role, pid in pids.items()}
        time.sleep(seconds)
        after = {role: _read(pid) for role, pid in pids.items()}
        for what, value in _costs(base, before, after, len(kernels), seconds).items():
            samples.add(f"idle_{key}_{what}", gateway.name, value)
        if key == "few":
            _connected(samples, gateway, kernels, pids, base)
            time.sleep(settle)
    return ""


def _connected(
    samples: Samples, gateway: Contestant, kernels: list[Kernel], pids: dict[str, int], base: dict[str, Reading]
) -> None:
    with contextlib.ExitStack() as stack:
        for kernel in kernels:
            stack.enter_context(kernel.channels(V1)).round_trip()
        now = {role: _read(pid) for role, pid in pids.items()}
    costs = _costs(base, now, now, len(kernels), 1.0)
    for what in ("memory", "memory_gateway", "fds", "fds_gateway"):
        samples.add(f"connected_{what}", gateway.name, costs[what])


def _costs(
    base: dict[str, Reading], before: dict[str, Reading], after: dict[str, Reading], have: int, seconds: float
) -> dict[str, float | None]:
    more = have - 1
    memory = {role: (after[role].memory - base[role].memory) / more for role in after}
    cpu = {role: 1e6 * (after[role].cpu - before[role].cpu) / seconds / have for role in after}
    fds: dict[str, float] = {}
    for role, reading in after.items():
        first = base[role].descriptors
        if reading.descriptors is not None and first is not None:
            fds[role] = (reading.descriptors - first) / more
    return {
        "memory": sum(memory.values()),
        "memory_gateway": memory["gateway"],
        "fds": sum(fds.values()) if len(fds) == len(after) else None,
        "fds_gateway": fds.get("gateway"),
        "cpu": sum(cpu.values()),
        "cpu_gateway": cpu["gateway"],
    }
