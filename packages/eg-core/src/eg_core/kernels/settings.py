"""What the registry is told: its settings, and what to start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eg_core.kernels.culling import CullPolicy
from eg_core.kernels.states import KernelState
from eg_core.store.records import Quota
from eg_core.types import KernelStart

_COUNTED = frozenset(state.value for state in KernelState) - {KernelState.DEAD.value, KernelState.ENDING.value}


@dataclass(frozen=True)
class Settings:
    """Durations are in seconds. A limit of None is none."""

    launch_timeout: float = 3600.0
    poll_interval: float = 10.0
    dead_ttl: float = 600.0
    grace: float = 5.0
    lease: float = 120.0
    max_kernels: int | None = None
    max_kernels_per_user: int | None = None
    culling: CullPolicy = field(default_factory=CullPolicy)
    cull_interval: float = 300.0
    limits: Mapping[str, Any] = field(default_factory=dict)  # the launcher protocol's, for kernels to come
    journal: Mapping[str, Any] = field(default_factory=dict)  # likewise

    @property
    def quota(self) -> Quota:
        """What is dead or being removed takes no place."""
        return Quota(_COUNTED, self.max_kernels, self.max_kernels_per_user)


@dataclass(frozen=True)
class NewKernel:
    """What is asked for, checked already."""

    kernel_id: str
    kernelspec: str
    backend: str
    owner: str
    start: KernelStart
    options: Mapping[str, Any]
    launch_timeout: float | None = None
