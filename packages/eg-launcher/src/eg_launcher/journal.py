"""What a kernel has said, numbered: a ring in memory, then blocks on disk, then gone. Knows no clients.

Every message kernel → client gets the next number; ``epoch`` names this journal, so that ``epoch.number`` is never
given twice. What memory does not hold goes to the ``spill``; what that does not hold, or is too old, is lost, oldest
first; where a disk fails, or is too slow, there is a hole. What a client needs to get on (replies, prompts, statuses,
errors) is small and is kept apart for longer, so that a client that fell behind loses output, never the end of a cell.
A reader is only a number; ``next_entry`` gives it what follows.
"""

from __future__ import annotations

import marshal
import time
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Iterator, Sequence

from eg_launcher.frames import encode
from eg_launcher.spill import Block, Room, Spill
from eg_launcher.websocket import Opcode

MEMORY = 32 * 1024 * 1024
DISK = 1024 * 1024 * 1024
MAX_AGE = 7 * 86400.0
MAX_BYTES = 1 << 50
MAX_SECONDS = 10 * 365 * 86400
BLOCK = 256 * 1024
_OVERHEAD = 700  # bytes an entry costs beside its parts
_BULK = frozenset({"stream", "display_data", "update_display_data", "execute_result", "comm_msg", "comm_open"})
_KEPT_LARGEST = 16 * 1024
_KEPT_MOST = 1024 * 1024
_FRAMES_BEHIND = 64  # a reader further behind than this builds its frames again
_BLOCKS_READ = 4
_MARK_EVERY = 60.0


@dataclass(frozen=True)
class JournalLimits:
    """What one kernel's journal holds: bytes in memory, bytes on disk, seconds; and whether who comes back gets it."""

    memory: int = MEMORY
    disk: int = DISK
    age: float = MAX_AGE
    replay: bool = True


def check_journal(value: Any) -> JournalLimits:
    """*journal* of ``POST start``. A ValueError names the field. Fields it does not know are passed over."""
    if not isinstance(value, dict):
        raise ValueError("'journal' must be an object")
    known: dict[str, Any] = {}
    for name, most in (("memory", MAX_BYTES), ("disk", MAX_BYTES), ("age", MAX_SECONDS)):
        given = value.get(name)
        if given is None:
            continue
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= most:
            raise ValueError(f"'journal.{name}' must be a number from 0 to {most}")
        known[name] = float(given) if name == "age" else int(given)
    if value.get("replay") is not None:
        if not isinstance(value["replay"], bool):
            raise ValueError("'journal.replay' must be true or false")
        known["replay"] = value["replay"]
    return JournalLimits(**known)


class Entry:
    """One message. ``target`` is who shall have it (None: everybody), ``parent`` the request's id that it answers;
    ``total`` counts all bytes up to its end."""

    __slots__ = ("channel", "frames", "msg_id", "msg_type", "number", "parent", "parts", "size", "target", "total")

    def __init__(  # noqa: PLR0917 - made in few places, for every message
        self,
        number: int,
        channel: str,
        msg_id: str,
        msg_type: str,
        parts: list[bytes],
        target: str | None,
        parent: str,
        total: int,
    ) -> None:
        self.number = number
        self.channel = channel
        self.msg_id = msg_id
        self.msg_type = msg_type
        self.parts = parts
        self.target = target
        self.parent = parent
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
    """``first`` is the oldest number held, ``next`` the number to be given."""

    def __init__(self, limits: JournalLimits = JournalLimits(), room: Room | None = None) -> None:
        self.epoch = uuid.uuid4().hex[:12]
        self.next = 1
        self.bytes = 0  # of memory
        self.total = 0
        self._lost_total = 0  # bytes up to ``first``
        self.limits = limits
        self._room = room = room or Room(None)
        self._spill = Spill(room, limits.disk, self._lose_block)
        self._entries: dict[int, Entry] = {}
        self._oldest = 1  # in memory
        self.first = 1
        self._holes: list[tuple[int, int, int]] = []  # first and last number, bytes up to their end
        self._kept: list[Entry] = []
        self._kept_bytes = 0
        self._kept_limit = min(max(limits.memory // 8, _KEPT_LARGEST), _KEPT_MOST)
        self._framed = 1
        self._read: OrderedDict[int, dict[int, Entry]] = OrderedDict()
        self._marks: deque[tuple[float, int]] = deque()
        room.journals.add(self)

    @property
    def on_disk(self) -> int:
        return self._spill.on_disk

    def add(  # noqa: PLR0917 - for every message
        self,
        channel: str,
        msg_id: str,
        msg_type: str,
        parts: Sequence[bytes],
        target: str | None = None,
        parent: str = "",
    ) -> Entry:
        entry = Entry(self.next, channel, msg_id, msg_type, list(parts), target, parent, self.total)
        self._entries[entry.number] = entry
        self.next += 1
        self.total = entry.total
        self._count(entry.cost)
        if self.bytes > self.limits.memory:
            self._make_room()
        if self._room.used > self._room.memory:
            self._room.shrink()
        return entry

    def next_entry(self, number: int) -> Entry | None:
        """The oldest entry held with this number or a later one."""
        while number < self._oldest:
            until = self.held_from(number)
            if until > number:
                index = _bisect(self._kept, number)
                if index < len(self._kept) and self._kept[index].number < until:
                    return self._kept[index]
                number = until
                continue
            entry = self._from_disk(number)
            if entry is not None:
                return entry
        return self._entries.get(number)

    def held_from(self, number: int) -> int:
        """The first number from this one on that is held in full order."""
        number = max(number, self.first)
        for first, last, _ in self._holes:
            if first <= number <= last:
                return last + 1
        return number

    def whole(self, number: int, until: int) -> bool:
        """Whether all is held from ``number`` to before ``until``."""
        return number >= self.first and not any(first < until and last >= number for first, last, _ in self._holes)

    def entries(self, number: int, until: int) -> Iterator[Entry]:
        """What is held from ``number`` to before ``until``."""
        entry = self.next_entry(number)
        while entry is not None and entry.number < until:
            yield entry
            entry = self.next_entry(entry.number + 1)

    def lost(self, number: int, total: int) -> tuple[int, int]:
        """Messages and bytes that a reader at ``number`` (which has had ``total`` bytes) can no longer have, up to
        where all is held again."""
        until = self.held_from(number)
        if until == number:
            return 0, 0
        kept = self._kept[_bisect(self._kept, number) : _bisect(self._kept, until)]
        before = next((total for _, last, total in self._holes if last + 1 == until), self._lost_total)
        return until - number - len(kept), before - total - sum(entry.size for entry in kept)

    def release_frames(self, cursor: int) -> None:
        """Forget built frames below ``cursor``, the slowest reader's place; one that is far behind doesn't count."""
        until = max(cursor, self.next - _FRAMES_BEHIND)
        for number in range(max(self._framed, self._oldest), until):
            entry = self._entries.get(number)
            if entry is not None:
                entry.frames = None
        self._framed = max(self._framed, until)
        if self._read and cursor >= self._oldest:
            self._read.clear()

    def expire(self, now: float) -> None:
        """Forget what is too old. ``now`` is monotonic."""
        at, number = self._marks[-1] if self._marks else (-_MARK_EVERY, 0)
        if now - at >= _MARK_EVERY and number != self.next:
            self._marks.append((now, self.next))
        while self._spill.blocks and self._spill.blocks[0].at < now - self.limits.age:
            self._spill.lose(self._spill.blocks[0])
        while self._marks and self._marks[0][0] < now - self.limits.age:
            self._forget(self._marks.popleft()[1])

    def close(self) -> None:
        self._room.journals.discard(self)
        self._count(-self.bytes)
        self._spill.close()
        self._read.clear()

    def _count(self, size: int) -> None:
        self.bytes += size
        self._room.used += size

    # -- out of memory --------------------------------------------------------------------------------------

    def shrink(self) -> bool:
        """Let a block's worth of memory go: to disk, or for ever. False: there is nothing to let go."""
        taken: list[Entry] = []
        size = 0
        while size < BLOCK and self._oldest < self.next - 1:
            entry = self._entries.pop(self._oldest)
            entry.frames = None
            self._oldest += 1
            size += entry.cost
            taken.append(entry)
            self._keep(entry)
        if not taken:
            return False
        self._count(-size)
        last = taken[-1]
        if self._spill.possible:
            self._spill.append(Block(taken[0].number, last.number, last.total, _pack(taken), time.monotonic()))
        else:
            self._lose(last.number, last.total)
        return True

    def _make_room(self) -> None:
        limit = self.limits.memory
        if not self._spill.possible:
            # A message larger than the ring stays until half a ring has followed it: readers need a moment to take it.
            while self.bytes > limit and self.bytes - self._entries[self._oldest].cost >= limit // 2:
                self._evict()
            return
        while self.bytes > limit and self.shrink():
            pass

    def _evict(self) -> None:
        entry = self._entries.pop(self._oldest)
        entry.frames = None
        self._oldest += 1
        self._count(-entry.cost)
        self._keep(entry)
        self._lose(entry.number, entry.total)

    def _forget(self, until: int) -> None:
        """All before ``until`` is too old."""
        self._spill.drop_until(until)
        while self._oldest < min(until, self.next):
            self._evict()
        index = _bisect(self._kept, until)
        self._kept_bytes -= sum(entry.cost for entry in self._kept[:index])
        del self._kept[:index]

    def _keep(self, entry: Entry) -> None:
        if entry.msg_type in _BULK or entry.cost > _KEPT_LARGEST:
            return
        self._kept.append(entry)
        self._kept_bytes += entry.cost
        if self._kept_bytes > self._kept_limit:
            half = len(self._kept) // 2 + 1
            self._kept_bytes -= sum(old.cost for old in self._kept[:half])
            del self._kept[:half]

    # -- on disk --------------------------------------------------------------------------------------------

    def _lose_block(self, block: Block) -> None:
        self._read.pop(block.first, None)
        if block.first > self.first:
            self._holes.append((block.first, block.last, block.total))
            self._holes.sort()
            self._join_holes()
        else:
            self._lose(block.last, block.total)

    def _lose(self, number: int, total: int) -> None:
        """All up to ``number`` is lost; holes that follow are no more than that."""
        if number >= self.first:
            self.first, self._lost_total = number + 1, total
        while self._holes and self._holes[0][0] <= self.first:
            _, last, total = self._holes.pop(0)
            if last >= self.first:
                self.first, self._lost_total = last + 1, total

    def _join_holes(self) -> None:
        joined: list[tuple[int, int, int]] = []
        for hole in self._holes:
            begin = joined.pop()[0] if joined and joined[-1][1] + 1 == hole[0] else hole[0]
            joined.append((begin, *hole[1:]))
        self._holes = joined

    def _from_disk(self, number: int) -> Entry | None:
        """None: it has just been found to be lost."""
        block = self._spill.find(number)
        if block is None:
            raise AssertionError(f"message {number} is neither in memory nor on disk")
        known = self._read.get(block.first)
        if known is None:
            try:
                if block.failed:
                    raise OSError("it could not be written")
                known = {entry.number: entry for entry in _unpack(block)}
            except (OSError, ValueError, EOFError):
                self._spill.lose(block)
                return None
            self._read[block.first] = known
            while len(self._read) > _BLOCKS_READ:
                self._read.popitem(last=False)
        else:
            self._read.move_to_end(block.first)
        return known[number]


def _pack(entries: Sequence[Entry]) -> bytes:
    """What only this process will read."""
    return marshal.dumps([(e.channel, e.msg_id, e.msg_type, e.parts, e.target, e.parent, e.total) for e in entries])


def _unpack(block: Block) -> Iterator[Entry]:
    rows = marshal.loads(block.read())  # noqa: S302 - written by this process, to a file that has no name
    for number, (channel, msg_id, msg_type, parts, target, parent, total) in enumerate(rows, block.first):
        yield Entry(number, channel, msg_id, msg_type, parts, target, parent, total - sum(map(len, parts)))


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
