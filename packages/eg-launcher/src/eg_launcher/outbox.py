"""What clients have sent and the kernel does not take yet: before it is ready, or while its socket is full.

In order per ZMQ channel, so that a full shell never holds up control (an interrupt) or stdin. Who sent it is told
what is held for it and when that is gone, and stops reading its socket meanwhile: that bounds it.
"""

from __future__ import annotations

from collections import deque
from typing import Callable, Protocol, Sequence

from eg_launcher.relay import CLIENT_CHANNELS


class Sender(Protocol):
    def hold(self, size: int) -> None:
        """So many more bytes are held (less, when negative)."""


class Outbox:
    def __init__(self) -> None:
        self._queues: dict[str, deque[tuple[Sequence[bytes], int, Sender]]] = {
            channel: deque() for channel in CLIENT_CHANNELS
        }

    def put(self, channel: str, parts: Sequence[bytes], sender: Sender) -> None:
        size = sum(map(len, parts))
        self._queues[channel].append((parts, size, sender))
        sender.hold(size)

    def flush(self, channel: str, send: Callable[[str, Sequence[bytes]], bool]) -> None:
        """Send until it is empty, or the channel takes no more."""
        queue = self._queues[channel]
        while queue and send(channel, queue[0][0]):
            _, size, sender = queue.popleft()
            sender.hold(-size)

    def clear(self) -> None:
        for queue in self._queues.values():
            while queue:
                _, size, sender = queue.popleft()
                sender.hold(-size)
