"""What is measured, by name, and what was measured: every sample, its median and its range."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One row of the table. ``more`` says whether more is better."""

    key: str
    label: str
    unit: str
    more: bool = False


METRICS = (
    Metric("cold_stub", "first result of the gateway's very first kernel, a stub", "ms"),
    Metric("first_stub", "first result, stub kernel", "ms"),
    Metric("first_ipykernel", "first result, ipykernel", "ms"),
    Metric("echo_v1_p50", "echo, v1, p50", "ms"),
    Metric("echo_v1_p99", "echo, v1, p99", "ms"),
    Metric("echo_json_p50", "echo, default protocol, p50", "ms"),
    Metric("echo_json_p99", "echo, default protocol, p99", "ms"),
    Metric("small_v1", "small messages, v1", "1/s", more=True),
    Metric("small_v1_cpu", "… CPU a message, gateway and launcher", "µs"),
    Metric("small_v1_gateway", "… of that the gateway's", "µs"),
    Metric("small_v1_launcher", "… of that the launcher's", "µs"),
    Metric("small_v1_client", "… the measuring client's own, besides", "µs"),
    Metric("small_v1_bytes", "… bytes a message at the client", "B"),
    Metric("small_json", "small messages, default protocol", "1/s", more=True),
    Metric("small_json_cpu", "… CPU a message, gateway and launcher", "µs"),
    Metric("small_json_gateway", "… of that the gateway's", "µs"),
    Metric("small_json_launcher", "… of that the launcher's", "µs"),
    Metric("small_json_client", "… the measuring client's own, besides", "µs"),
    Metric("small_json_bytes", "… bytes a message at the client", "B"),
    Metric("large", "large messages, v1", "MB/s", more=True),
    Metric("large_peak", "… the gateway's peak memory", "MiB"),
    Metric("large_rise", "… how far that is above where it began", "MiB"),
    Metric("large_launcher", "… the launcher's peak memory", "MiB"),
    Metric("delete_stub", "DELETE, stub kernel: answered", "ms"),
    Metric("gone_stub", "… its process is gone", "ms"),
    Metric("delete_ipykernel", "DELETE, ipykernel: answered", "ms"),
    Metric("gone_ipykernel", "… its process is gone", "ms"),
    Metric("starts", "{starts} starts at once: all have put out", "ms"),
    Metric("starts_p50", "… GET /api/kernels meanwhile, p50", "ms"),
    Metric("starts_p99", "… p99", "ms"),
    Metric("starts_failed", "… how many of them failed", ""),
    Metric("starts_p99_bare", "… p99 of the bare tornado beside it", "ms"),
    *(
        metric
        for count, words in (("few", "few"), ("many", "as many as go"))
        for metric in (
            Metric(f"idle_{count}", f"idle kernels, {words}: how many", "", more=True),
            Metric(f"idle_{count}_memory", "… memory a kernel, gateway and launcher", "KiB"),
            Metric(f"idle_{count}_memory_gateway", "… of that the gateway's", "KiB"),
            Metric(f"idle_{count}_fds", "… descriptors a kernel, gateway and launcher", ""),
            Metric(f"idle_{count}_fds_gateway", "… of that the gateway's", ""),
            Metric(f"idle_{count}_cpu", "… CPU a kernel, gateway and launcher", "µs/s"),
            Metric(f"idle_{count}_cpu_gateway", "… of that the gateway's", "µs/s"),
        )
    ),
    Metric("connected_memory", "the few, each with a client: memory a kernel, gateway and launcher", "KiB"),
    Metric("connected_memory_gateway", "… of that the gateway's", "KiB"),
    Metric("connected_fds", "… descriptors a kernel, gateway and launcher", ""),
    Metric("connected_fds_gateway", "… of that the gateway's", ""),
    Metric("reconnect", "a client comes back: first replayed message", "ms"),
    Metric("restart", "the gateway is killed and comes back: as many idle kernels as there were are served", "ms"),
    Metric("journal", "small messages, v1, one more time", "1/s", more=True),
    Metric("journal_bare", "… without journal and replay", "1/s", more=True),
    Metric("callback", "longest callback on the gateway's loop, thread CPU", "ms"),
)


class Samples:
    def __init__(self) -> None:
        self._all: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, key: str, contestant: str, value: float | None) -> None:
        if value is not None:
            self._all[key][contestant].append(value)

    def median(self, key: str, contestant: str) -> float | None:
        values = self._all.get(key, {}).get(contestant)
        return statistics.median(values) if values else None

    def ratio(self, metric: Metric, ours: str, other: str) -> float | None:
        """How many times better ``ours`` is."""
        mine, theirs = self.median(metric.key, ours), self.median(metric.key, other)
        if mine is None or theirs is None:
            return None
        above, below = (mine, theirs) if metric.more else (theirs, mine)
        return above / below if above > 0 and below > 0 else None

    def summary(self, key: str, contestant: str) -> dict[str, Any] | None:
        values = self._all.get(key, {}).get(contestant)
        if not values:
            return None
        return {"median": statistics.median(values), "min": min(values), "max": max(values), "samples": values}


def percentile(values: list[float], hundredth: float) -> float:
    """The smallest value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * hundredth // 100) - 1))]
