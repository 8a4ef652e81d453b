"""One kernel as this gateway sees it: its record, its launcher's last word about it, and its clients' sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from eg_core.errors import BackendUnavailable, GatewayError
from eg_core.kernels.states import PENDING, KernelState
from eg_core.store.records import KernelRecord
from eg_core.types import KernelEvent, ProcessInfo

if TYPE_CHECKING:
    from eg_core.kernels.links import LauncherLink
    from eg_core.launchers.client import ChannelsLink

_EXECUTION_STATES = {
    KernelState.LAUNCHING: "starting",
    KernelState.STARTING: "starting",
    KernelState.RESTARTING: "restarting",
    KernelState.DEAD: "dead",
    KernelState.ENDING: "dead",
}


class ClientSocket(Protocol):
    """A client's open channels, as the registry sees them."""

    @property
    def traffic(self) -> int:
        """Bytes that have passed, both ways; of use only for seeing whether more have."""

    def close(self, code: int, reason: str) -> None: ...


class Kernel:
    """The registry's entry. Only the registry changes ``record`` (after the store has it) and ``link``."""

    def __init__(self, record: KernelRecord) -> None:
        self.record = record
        self.link: LauncherLink | None = None
        self.launch: asyncio.Task[None] | None = None
        self.phase: str | None = None  # of its launch: launcher, start, answer
        self.progress: str | None = None
        self.error: GatewayError | None = None  # why its launch failed
        self.sockets: set[ClientSocket] = set()
        self.lock = asyncio.Lock()
        self.incarnation = 1  # the process that counts; what is said of an earlier one comes too late
        self.accepted_at = 0.0  # monotonic; a launcher's snapshot from before does not know the kernel yet
        self.gone = asyncio.Event()  # the launcher has forgotten it, or has ended
        self.verdict: str | None = None  # the backend's words about a launcher that has ended
        self.description: Mapping[str, Any] = {}
        self.described_at = time.monotonic()
        self._described_at = time.time()
        self._changed = asyncio.Event()

    # -- what others ask -------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self.record.kernel_id

    @property
    def state(self) -> KernelState:
        return KernelState(self.record.state)

    @property
    def session(self) -> str | None:
        """The kernel's own ``header.session``; None until it has said something."""
        return self.description.get("session")

    @property
    def failure(self) -> str:
        """Why it is dead, in words."""
        return self.record.message or "The kernel has ended."

    @property
    def process(self) -> ProcessInfo | None:
        return self.record.process

    def model(self) -> dict[str, Any]:
        """Jupyter's kernel model, with ``reason`` when there is something to tell."""
        state = self.state
        activity = self._described_at - float(self.description.get("activity_age") or 0.0)
        model: dict[str, Any] = {
            "id": self.id,
            "name": self.record.kernelspec,
            "last_activity": datetime.fromtimestamp(activity, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "execution_state": _EXECUTION_STATES.get(state) or self.description.get("execution_state", "unknown"),
            "connections": max(int(self.description.get("connections") or 0), len(self.sockets)),
        }
        if state is KernelState.DEAD:
            model["reason"] = self.failure
            model["reason_code"] = self.record.reason
            if self.record.exit is not None:
                model["exit"] = self.record.exit
        elif state in PENDING:
            model |= {name: said for name, said in (("phase", self.phase), ("reason", self.progress)) if said}
        return model

    async def settled(self) -> None:
        """Return when nobody has to wait any more: it is ready, dead or being removed."""
        while self.state in PENDING:
            await self._changed.wait()

    async def open_channels(self, *, query: Mapping[str, str], subprotocol: str | None) -> ChannelsLink:
        """A stream to the launcher on which the WebSocket handshake is done, and what was read beyond it."""
        if self.link is None:
            raise BackendUnavailable(f"The launcher of kernel {self.id} is not connected; trying again.")
        return await self.link.client.open_channels(self.id, query=query, subprotocol=subprotocol)

    def event(self, name: str) -> KernelEvent:
        record = self.record
        return KernelEvent(
            name=name,
            kernel_id=record.kernel_id,
            kernelspec=record.kernelspec,
            backend=record.backend,
            owner=record.owner,
            at=time.time(),
            reason=record.reason,
            message=record.message,
        )

    # -- what the registry does ------------------------------------------------------------------------------

    def changed(self, record: KernelRecord) -> None:
        """Take the stored record and wake whoever waits."""
        self.record = record
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    def describe(self, description: Mapping[str, Any]) -> bool:
        """Take the launcher's last word (the protocol's *kernel* object); False when it comes too late.

        An answer and an event may overtake each other, but within one incarnation a kernel only ever goes
        from starting to ready to dead.
        """
        incarnation = int(description.get("incarnation") or 1)
        known = int(self.description.get("incarnation") or 0)
        if incarnation < self.incarnation:
            return False
        if incarnation == known and _rank(description) < _rank(self.description):
            return False
        self.description = description
        self.incarnation = incarnation
        self.described_at, self._described_at = time.monotonic(), time.time()
        return True

    def begin(self) -> None:
        """A new launch: nothing that was said of an earlier process holds."""
        self.incarnation = 1
        self.error = None
        self.description = {}
        self.gone.clear()
        self.verdict = None
        self.phase = self.progress = None

    def close_sockets(self, code: int, reason: str) -> None:
        for client in tuple(self.sockets):
            client.close(code, reason)


def _rank(description: Mapping[str, Any]) -> int:
    return {"ready": 1, "dead": 2}.get(str(description.get("state")), 0)


def process_of(description: Mapping[str, Any]) -> ProcessInfo | None:
    """The ``process`` of a launcher's description."""
    process = description.get("process")
    if not isinstance(process, Mapping):
        return None
    return ProcessInfo(
        pid=int(process["pid"]), pgid=int(process["pgid"]), started=int(process["started"]), host=str(process["host"])
    )
