"""What is told of a kernel: the protocol's *kernel*, Jupyter's kernel model, and what of it makes news. Reads, only."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from eg_launcher.usage import session_usage

if TYPE_CHECKING:
    from eg_launcher.kernels import Kernel


def essence(kernel: Kernel) -> tuple[object, ...]:
    """All that ``describe`` tells but ages and usage: another one means news."""
    return (
        kernel.state,
        kernel.execution_state,
        kernel.incarnation,
        kernel.session,
        kernel.executions.begun,
        len(kernel.channels),
        kernel.exit["reason"] if kernel.exit is not None else None,
        kernel.process.pid if kernel.process is not None else None,
    )


def describe(kernel: Kernel) -> dict[str, Any]:
    """The protocol's *kernel*."""
    process = kernel.process
    return {
        "id": kernel.id,
        "name": kernel.name,
        "state": kernel.state,
        "execution_state": kernel.execution_state,
        "incarnation": kernel.incarnation,
        "epoch": kernel.journal.epoch,
        "session": kernel.session,
        "interrupt_mode": kernel.interrupt_mode,
        "process": process.as_dict() if process is not None else None,
        "activity_age": round(kernel.activity_age, 3),
        "busy_age": _rounded(kernel.executions.busy_age) if kernel.state == "ready" else None,
        "age": _rounded(kernel.age),
        "connections": len(kernel.channels),
        "usage": session_usage(process.pid) if process is not None and kernel.state != "dead" else None,
        "exit": kernel.exit,
        "waiting": kernel.executions.waiting(),
    }


def model(kernel: Kernel) -> dict[str, Any]:
    """Jupyter's kernel model, for clients without a gateway."""
    active = datetime.now(timezone.utc) - timedelta(seconds=kernel.activity_age)
    told = {
        "id": kernel.id,
        "name": kernel.name,
        "last_activity": active.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "execution_state": kernel.execution_state,
        "connections": len(kernel.channels),
    }
    if kernel.exit is not None:
        told["reason"] = kernel.exit["message"]
    return told


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
