"""The records that cross the seam between the gateway and its plugins.

Frozen, so that nothing of a request can be parked on a shared object. What a site plugin may edit before
a launch are the mutable *contents* of ``LaunchRequest``: ``options``, ``labels`` and ``kernel``.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal


@dataclass(frozen=True)
class GatewayInfo:
    """What a plugin may know of the gateway it lives in.

    ``gateway_id`` is the identity of the *store* (all replicas share it): label with it what you create.
    """

    gateway_id: str
    version: str
    data_dir: Path


@dataclass
class KernelStart:
    """What the launcher is told to start. Sites may edit it.

    ``argv`` still holds ``{connection_file}``: the launcher fills it in. ``env`` goes on top of the remote
    user's own environment. ``cwd`` is a path on the remote; one that does not exist falls back to HOME.
    ``interrupt_mode`` is ``signal`` or ``message``.
    """

    argv: list[str]
    env: dict[str, str] = field(repr=False)
    cwd: str | None = None
    interrupt_mode: str = "signal"


@dataclass(frozen=True)
class LauncherFiles:
    """What a backend needs to start a launcher on its resource manager.

    ``args`` is the tail of the launcher's command line (no secret in it). ``credentials`` is the JSON line the
    launcher reads on stdin or from a 0600 file or mounted secret (``--credentials``): its id, token,
    certificate and key. ``lease`` in seconds: how long it lives without a gateway. ``pyz`` is
    the whole launcher as one file, for images that hold nothing of ours.
    """

    launcher_id: str
    args: tuple[str, ...]
    credentials: str = field(repr=False)
    lease: float
    pyz: Path | None = None


@dataclass(frozen=True)
class LaunchRequest:
    """One kernel to be started; an argument all the way down.

    ``backend`` is the *instance's* name. ``owner`` is who asked, ``run_as`` the OS user it shall run as
    (None: the backend's own). ``options`` are the kernelspec's ``metadata.eg.config``, validated by the
    backend. ``deadline`` is in seconds of ``time.monotonic()``.
    """

    kernel_id: str
    kernelspec: str
    backend: str
    owner: str
    run_as: str | None
    options: dict[str, Any]
    labels: dict[str, str]
    deadline: float
    kernel: KernelStart
    launcher: LauncherFiles


@dataclass(frozen=True)
class KernelHandle:
    """What a backend must remember to find a kernel's launcher again.

    ``state`` is JSON, the plugin's own, survives a restart of the gateway and holds no secret.
    ``launcher_id`` is the request's, or that of a running launcher which the kernel joined.
    """

    kernel_id: str
    launcher_id: str
    backend: str
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """A sentence for whoever waits: "pulling image …", "3rd in queue default"."""

    message: str


@dataclass(frozen=True)
class Endpoint:
    """Where a launcher listens: a Unix socket's path, or host and port with TLS.

    Over TLS the gateway trusts its own CA only and expects the launcher's id as the certificate's name.
    """

    path: str | None = None
    host: str | None = None
    port: int | None = None

    @property
    def tls(self) -> bool:
        return self.path is None

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path is not None else f"tcp:{self.host}:{self.port}"


@dataclass(frozen=True)
class ProcessInfo:
    """A kernel's process on its host. ``started`` is in clock ticks since boot (``/proc/PID/stat``, field 22):
    with it a recycled pid is never mistaken for the kernel."""

    pid: int
    pgid: int
    started: int
    host: str


class Liveness(enum.Enum):
    """What a resource manager says of a launcher. UNKNOWN is an answer: it never means dead."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class KernelStatus:
    """A backend's view of one handle. ``reason`` is one word, ``detail`` a sentence for the user."""

    state: Liveness
    reason: str | None = None
    exit_code: int | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Poll:
    """The answer of one batch poll: a status per kernel id asked for, and what carries this gateway's label
    but was not asked for (the core decides whether that is a stray)."""

    statuses: Mapping[str, KernelStatus]
    strays: Sequence[KernelHandle] = ()


@dataclass(frozen=True)
class CheckResult:
    """What a check has found. ``status`` is ``ok``, ``warn`` (works, but) or ``fail``; ``detail`` a sentence,
    ``hint`` what to do about it."""

    status: Literal["ok", "warn", "fail"]
    detail: str
    hint: str | None = None


@dataclass(frozen=True)
class Check:
    """Something that ``eg doctor`` can look at before a user runs into it.

    ``name`` is dotted and begins with the plugin instance's name (``gpu-eu.queue``), ``summary`` says what holds when
    all is well. ``run`` changes nothing; what it raises is a failed check. It is given up after ``timeout`` seconds.
    """

    name: str
    summary: str
    run: Callable[[], Awaitable[CheckResult]]
    timeout: float = 10.0


KERNEL_EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "launching": "its launch has begun",
        "launched": "it has answered for the first time",
        "launch_failed": "its launch failed; the reason says why",
        "interrupted": "an interrupt was asked for",
        "restarting": "a restart was asked for",
        "died": "it ended unasked; the reason says why",
        "culled": "it is being ended because a limit says so; the reason says which",
        "ended": "it was ended, and nothing of it is left",
        "stray_removed": "a launcher that belonged to no record was removed",
    }
)
"""Every name of an event, and what it says."""


@dataclass(frozen=True)
class KernelEvent:
    """Something that happened to a kernel. ``name`` is one of ``KERNEL_EVENTS``, ``at`` seconds since the epoch,
    ``reason`` one word. Of a stray hardly more is known than its backend: what is not is empty."""

    name: str
    kernel_id: str
    kernelspec: str
    backend: str
    owner: str
    at: float
    reason: str | None = None
    message: str | None = None
