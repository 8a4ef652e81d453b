"""One run: the contestants side by side, what is measured in which order, and that it ends in time."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import coming_back, contestants, idle, measures, processes, venvs
from benchmarks.client import Failed
from benchmarks.contestants import GATEWAYS, Contestant
from benchmarks.measures import Counts
from benchmarks.samples import Samples

QUICK = Counts(
    rounds=1,
    stub_starts=1,
    ipykernel_starts=1,
    echoes=20,
    small=2000,
    large=2,
    starts=6,
    few=8,
    many=40,
    idle_seconds=2,
    settle=1.0,
)
SMOKE = Counts(
    rounds=1,
    stub_starts=1,
    ipykernel_starts=1,
    echoes=3,
    small=200,
    large=1,
    starts=3,
    few=3,
    many=5,
    idle_seconds=0.2,
    settle=0.2,
)
"""Figures of this are worth nothing: it shows that the harness works."""
INCUMBENTS_TRY = 200
"""Enterprise Gateway and Kernel Gateway run out of ZMQ sockets before so many kernels."""
LIGHT = ("first_stub", "small")
HEAVY = ("first_ipykernel", "echo", "large", "starts", "reconnect", "journal", "callback", "idle_many")
REST = 0.5
"""A round begins only while so much of the run's time is left: callbacks and idle kernels come after the rounds."""
SAMPLE = 3
"""So many of the heavy ones a quick run draws by its seed."""
STEPS = ("first_stub", "first_ipykernel", "echo", "small", "large", "starts", "reconnect")


@dataclass
class Plan:
    counts: Counts
    chosen: frozenset[str]
    names: tuple[str, ...]
    seconds: float
    seed: int
    kind: str


def plan_full(seed: int, names: tuple[str, ...]) -> Plan:
    return Plan(Counts(), frozenset((*LIGHT, *HEAVY)), names, 660.0, seed, "full")


def plan_quick(seed: int, names: tuple[str, ...]) -> Plan:
    drawn = random.Random(seed).sample(HEAVY, SAMPLE)  # noqa: S311 - a sample, no secret
    return Plan(QUICK, frozenset((*LIGHT, *drawn)), names, 80.0, seed, f"quick, drawn: {', '.join(sorted(drawn))}")


def plan_smoke(seed: int, names: tuple[str, ...]) -> Plan:
    return Plan(SMOKE, frozenset((*LIGHT, *HEAVY)), names, 80.0, seed, "smoke: the figures are worth nothing")


@dataclass
class Run:
    """``measure()`` once, then ``facts()``."""

    plan: Plan
    samples: Samples = field(default_factory=Samples)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What there was no time for, and what an incumbent did not do: no failure of ours."""
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def measure(self) -> None:
        names = [name for name in self.plan.names if self._is_here(name)]
        self._began = time.monotonic()
        self._load_before = _load()
        with tempfile.TemporaryDirectory(prefix="eg-bench-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary)
            pipe = contestants.write_kernelspecs(folder)
            try:
                self._side_by_side(folder, names)
                self._callbacks(folder, names)
                self._idle(folder, pipe, names)
            finally:
                processes.end_all()
        self._took = time.monotonic() - self._began

    def facts(self) -> dict[str, Any]:
        return {
            "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": platform.platform(),
            "cpus": os.cpu_count(),
            "load_before": self._load_before,
            "load_after": _load(),
            "seconds": self._took,
            "rounds": self.plan.counts.rounds,
            "starts": self.plan.counts.starts,
            "kind": self.plan.kind,
            "seed": self.plan.seed,
            "contestants": self.about,
            "notes": self.notes,
            "failures": [*self.failures, *self.missing],
        }

    # -- the parts ---------------------------------------------------------------------------------------------

    def _side_by_side(self, folder: Path, names: list[str]) -> None:
        counts = self.plan.counts
        floor = contestants.bare_tornado(folder)
        gateways = [GATEWAYS[name](folder) for name in names]
        for contestant in (floor, *gateways):
            self._say(f"starting {contestant.name}")
            contestant.start()
        self.about["tornado"] = {"differs": floor.differs}
        self.about["kernel"] = {
            "differs": "jupyter_client's blocking client over ZMQ, with the first request sent at once"
        }
        for gateway in gateways:
            self._try("cold_stub", gateway.name, partial(measures.first_result, self.samples, gateway, "stub", "cold"))
        for number in range(counts.rounds):
            if number and self._left() < self.plan.seconds * REST:
                self.notes.append(f"{number} rounds of {counts.rounds}: the machine was too busy for more")
                break
            turned = gateways[number % len(gateways) :] + gateways[: number % len(gateways)]
            for step in STEPS:
                if step in self.plan.chosen:
                    self._say(f"round {number + 1} of {counts.rounds}: {step}")
                    self._step(step, turned, floor, folder / "jupyter" / "kernels")
        self._journal(folder, gateways)
        for contestant in (floor, *gateways):
            contestant.stop()

    def _step(self, step: str, gateways: list[Contestant], floor: Contestant, kernelspecs: Path) -> None:
        samples, counts = self.samples, self.plan.counts
        if step.startswith("first_"):
            spec = step.removeprefix("first_")
            for _ in range(counts.stub_starts if spec == "stub" else counts.ipykernel_starts):
                for gateway in gateways:
                    self._try(step, gateway.name, partial(measures.first_result, samples, gateway, spec))
                self._try(step, "kernel", partial(measures.bare_first_result, samples, kernelspecs, spec))
            return
        one: dict[str, Callable[[Contestant], None]] = {
            "echo": lambda gateway: measures.echo(samples, gateway, counts),
            "small": lambda gateway: measures.small(samples, gateway, counts),
            "large": lambda gateway: measures.large(samples, gateway, counts),
            "starts": lambda gateway: measures.starts(samples, gateway, floor, counts),
            "reconnect": lambda gateway: coming_back.reconnect(samples, gateway, counts),
        }
        for gateway in gateways:
            if step == "reconnect" and gateway.name != "eg":
                continue
            self._try(step, gateway.name, partial(one[step], gateway))
        if step == "small":  # the floors' echo and large messages are measured with it
            self._try(step, "tornado", lambda: measures.bare_tornado(samples, floor, counts))
            self._try(step, "kernel", lambda: measures.bare_kernel(samples, kernelspecs, counts))

    def _journal(self, folder: Path, gateways: list[Contestant]) -> None:
        ours = next((gateway for gateway in gateways if gateway.name == "eg"), None)
        if ours is None or "journal" not in self.plan.chosen:
            return
        self._say("what the journal costs")
        with _started(contestants.eg_bare(folder)) as bare:
            self._try("journal", "eg", lambda: coming_back.journal(self.samples, ours, bare, self.plan.counts))

    def _callbacks(self, folder: Path, names: list[str]) -> None:
        """Instances of their own, whose loop is watched from when they serve: starts, messages, large ones, DELETE."""
        if "callback" not in self.plan.chosen:
            return
        for name in names:
            self._say(f"callbacks of {name}")
            self._try("callback", name, partial(self._callback, folder, name))

    def _callback(self, folder: Path, name: str) -> None:
        counts, unused = self.plan.counts, Samples()
        with _started(GATEWAYS[name](folder, watched=True)) as gateway:
            gateway.watch_from_now()
            self._try("callback: starts", name, lambda: measures.starts(unused, gateway, gateway, counts))
            self._try("callback: small", name, lambda: measures.small(unused, gateway, counts))
            self._try("callback: large", name, lambda: measures.large(unused, gateway, counts))
            report = gateway.watched_until_now()
        self.samples.add("callback", name, float(str(report["longest_ms"])))
        self.notes.append(f"{name}'s longest callback of {report['callbacks']}: `{str(report['callback'])[:200]}`")

    def _idle(self, folder: Path, pipe: Path, names: list[str]) -> None:
        counts = self.plan.counts
        if "idle_many" not in self.plan.chosen:
            return
        self.samples.add("idle_many_wanted", "eg", counts.many)
        for name in names:
            self._say(f"idle kernels of {name}")
            sizes = {"few": counts.few, "many": counts.many if name == "eg" else min(counts.many, INCUMBENTS_TRY)}
            self._try("idle", name, partial(self._idle_one, folder, pipe, name, sizes))

    def _idle_one(self, folder: Path, pipe: Path, name: str, sizes: dict[str, int]) -> None:
        host = contestants.start_many_host(folder, pipe)
        kernels: list[measures.Kernel] = []
        try:
            gateway = GATEWAYS[name](folder)
            gateway.folder = folder / f"{name}-idle"
            with _started(gateway):
                why = idle.idle(
                    self.samples,
                    gateway,
                    kernels,
                    sizes=sizes,
                    seconds=self.plan.counts.idle_seconds,
                    settle=self.plan.counts.settle,
                    out_of_time=lambda: self._left() < 0,
                )
                if name == "eg":
                    self._try("restart", name, lambda: coming_back.restart(self.samples, gateway, kernels))
            if why:
                self.notes.append(why)
        finally:
            processes.end([host])

    # -- around them -------------------------------------------------------------------------------------------

    def _is_here(self, name: str) -> bool:
        try:
            python = sys.executable if name == "eg" else venvs.incumbent(name)
        except venvs.NotInstalled as error:
            self.failures.append(f"{name}: {error}")
            return False
        package = {"eg": "eg_core", "EG": "jupyter_enterprise_gateway", "KG": "jupyter_kernel_gateway"}[name]
        packages = (package, "jupyter_client", "jupyter_server", "pyzmq", "tornado", "ipykernel")
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.about[name] = {
                "versions": venvs.versions(python, *packages),
                "differs": GATEWAYS[name](folder).differs,
            }
        return True

    def _try(self, step: str, name: str, action: Callable[[], None]) -> None:
        """What goes wrong is said, and the next one follows."""
        if self._left() < 0:
            line = f"{step} of {name} in at least one round: the run's time was up"
            if line not in self.missing:
                self.missing.append(line)
            return
        try:
            action()
        except (Failed, OSError) as error:
            line = f"{step} of {name}: {str(error)[:500]}"
            (self.missing if name in venvs.INCUMBENTS else self.failures).append(line)
            self._say(line)

    def _left(self) -> float:
        return self._began + self.plan.seconds - time.monotonic()

    def _say(self, words: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {words}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _started(gateway: Contestant) -> Iterator[Contestant]:
    try:
        gateway.start()
        yield gateway
    finally:
        if gateway.pid:
            gateway.stop()


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def known(names: Iterable[str]) -> tuple[str, ...]:
    """ValueError names what is not."""
    asked = tuple(names)
    unknown = set(asked) - set(GATEWAYS)
    if unknown or not asked:
        raise ValueError(f"contestants are {', '.join(GATEWAYS)}, not {', '.join(sorted(unknown)) or 'none'}")
    return asked
