"""Ends kernels that nobody needs: idle, busy with one request, or alive, for longer than a limit says.

``CullPolicy`` is the site's, with a kernelspec's own words on top. ``verdict`` is the rule, pure. All ages are the
launcher's, and what is unknown is not idle: nothing is said of a kernel whose launcher is not connected or tells no
age. One timer looks at all kernels, and asks a kernel's launcher once more before the kernel goes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eg_core import logs
from eg_core.errors import GatewayError
from eg_core.kernels.ends import EndReason
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.states import Event, KernelState
from eg_launcher import wire

if TYPE_CHECKING:
    from eg_core.kernels.links import LauncherLink
    from eg_core.kernels.registry import KernelRegistry

CULLED = "culled"
GONE_WITHIN = 5.0
"""Seconds beyond its grace in which a launcher says that a kernel is gone."""
MAX_SECONDS = 10 * 365 * 86400.0
_SECONDS = ("cull_idle_timeout", "cull_busy_timeout", "cull_max_age")
_FLAGS = ("cull_connected", "cull_busy")


@dataclass(frozen=True)
class CullPolicy:
    """Durations are in seconds; 0 is no limit."""

    idle_timeout: float = 0.0
    busy_timeout: float = 0.0
    max_age: float = 0.0
    connected: bool = True
    busy: bool = False

    def for_kernelspec(self, metadata: Mapping[str, Any]) -> CullPolicy:
        """With what a kernelspec's metadata says: ``cull_idle_timeout``, and all names in ``metadata.eg``.

        Raises ValueError that names the field.
        """
        stanza = metadata.get("eg")
        said = {"cull_idle_timeout": metadata.get("cull_idle_timeout")}
        said.update(stanza if isinstance(stanza, Mapping) else {})
        own: dict[str, Any] = {}
        for name in (*_SECONDS, *_FLAGS):
            value = said.get(name)
            if value is not None:
                own[name.removeprefix("cull_")] = _flag(name, value) if name in _FLAGS else _seconds(name, value)
        return replace(self, **own)


@dataclass(frozen=True)
class Facts:
    """What the launcher says of a kernel that is ready. None is unknown, or of ``busy_age``: it runs nothing."""

    execution_state: str
    activity_age: float | None
    busy_age: float | None
    age: float | None
    connections: int


@dataclass(frozen=True)
class Verdict:
    """Why a kernel goes: one word, and a sentence for whom it belonged to."""

    reason: str
    message: str


def verdict(policy: CullPolicy, facts: Facts) -> Verdict | None:
    if policy.max_age and facts.age is not None and facts.age > policy.max_age:
        return _because(EndReason.CULLED_AGE, f"it has run for {words(facts.age)}", policy.max_age, "cull_max_age")
    if policy.busy_timeout and facts.busy_age is not None and facts.busy_age > policy.busy_timeout:
        what = f"one cell has been running for {words(facts.busy_age)}"
        return _because(EndReason.CULLED_BUSY, what, policy.busy_timeout, "cull_busy_timeout")
    quiet = facts.activity_age
    if not policy.idle_timeout or quiet is None or quiet <= policy.idle_timeout:
        return None
    if facts.execution_state != "idle" and not (policy.busy and facts.execution_state == "busy"):
        return None
    if facts.connections and not policy.connected:
        return None
    return _because(
        EndReason.CULLED_IDLE, f"nothing has happened for {words(quiet)}", policy.idle_timeout, "cull_idle_timeout"
    )


def facts_of(kernel: Kernel, now: float) -> Facts | None:
    """None: nothing is known for certain. ``now`` is monotonic."""
    if kernel.state is not KernelState.READY or kernel.link is None or not kernel.link.connected.is_set():
        return None
    said, since = kernel.description, max(0.0, now - kernel.described_at)
    return Facts(
        execution_state=str(said.get("execution_state")),
        activity_age=_older(said.get("activity_age"), since),
        busy_age=_older(said.get("busy_age"), since),
        age=_older(said.get("age"), since),
        connections=max(int(said.get("connections") or 0), len(kernel.sockets)),
    )


class Culler:
    """``metadata_of`` gives a kernelspec's metadata by name; empty when there is none any more."""

    def __init__(self, registry: KernelRegistry, metadata_of: Callable[[str], Mapping[str, Any]]) -> None:
        self._registry = registry
        self._metadata_of = metadata_of
        self._told: set[str] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._registry.settings.cull_interval)
            try:
                await self.look()
            except Exception:
                self._registry.log.exception("culling failed; the next round tries again")

    async def look(self) -> int:
        """One round; how many kernels it has begun to end. Each launcher is asked once more, for a cell may have begun
        since it was heard last."""
        judged: dict[LauncherLink, list[Kernel]] = {}
        for kernel in self._registry.kernels():
            if self._judge(kernel) is not None and kernel.link is not None:
                judged.setdefault(kernel.link, []).append(kernel)
        return sum([await self._cull_of(link, kernels) for link, kernels in judged.items()])

    def _judge(self, kernel: Kernel) -> Verdict | None:
        facts = facts_of(kernel, time.monotonic())
        return None if facts is None else verdict(self._policy(kernel), facts)

    def _policy(self, kernel: Kernel) -> CullPolicy:
        policy, name = self._registry.settings.culling, kernel.record.kernelspec
        try:
            return policy.for_kernelspec(self._metadata_of(name))
        except ValueError as error:
            if f"{name}: {error}" not in self._told:
                self._told.add(f"{name}: {error}")
                self._registry.log.warning("kernelspec %s: %s; the gateway's own limits count", name, error)
            return policy

    async def _cull_of(self, link: LauncherLink, kernels: list[Kernel]) -> int:
        try:
            described = (await link.client.status()).get("kernels", {})
        except GatewayError as error:
            self._registry.log.info("%d kernels not culled, their launcher does not answer: %s", len(kernels), error)
            return 0
        return sum([await self._cull(kernel, described[kernel.id]) for kernel in kernels if kernel.id in described])

    async def _cull(self, kernel: Kernel, described: Mapping[str, Any]) -> bool:
        await self._registry.observer.describe(kernel, described)
        why = self._judge(kernel)
        if why is None:
            return False
        with logs.about(kernel_id=kernel.id, user=kernel.record.owner):
            return await cull(self._registry, kernel, why)


async def cull(registry: KernelRegistry, kernel: Kernel, why: Verdict) -> bool:
    """Its model stays for a while and says why, and it can be restarted. False: something else came first."""
    ended: dict[str, Any] = {"reason": CULLED, "code": None, "signal": None, "stderr": [], "message": why.message}
    if not await registry.advance(kernel, Event.DIED, reason=why.reason, message=why.message, exit=ended):
        return False
    await registry.tell(kernel, CULLED)
    registry.spawn(finish_culling(registry, kernel))
    return True


def was_culled(kernel: Kernel) -> bool:
    return kernel.state is KernelState.DEAD and (kernel.record.exit or {}).get("reason") == CULLED


async def finish_culling(registry: KernelRegistry, kernel: Kernel) -> None:
    """Have the launcher end it and tell its clients why; who is still connected is cut when it has."""
    await registry.ask_to_end(kernel, registry.settings.grace, kernel.failure)
    await until_gone(registry, kernel)
    if was_culled(kernel):
        kernel.close_sockets(wire.CLOSE_KERNEL_ENDED, kernel.failure)
        await registry.kill(kernel, 0.0, CULLED)


async def until_gone(registry: KernelRegistry, kernel: Kernel) -> bool:
    """Wait until the launcher has ended it, as long as that may take."""
    try:
        await asyncio.wait_for(kernel.gone.wait(), registry.settings.grace + GONE_WITHIN)
    except asyncio.TimeoutError:
        registry.log.warning("kernel %s: its launcher has not ended it yet", kernel.id)
    return kernel.gone.is_set()


def words(seconds: float) -> str:
    """A duration for people."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{math.floor(seconds / size)} {unit}s"
    return f"{seconds:.0f} seconds"


def _because(reason: EndReason, what: str, limit: float, option: str) -> Verdict:
    return Verdict(reason.value, f"The kernel was ended because {what}; the limit is {words(limit)} ({option}).")


def _older(age: Any, since: float) -> float | None:
    return float(age) + since if isinstance(age, (int, float)) and not isinstance(age, bool) else None


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{name} must be a number of seconds from 0, not {value!r}")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")  # noqa: TRY004 - a wrong type in JSON
    return value
