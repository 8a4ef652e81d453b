"""``/events``: what changed, pushed to whoever watches; a gateway's one connection per launcher.

A subscriber is a set of what it has not been told yet, never a queue: a slow one gets the newest of each kernel when
it can take it. A change of state goes out in the next turn of the loop, mere activity within a second.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Callable, Mapping

from eg_launcher import wire
from eg_launcher.kernels import Kernel
from eg_launcher.lease import Lease
from eg_launcher.sockets import WebSocket
from eg_launcher.websocket import Opcode

PING_INTERVAL = 30.0
SILENCE = 90.0


class EventFeed:
    """Turns ``Kernel``'s calls of ``changed`` into pushes. ``status`` gives the *status* of the protocol."""

    def __init__(self, kernels: Mapping[str, Kernel], status: Callable[[], dict[str, Any]], lease: Lease) -> None:
        self.untold = False
        """A kernel is gone, and nobody has been told yet."""
        self.status = status
        self.lease = lease
        self.loop = asyncio.get_running_loop()
        self.subscribers: set[Subscriber] = set()
        self._kernels = kernels
        self._essences: dict[str, object] = {}
        self._changed: set[str] = set()
        self._active: set[str] = set()
        self._scheduled = False

    def subscribe(self, websocket: WebSocket) -> Subscriber:
        subscriber = Subscriber(self, websocket)
        self.subscribers.add(subscriber)
        subscriber.pump()
        return subscriber

    def changed(self, kernel: Kernel) -> None:
        """Something about this kernel is new, or it is active. Cheap: may be called for every message."""
        essence = kernel.essence
        if self._essences.get(kernel.id) == essence:
            self._active.add(kernel.id)
            return
        self._essences[kernel.id] = essence
        self._changed.add(kernel.id)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def gone(self, kernel_id: str, exit_: dict[str, Any] | None) -> None:
        """A kernel was shut down and forgotten."""
        self.untold = True
        self._essences.pop(kernel_id, None)
        self._changed.discard(kernel_id)
        self._active.discard(kernel_id)
        for subscriber in list(self.subscribers):
            subscriber.gone[kernel_id] = exit_
            subscriber.stale.discard(kernel_id)
            subscriber.pump()

    def tick(self) -> None:
        """Once a second: activity, pings, and who has fallen silent."""
        self._changed |= self._active
        self._active.clear()
        self._turn()
        now = self.loop.time()
        for subscriber in list(self.subscribers):
            subscriber.tick(now)

    def describe(self, kernel_id: str) -> dict[str, Any] | None:
        kernel = self._kernels.get(kernel_id)
        return None if kernel is None else kernel.describe()

    def _turn(self) -> None:
        self._scheduled = False
        if self._changed:
            changed, self._changed = self._changed, set()
            for subscriber in list(self.subscribers):
                subscriber.stale |= changed
                subscriber.pump()


class Subscriber:
    """One ``/events`` socket."""

    def __init__(self, feed: EventFeed, websocket: WebSocket) -> None:
        self.stale: set[str] = set()
        self.gone: dict[str, dict[str, Any] | None] = {}
        self._feed = feed
        self._websocket = websocket
        self._heard = self._pinged = feed.loop.time()
        self._greeted = False
        feed.lease.hold()

    def pump(self) -> None:
        """Tell what is new, as long as the client takes it."""
        if not self._greeted:
            self._greeted = True
            self._send({"type": "status", **self._feed.status()})
            self._feed.untold = False
        while self.gone and not self._websocket.paused:
            kernel_id = next(iter(self.gone))
            self._send({"type": "gone", "id": kernel_id, "exit": self.gone.pop(kernel_id)})
            self._feed.untold = False
        while self.stale and not self._websocket.paused:
            description = self._feed.describe(self.stale.pop())
            if description is not None:
                self._send({"type": "kernel", "kernel": description})

    def tick(self, now: float) -> None:
        if now - self._heard > SILENCE:
            self._websocket.close(wire.CLOSE_SILENT, f"Nothing was heard for {SILENCE:.0f} s.")
        elif now - self._pinged >= PING_INTERVAL:
            self._pinged = now
            self._websocket.ping(b"")

    def on_message(self, opcode: Opcode, payload: bytes) -> None:
        self._heard = self._feed.loop.time()  # there is nothing to say here; it is not an error either

    def on_pong(self, payload: bytes) -> None:
        self._heard = self._feed.loop.time()

    def on_drain(self) -> None:
        self.pump()

    def on_close(self) -> None:
        if self in self._feed.subscribers:
            self._feed.subscribers.remove(self)
            self._feed.lease.release()

    def _send(self, event: dict[str, Any]) -> None:
        self._websocket.send(Opcode.TEXT, (json.dumps(event, separators=(",", ":")).encode(),))
