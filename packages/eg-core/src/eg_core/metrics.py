"""What is counted, for ``/metrics``: one object with a registry of its own, made by the application and handed down.

Who does the work counts it here, by one call; what can be asked (kernels, channels, bytes) is asked when somebody looks
(``Watched``). Labels are names from the configuration and words of small sets, never a user or a kernel id.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from eg_core.errors import LaunchCancelled
from eg_core.types import KernelEvent

PHASES = ("launcher", "start", "answer")
"""Of a launch: until a launcher is connected; until it has started the process; until the kernel answers."""
LAG_EVERY = 1.0

_LAUNCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class KernelCount:
    """One kernel, as far as it is counted. ``state`` is ``KernelState``'s word, ``channels`` its open WebSockets."""

    state: str
    backend: str
    channels: int


@dataclass(frozen=True)
class Watched:
    """Where to ask when somebody looks. ``traffic`` gives bytes to clients and bytes to kernels."""

    states: tuple[str, ...]
    kernels: Callable[[], Iterable[KernelCount]]
    traffic: Callable[[], tuple[int, int]]


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._events = self._counter("eg_kernel_events", "What happened to kernels.", "event")
        self._failures = self._counter(
            "eg_launch_failures", "Launches that failed or were cancelled, by reason code.", "reason"
        )
        self._deaths = self._counter(
            "eg_kernel_deaths", "Kernels that ended unasked, or because of a limit, by reason code.", "reason"
        )
        self._restarts = self._counter("eg_kernel_restarts", "Restarts that were asked for.")
        self._phases = self._histogram(
            "eg_launch_phase_seconds",
            "Seconds of a launch: launcher (until one is connected), start (until it has started the process), answer "
            "(until the kernel answers).",
            _LAUNCH_BUCKETS,
            *("backend", "phase"),
        )
        self._links = self._histogram(
            "eg_channels_link_seconds",
            "Seconds until a client's channels were linked to its kernel's launcher: first (from when there was one to "
            "link to), again (from when the launcher's side was lost).",
            _HTTP_BUCKETS,
            "kind",
        )
        self._replays = self._histogram(
            "eg_channels_replay_seconds",
            "Seconds from then until a client had been sent all that it may have missed.",
            _HTTP_BUCKETS,
        )
        self._http = self._histogram(
            "eg_http_request_duration_seconds",
            "Seconds until a request was answered; a POST that starts a kernel waits for it. WebSockets: the upgrade.",
            _HTTP_BUCKETS,
            *("handler", "method", "status"),
        )
        self._lag = self._histogram(
            "eg_loop_lag_seconds",
            "How late the event loop was, sampled once a second: time in which the gateway served nobody.",
            _LAG_BUCKETS,
        )

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, ["backend", *labels], registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, words, labels, buckets=buckets, registry=self.registry)

    # -- counting --------------------------------------------------------------------------------------------

    def event(self, event: KernelEvent) -> None:
        self._events.labels(event.backend, event.name).inc()
        cancelled = event.name == "ended" and event.reason == LaunchCancelled.reason
        if event.name == "launch_failed" or cancelled:
            self._failures.labels(event.backend, word(event.reason)).inc()
        elif event.name in ("died", "culled"):
            self._deaths.labels(event.backend, word(event.reason)).inc()
        elif event.name == "restarting":
            self._restarts.labels(event.backend).inc()

    def launch_phase(self, backend: str, phase: str, seconds: float) -> None:
        self._phases.labels(backend, phase).observe(seconds)

    def linked(self, kind: str, seconds: float) -> None:
        self._links.labels(kind).observe(seconds)

    def replayed(self, seconds: float) -> None:
        self._replays.observe(seconds)

    def http(self, handler: str, method: str, status: int, seconds: float) -> None:
        self._http.labels(handler, method if method in _METHODS else "other", str(status)).observe(seconds)

    async def watch_loop(self) -> None:
        """For ever: how much later than asked the loop comes back."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self._lag.observe(max(0.0, loop.time() - due))

    # -- looking ---------------------------------------------------------------------------------------------

    def watch(self, watched: Watched) -> None:
        """Ask there, too, when somebody looks. Once, when the layers are built."""
        self.registry.register(_Asking(watched))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that the ``Accept`` header asks for, and that format's content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # noqa: BLE001 - what a client sends need not be a version, and the library reads it as one
            encode, content_type = choose_encoder("")
        return encode(self.registry), content_type


class _Asking(Collector):
    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        kernels = GaugeMetricFamily("eg_kernels", "Kernels there are now.", labels=["state", "backend"])
        channels = GaugeMetricFamily("eg_channels", "Open WebSockets of clients.", labels=["backend"])
        counts: Tally[tuple[str, str]] = Tally()
        sockets: Tally[str] = Tally()
        for kernel in self._watched.kernels():
            counts[kernel.state, kernel.backend] += 1
            sockets[kernel.backend] += kernel.channels
        for backend in sorted(sockets):
            for state in self._watched.states:
                kernels.add_metric([state, backend], counts[state, backend])
            channels.add_metric([backend], sockets[backend])
        yield kernels
        yield channels
        to_clients, to_kernels = self._watched.traffic()
        traffic = CounterMetricFamily(
            "eg_channels_bytes", "Bytes carried between clients and kernels.", labels=["direction"]
        )
        traffic.add_metric(["to_client"], to_clients)
        traffic.add_metric(["to_kernel"], to_kernels)
        yield traffic

    def describe(self) -> Iterator[Metric]:
        """What ``collect`` gives, without asking: registering must not look at layers that are being built."""
        yield GaugeMetricFamily("eg_kernels", "")
        yield GaugeMetricFamily("eg_channels", "")
        yield CounterMetricFamily("eg_channels_bytes", "")


def word(reason: str | None) -> str:
    """A reason code as a label; what is no word of a small set does not become one."""
    if reason is None:
        return "unknown"
    return reason if _WORD.fullmatch(reason) else "other"
