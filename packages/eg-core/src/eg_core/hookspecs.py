"""The seam: every hook a plugin may implement, and nothing else.

The kind of each hook (``def``, ``async def``, async generator) is part of its contract and is checked when a
plugin is registered. *Site* hooks are called on every plugin; *backend* hooks only on the backend instance that
a handle or request names. Arguments are only ever added, and an implementation may leave out those it
does not use. A backend implements at least the three hooks marked required.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable, Sequence

import pluggy

from eg_core.types import (
    Check,
    Endpoint,
    GatewayInfo,
    KernelEvent,
    KernelHandle,
    LaunchRequest,
    Poll,
    ProcessInfo,
    Progress,
)

PROJECT = "eg"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# -- declare ------------------------------------------------------------------------------------------------


@hookspec
def eg_doctor_checks() -> Iterable[Check]:  # type: ignore[empty-body]
    """What ``eg doctor`` can look at. Called without ``eg_startup``: traits and ``environ`` are there, no gateway.

    Returns at once; looking is the checks' business (``Check.run``), which run side by side.
    """


# -- site ---------------------------------------------------------------------------------------------------


@hookspec
async def eg_startup(gateway: GatewayInfo) -> None:
    """Open clients. Raising stops the server, with the plugin's name in the message."""


@hookspec
async def eg_shutdown() -> None:
    """Close them. Called for all plugins, last started first; a failure is logged and the others still run."""


@hookspec
async def eg_modify_launch(request: LaunchRequest) -> None:
    """Edit ``request.options``, ``request.labels`` and ``request.kernel`` in place, before anything exists.

    Raise LaunchDenied or InvalidRequest to refuse.
    """


@hookspec
async def eg_observe_event(event: KernelEvent) -> None:
    """Be told what happened. Cannot change it; a failure is logged."""


# -- backend ------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def eg_launch_kernel(request: LaunchRequest) -> AsyncIterator[KernelHandle | Progress]:  # type: ignore[empty-body]
    """Required; an async generator. Get a launcher running for one kernel, or join one that runs already.

    Yield a handle *before* the remote call that creates something, whenever its name is known by then, and
    again when more is known: each is stored before the next step, and the last one is what
    ``eg_kill_kernel`` gets if this launch fails, is cancelled or outlives ``request.deadline``. Yield
    Progress as often as there is something to tell. Return when the launcher runs; starting the kernel is the
    core's business. Idempotent per ``request.kernel_id``: called again after a crash, it finds what
    it had created.

    Raises LaunchFailed if the remote refuses, BackendUnavailable if it is away.
    """


@hookspec(firstresult=True)
async def eg_discover_connection(handle: KernelHandle) -> Endpoint:  # type: ignore[empty-body]
    """Say where the launcher listens. Called again after a restart of the gateway: use only the handle.

    Default: the handle's ``state["endpoint"]``, as ``{"path": …}`` or ``{"host": …, "port": …}``.
    """


@hookspec(firstresult=True)
async def eg_connect_launcher(handle: KernelHandle, endpoint: Endpoint) -> socket.socket:  # type: ignore[empty-body]
    """Open one stream to the launcher: a connected, non-blocking socket, without TLS (the core adds it).

    Default: dials the Unix socket or the TCP address.
    """


@hookspec(firstresult=True)
async def eg_poll_kernels(handles: Sequence[KernelHandle]) -> Poll:  # type: ignore[empty-body]
    """Required. One remote call for all handles of this backend, and the strays that carry the gateway's label.

    Say UNKNOWN when the remote did not answer; EXITED only when it said so. Never raises for one bad handle.
    """


@hookspec(firstresult=True)
async def eg_interrupt_kernel(handle: KernelHandle, process: ProcessInfo | None) -> bool:  # type: ignore[empty-body]
    """Stop the running cell by the backend's own means and return True; harmless on an idle kernel.

    Default: returns False, and the core asks the launcher.
    """


@hookspec(firstresult=True)
async def eg_kill_kernel(handle: KernelHandle, process: ProcessInfo | None, grace: float, reason: str) -> None:
    """Required. Remove what is left of this kernel; when it returns, nothing of it remains.

    The core has asked the launcher to end the kernel before, if it could be reached. Idempotent; gone already
    is success. A launcher shared with other kernels is left alone (it ends itself when it holds none).
    """
