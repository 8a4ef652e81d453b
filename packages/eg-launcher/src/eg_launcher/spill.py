"""The part of a journal that lies on disk: blocks of messages in files that nobody else can open.

``Room`` is what all journals of a launcher have together: their limits, the folder, and the one thread that writes.
The loop's thread decides what lies where; the writer only does as it is told, in order, so nothing is locked. A file is
unlinked as soon as it is open: it ends with the launcher, however that ends. Nothing is synced, as nothing outlives
the process. A block that cannot be written (a full disk), or for which the disk has no time, is lost to its journal.
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
UNWRITTEN = 128 * 1024 * 1024
"""Bytes of one journal that may wait for the disk; of all together it is as much as their memory."""
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
    """Limits in bytes for all journals together, and what they have; ``folder`` None: nothing is spilled."""

    def __init__(self, folder: Path | None, *, memory: int = ROOM_MEMORY, disk: int = ROOM_DISK) -> None:
        self.memory = memory
        self.disk = disk if folder is not None else 0
        self.used = 0  # of memory
        self.on_disk = 0
        self.waiting = 0  # for the disk; there may be less when spills are asked to ``settle``
        self.journals: set[Holder] = set()
        self.spills: set[Spill] = set()
        self._folder = folder
        self._work: deque[Block | Segment] = deque()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._writer: Optional[threading.Thread] = None
        self._complained = False

    @property
    def crowded(self) -> bool:
        """More waits for the disk than may."""
        if self.waiting > self.memory:
            for spill in self.spills:
                spill.settle()
        return self.waiting > self.memory

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
        batch: list[tuple[Block, bytes]] = []
        while self._wake.get():
            while self._work:
                work = self._work.popleft()
                if isinstance(work, Segment):
                    _close(work)
                    continue
                data = work.data  # the loop's thread may have taken it back
                if data is not None:
                    batch.append((work, data))
                following = self._work[0] if self._work else None
                if isinstance(following, Block) and following.segment is work.segment and len(batch) < _BLOCKS_A_WRITE:
                    continue
                if batch:
                    self._store(batch)
                    batch = []
        for left in self._work:
            if isinstance(left, Segment):
                _close(left)

    def _store(self, blocks: list[tuple[Block, bytes]]) -> None:
        """Write blocks of one segment where they were told to lie; at once, if they lie one behind the other."""
        first, last, segment = blocks[0][0], blocks[-1][0], blocks[0][0].segment
        assert segment is not None
        in_a_row = sum([block.length for block, _ in blocks]) == last.offset + last.length - first.offset
        done = 0
        try:
            if segment.fd is None:
                segment.fd = self._open()
            for run in [blocks] if in_a_row else [[one] for one in blocks]:
                _write_all(segment.fd, [data for _, data in run], run[0][0].offset)
                for block, _ in run:
                    block.data = None
                done += len(run)
            self._complained = False
        except OSError as error:
            for block, _ in blocks[done:]:
                block.failed = True
            if not self._complained:
                self._complained = True
                log.warning("a journal cannot be kept on disk, so old output is lost sooner: %s", error)

    def _open(self) -> int:
        fd, name = tempfile.mkstemp(prefix="eg-journal-", dir=self._folder)
        os.unlink(name)  # noqa: PTH108 - a path that is this function's alone
        return fd


class Spill:
    """One journal's blocks, oldest first. ``lost`` tells the journal of each block that is gone."""

    def __init__(self, room: Room, limit: int, lost: Callable[[Block], None]) -> None:
        self.room = room
        self.blocks: deque[Block] = deque()
        self.on_disk = 0
        self.waiting = 0
        self._limit = limit
        self._segment = min(SEGMENT, max(limit // 16, 1024 * 1024))
        self._segments: deque[Segment] = deque()
        self._unwritten: deque[Block] = deque()
        self._lost = lost
        room.spills.add(self)

    @property
    def possible(self) -> bool:
        return self._limit > 0 and self.room.disk > 0

    def append(self, block: Block) -> None:
        if not self._segments or self._segments[-1].size >= self._segment:
            self._segments.append(Segment())
        segment = self._segments[-1]
        block.segment, block.offset = segment, segment.size
        segment.size += block.length
        segment.blocks += 1
        self._count(block.length)
        self.blocks.append(block)
        self._unwritten.append(block)
        self._wait(block.length)
        self.room.do(block)
        self.settle()
        while self._unwritten and (self.waiting > UNWRITTEN or self.room.crowded):
            self._give_up()  # the disk is slower than the kernel
        while self.on_disk > self._limit:
            self._drop_segment()
        while self.room.on_disk > self.room.disk:
            max(self.room.spills, key=lambda spill: spill.on_disk)._drop_segment()

    def settle(self) -> None:
        """See what has been written meanwhile, and what could not be."""
        while self._unwritten and (self._unwritten[0].data is None or self._unwritten[0].failed):
            block = self._unwritten.popleft()
            self._wait(-block.length)
            if block.failed:
                self.lose(block)

    def find(self, number: int) -> Block | None:
        """The block with this number, if it is here."""
        low, high = 0, len(self.blocks)
        while low < high:
            middle = (low + high) // 2
            if self.blocks[middle].last < number:
                low = middle + 1
            else:
                high = middle
        return self.blocks[low] if low < len(self.blocks) and self.blocks[low].first <= number else None

    def drop_until(self, number: int) -> None:
        """Let all go that begin before ``number``."""
        while self.blocks and self.blocks[0].first < number:
            self.lose(self.blocks[0])

    def lose(self, block: Block) -> None:
        if block not in self.blocks:
            return
        self.blocks.remove(block)
        segment = block.segment
        assert segment is not None
        segment.blocks -= 1
        if not segment.blocks:  # its space counts until all of it can be given back
            self._segments.remove(segment)
            self._count(-segment.size)
            self.room.do(segment)
        self._lost(block)

    def close(self) -> None:
        while self.blocks:
            self.lose(self.blocks[0])
        self._wait(-self.waiting)
        self._unwritten.clear()
        self.room.spills.discard(self)

    def _give_up(self) -> None:
        block = self._unwritten.popleft()
        self._wait(-block.length)
        block.failed, block.data = True, None
        self.lose(block)

    def _drop_segment(self) -> None:
        """Give the space of the oldest file back."""
        segment = self._segments[0]
        while self._segments and self._segments[0] is segment:
            self.lose(self.blocks[0])

    def _count(self, size: int) -> None:
        self.on_disk += size
        self.room.on_disk += size

    def _wait(self, size: int) -> None:
        self.waiting += size
        self.room.waiting += size


def _write_all(fd: int, pieces: list[bytes], at: int) -> None:
    written = os.pwritev(fd, pieces, at)
    if written < sum(map(len, pieces)):  # a signal, or a disk that is about to be full: say it all once more, and hear
        for piece in pieces:
            view = memoryview(piece)
            while view:
                done = os.pwrite(fd, view, at)
                view, at = view[done:], at + done


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
