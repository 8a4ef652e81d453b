"""What a kernel has said, numbered, in a ring bounded in bytes. Pure: no I/O, no clients.

Every message kernel → client gets the next number; ``epoch`` names this journal, so that ``epoch.number`` is never
given twice. When the ring is full the oldest go, bulk output first: what a client needs to get on (replies, prompts,
statuses, errors) is small and is kept apart for longer, so that a client that fell behind loses output, never
the end of a cell. A reader is only a number; ``next_entry`` gives it what follows.
"""

from __future__ import annotations

import uuid
from typing import Sequence

from eg_launcher.frames import encode
from eg_launcher.websocket import Opcode

DEFAULT_LIMIT = 32 * 1024 * 1024
_OVERHEAD = 700  # bytes an entry costs beside its parts
_BULK = frozenset({"stream", "display_data", "update_display_data", "execute_result", "comm_msg", "comm_open"})
_KEPT_LARGEST = 16 * 1024
_FRAMES_BEHIND = 64  # a reader further behind than this builds its frames again


class Entry:
    """One message. ``target`` is who shall have it (None: everybody); ``total`` counts all bytes up to its end."""

    __slots__ = ("channel", "frames", "msg_id", "msg_type", "number", "parts", "size", "target", "total")

    def __init__(  # noqa: PLR0917 - made in one place, for every message
        self, number: int, channel: str, msg_id: str, msg_type: str, parts: list[bytes], target: str | None, total: int
    ) -> None:
        self.number = number
        self.channel = channel
        self.msg_id = msg_id
        self.msg_type = msg_type
        self.parts = parts
        self.target = target
        self.size = sum(map(len, parts))
        self.total = total + self.size
        self.frames: dict[str | None, tuple[Opcode, list[bytes]]] | None = None

    @property
    def cost(self) -> int:
        return self.size + _OVERHEAD

    def frame(self, subprotocol: str | None, *, keep: bool) -> tuple[Opcode, list[bytes]]:
        """Its frame for one protocol, kept for other readers if asked. ValueError: this protocol can't carry it."""
        if self.frames is not None:
            known = self.frames.get(subprotocol)
            if known is not None:
                return known
        header = {"msg_id": self.msg_id, "msg_type": self.msg_type}
        frame = encode(self.channel, self.parts, subprotocol, header=header)
        if keep:
            if self.frames is None:
                self.frames = {}
            self.frames[subprotocol] = frame
        return frame


class Journal:
    """``first`` is the oldest number still held in full order, ``next`` the number to be given."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.epoch = uuid.uuid4().hex[:12]
        self.first = 1
        self.next = 1
        self.bytes = 0
        self.total = 0
        self._limit = limit
        self._entries: dict[int, Entry] = {}
        self._kept: list[Entry] = []
        self._kept_bytes = 0
        self._kept_limit = max(limit // 8, _KEPT_LARGEST)
        self._framed = 1

    def add(self, channel: str, msg_id: str, msg_type: str, parts: Sequence[bytes], target: str | None = None) -> Entry:
        entry = Entry(self.next, channel, msg_id, msg_type, list(parts), target, self.total)
        self._entries[entry.number] = entry
        self.next += 1
        self.total = entry.total
        self.bytes += entry.cost
        # A message larger than the ring stays until half a ring has followed it: readers need a moment to take it.
        while self.bytes > self._limit and self.bytes - self._entries[self.first].cost >= self._limit // 2:
            self._evict()
        return entry

    def next_entry(self, number: int) -> Entry | None:
        """The oldest entry held with this number or a later one."""
        if number >= self.first:
            return self._entries.get(number)
        index = _bisect(self._kept, number)
        return self._kept[index] if index < len(self._kept) else self._entries.get(self.first)

    def lost(self, number: int, total: int) -> tuple[int, int]:
        """Messages and bytes that a reader at ``number`` (which has had ``total`` bytes) can no longer have."""
        if number >= self.first:
            return 0, 0
        kept = self._kept[_bisect(self._kept, number) :]
        oldest = self._entries.get(self.first)
        until = oldest.total - oldest.size if oldest is not None else self.total
        return self.first - number - len(kept), until - total - sum(entry.size for entry in kept)

    def release_frames(self, cursor: int) -> None:
        """Forget built frames below ``cursor``, the slowest reader's place; one that is far behind doesn't count."""
        until = max(cursor, self.next - _FRAMES_BEHIND)
        for number in range(max(self._framed, self.first), until):
            entry = self._entries.get(number)
            if entry is not None:
                entry.frames = None
        self._framed = max(self._framed, until)

    def _evict(self) -> None:
        entry = self._entries.pop(self.first)
        entry.frames = None
        self.first += 1
        self.bytes -= entry.cost
        if entry.msg_type in _BULK or entry.cost > _KEPT_LARGEST:
            return
        self._kept.append(entry)
        self._kept_bytes += entry.cost
        if self._kept_bytes > self._kept_limit:
            half = len(self._kept) // 2 + 1
            self._kept_bytes -= sum(old.cost for old in self._kept[:half])
            del self._kept[:half]


def _bisect(entries: list[Entry], number: int) -> int:
    """``bisect_left`` by number (its ``key`` came with Python 3.10)."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].number < number:
            low = middle + 1
        else:
            high = middle
    return low
