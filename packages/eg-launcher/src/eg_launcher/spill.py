"""The part of a journal that lies on disk: blocks of messages in files that nobody else can open.

``Room`` is what all journals of a launcher have together: their limits, the folder, and the one thread that writes.
The loop's thread decides what lies where; the writer only does as it is told, in order, so nothing is locked. A file is
unlinked as soon as it is open: it ends with the launcher, however that ends. Nothing is synced, as nothing outlives
the process. A block that cannot be written (a full disk) is ``failed``, and its journal has lost it.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Callable, Optional, Protocol

SEGMENT = 64 * 1024 * 1024
"""Bytes from which on a new file is begun: the unit in which space is given back."""
ROOM_MEMORY = 256 * 1024 * 1024
ROOM_DISK = 8 * 1024 * 1024 * 1024
_BLOCKS_A_WRITE = 64

log = logging.getLogger(__name__)


class Segment:
    """One file. ``size`` is what has been promised of it; ``fd`` is opened, and closed, by the writer."""

    __slots__ = ("blocks", "fd", "size")

    def __init__(self) -> None:
        self.fd: Optional[int] = None
        self.size = 0
        self.blocks = 0


class Block:
    """Messages ``first`` to ``last`` in a row. ``data`` is there until it has been written."""

    __slots__ = ("at", "data", "failed", "first", "last", "length", "offset", "segment", "total")

    def __init__(self, first: int, last: int, total: int, data: bytes, at: float) -> None:
        self.first = first
        self.last = last
        self.total = total  # the journal's bytes up to the block's end
        self.at = at
        self.length = len(data)
        self.data: Optional[bytes] = data
        self.failed = False
        self.segment: Optional[Segment] = None
        self.offset = 0

    def read(self) -> bytes:
        """Its bytes. OSError when the disk fails."""
        data = self.data
        if data is not None:
            return data
        if self.segment is None or self.segment.fd is None:
            raise OSError("the block was not written")
        data = os.pread(self.segment.fd, self.length, self.offset)
        if len(data) != self.length:
            raise OSError("the block is cut short")
        return data


class Holder(Protocol):
    """A journal, as its room sees it."""

    bytes: int

    def shrink(self) -> bool: ...


class Room:
    """Limits in bytes for all journals together; ``folder`` None: nothing is spilled."""

    def __init__(self, folder: Path | None, *, memory: int = ROOM_MEMORY, disk: int = ROOM_DISK) -> None:
        self.memory = memory
        self.disk = disk if folder is not None else 0
        self.used = 0  # of memory, by all journals
        self.journals: set[Holder] = set()
        self.spills: set[Spill] = set()
        self._folder = folder
        self._work: deque[Block | Segment] = deque()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._writer: Optional[threading.Thread] = None
        self._complained = False

    @property
    def on_disk(self) -> int:
        return sum([spill.on_disk for spill in self.spills])

    def shrink(self) -> None:
        """All together hold too much memory: who has most gives."""
        while self.used > self.memory and max(self.journals, key=lambda journal: journal.bytes).shrink():
            pass

    def do(self, work: Block | Segment) -> None:
        """Have the writer store a block, or close a segment, after what it was told before."""
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
            self._writer.start()
        self._work.append(work)
        self._wake.put(True)

    def close(self) -> None:
        """Wait for the writer. Files are closed by their spills."""
        if self._writer is not None:
            self._wake.put(False)
            self._writer.join(timeout=10)
            self._writer = None

    # -- the writer's thread --------------------------------------------------------------------------------

    def _write(self) -> None:
        while self._wake.get():
            while self._work:
                work = self._work.popleft()
                if isinstance(work, Segment):
                    _close(work)
                    continue
                blocks = [work]
                while self._work and len(blocks) < _BLOCKS_A_WRITE:
                    following = self._work[0]
                    if isinstance(following, Segment) or following.segment is not work.segment:
                        break
                    blocks.append(following)
                    self._work.popleft()
                self._store(blocks)
        for left in self._work:
            if isinstance(left, Segment):
                _close(left)

    def _store(self, blocks: list[Block]) -> None:
        """Write blocks that lie one behind the other where they were told to lie."""
        segment = blocks[0].segment
        assert segment is not None
        try:
            if segment.fd is None:
                segment.fd = self._open()
            while blocks:
                written = os.pwritev(segment.fd, [block.data or b"" for block in blocks], blocks[0].offset)
                if written < blocks[0].length:
                    raise OSError("the disk took only a part")
                while blocks and written >= blocks[0].length:
                    written -= blocks[0].length
                    blocks.pop(0).data = None
            self._complained = False
        except OSError as error:
            for block in blocks:
                block.failed = True
            if not self._complained:
                self._complained = True
                log.warning("a journal cannot be kept on disk, so old output is lost sooner: %s", error)

    def _open(self) -> int:
        fd, name = tempfile.mkstemp(prefix="eg-journal-", dir=self._folder)
        os.unlink(name)  # noqa: PTH108 - a path that is this function's alone
        return fd


class Spill:
    """One journal's blocks, oldest first. ``dropped`` tells the journal of each block that is gone."""

    def __init__(self, room: Room, limit: int, dropped: Callable[[Block], None]) -> None:
        self.room = room
        self.blocks: deque[Block] = deque()
        self.on_disk = 0
        self._limit = limit
        self._segment = min(SEGMENT, max(limit // 16, 1024 * 1024))
        self._segments: deque[Segment] = deque()
        self._unwritten: deque[Block] = deque()
        self._waiting = 0
        self._dropped = dropped
        room.spills.add(self)

    @property
    def possible(self) -> bool:
        return self._limit > 0 and self.room.disk > 0

    @property
    def waiting(self) -> int:
        """Bytes that are in memory still, as the writer has not come to them."""
        while self._unwritten and (self._unwritten[0].data is None or self._unwritten[0].failed):
            block = self._unwritten.popleft()
            self._waiting -= block.length
            if block.failed:
                self.drop_until(block.last)
        return self._waiting

    def append(self, block: Block) -> None:
        if not self._segments or self._segments[-1].size >= self._segment:
            self._segments.append(Segment())
        segment = self._segments[-1]
        block.segment, block.offset = segment, segment.size
        segment.size += block.length
        segment.blocks += 1
        self.on_disk += block.length
        self.blocks.append(block)
        self._unwritten.append(block)
        self._waiting += block.length
        self.room.do(block)
        while self.on_disk > self._limit:
            self.drop_segment()
        while self.room.on_disk > self.room.disk:
            max(self.room.spills, key=lambda spill: spill.on_disk).drop_segment()

    def find(self, number: int) -> Block | None:
        """The block with this number, which is not older than the oldest's."""
        low, high = 0, len(self.blocks)
        while low < high:
            middle = (low + high) // 2
            if self.blocks[middle].last < number:
                low = middle + 1
            else:
                high = middle
        return self.blocks[low] if low < len(self.blocks) else None

    def drop_segment(self) -> None:
        """Give the space of the oldest file back."""
        segment = self._segments[0]
        while self.blocks and self.blocks[0].segment is segment:
            self.drop()

    def drop_until(self, number: int) -> None:
        while self.blocks and self.blocks[0].first <= number:
            self.drop()

    def drop(self) -> None:
        block = self.blocks.popleft()
        segment = block.segment
        assert segment is not None
        segment.blocks -= 1
        if not segment.blocks:  # its space counts until all of it can be given back
            self._segments.remove(segment)
            self.on_disk -= segment.size
            self.room.do(segment)
        self._dropped(block)

    def close(self) -> None:
        self.room.spills.discard(self)
        while self.blocks:
            self.drop()


def _close(segment: Segment) -> None:
    if segment.fd is not None:
        os.close(segment.fd)
        segment.fd = None


def spill_folder(candidates: list[str]) -> Path | None:
    """The first folder that can be written to and lies on a disk: a spill in memory would spill nothing."""
    for name in candidates:
        path = Path(name)
        if path.is_dir() and os.access(path, os.W_OK) and not _in_memory(path):
            return path
    return None


def _in_memory(path: Path) -> bool:
    """Whether a folder lies on tmpfs, as far as the system tells (Linux)."""
    try:
        device = path.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:  # noqa: PTH123
            for line in table:
                fields = line.split()
                if len(fields) > 6 and fields[2] == wanted:
                    return fields[fields.index("-") + 1] in ("tmpfs", "ramfs")
    except (OSError, ValueError):
        pass
    return False
