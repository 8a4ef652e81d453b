"""The records of the store, frozen: to change one is to write it (``Store.update_kernel``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eg_core.types import KernelHandle, KernelStart, ProcessInfo


@dataclass(frozen=True)
class KernelRecord:
    """One kernel, written before the first remote call. Times are seconds since the epoch.

    ``state`` is the registry's word. ``start`` and ``options`` may hold secrets and are encrypted at rest; ``handle``
    is the last one that the backend gave, ``exit`` the launcher's *exit* object.
    """

    kernel_id: str
    kernelspec: str
    backend: str
    owner: str
    run_as: str | None
    state: str
    reason: str | None
    message: str | None
    options: dict[str, Any] = field(repr=False)
    labels: dict[str, str]
    start: KernelStart
    handle: KernelHandle | None
    process: ProcessInfo | None
    exit: dict[str, Any] | None
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class LauncherRecord:
    """A launcher that may run, and the token with which the gateway speaks to it."""

    launcher_id: str
    backend: str
    token: str = field(repr=False)
    created_at: float


@dataclass(frozen=True)
class Quota:
    """How many kernels may be in ``states`` at the same time; None is no limit. Counted where the row is written."""

    states: frozenset[str]
    total: int | None = None
    per_owner: int | None = None

    @property
    def limits(self) -> bool:
        return self.total is not None or self.per_owner is not None


@dataclass(frozen=True)
class SessionRecord:
    """A document that a client has bound to a kernel. ``owner`` is its kernel's."""

    session_id: str
    kernel_id: str
    owner: str
    path: str
    name: str
    type: str
    created_at: float
