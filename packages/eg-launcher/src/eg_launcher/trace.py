"""Which data frames a socket was sent: how to go on exactly behind the K-th frame after a ping. Pure.

Nearly every frame is an entry of the journal, and needs no note. Noted is what is not: a message made for this socket
alone, sent when its cursor stood at a position, and an entry that was passed over. Only the last two pings count: at
most one is in flight, so whoever goes on has seen one of them.
"""

from __future__ import annotations

from collections import deque
from typing import Callable, Iterator, Tuple

from eg_launcher.journal import Entry, Journal

MAX_NOTES = 1000


Extra = Tuple[int, str, "list[bytes]"]
"""Where the cursor stood; the channel and the message."""


class _Ping:
    __slots__ = ("extra", "number", "serial")

    def __init__(self, serial: int, number: int | None) -> None:
        self.serial = serial
        self.number = number
        self.extra: list[Extra] = []


class Trace:
    """``serials`` numbers the pings of all sockets of a session, from 1."""

    def __init__(self, serials: Iterator[int]) -> None:
        self._serials = serials
        self._pings: deque[_Ping] = deque([_Ping(0, None)], maxlen=2)
        self._omitted: set[int] = set()
        self._exact = True
        self.lost: list[Extra] = []

    def ping(self, number: int | None) -> int:
        """The serial number of a ping behind entry ``number``; None: no number stands for what was sent."""
        ping = _Ping(next(self._serials), number)
        self._pings.append(ping)
        if self._omitted:
            behind = self._pings[0].number or 0
            self._omitted = {one for one in self._omitted if one > behind}
        self._exact = True
        return ping.serial

    def say(self, position: int, channel: str, parts: list[bytes]) -> None:
        self._pings[-1].extra.append((position, channel, parts))
        self._bound()

    def omit(self, number: int) -> None:
        self._omitted.add(number)
        self._bound()

    def knows(self, serial: int) -> bool:
        return any(ping.serial == serial for ping in self._pings)

    def find(self, journal: Journal, serial: int, skip: int, wanted: Callable[[Entry], bool]) -> int | None:
        """The cursor behind ``skip`` frames after ping ``serial``; None when that cannot be said for certain."""
        found = self._find(journal, serial, skip, wanted)
        return None if found is None else found[0]

    def after(self, journal: Journal, serial: int, skip: int, wanted: Callable[[Entry], bool]) -> int | None:
        """``find`` for who goes on with this trace: what was said beyond has not arrived, and is ``lost``."""
        found = self._find(journal, serial, skip, wanted)
        if found is None:
            return None
        cursor, ping, said, arrived = found
        ping.extra[:], self.lost = said[:arrived], said[arrived:]
        self._pings = deque([ping], maxlen=2)
        self._omitted = {number for number in self._omitted if number < cursor}
        return cursor

    def _find(
        self, journal: Journal, serial: int, skip: int, wanted: Callable[[Entry], bool]
    ) -> tuple[int, _Ping, list[Extra], int] | None:
        """The cursor, the ping, all that was said behind it, and how much of that has arrived."""
        pings = [ping for ping in self._pings if ping.serial >= serial]
        if not self._exact or not pings or pings[0].serial != serial or pings[0].number is None:
            return None
        said = [extra for ping in pings for extra in ping.extra]
        extra = deque(position for position, _, _ in said)
        omitted = self._omitted
        cursor = walk(
            journal, pings[0].number, skip, lambda entry: wanted(entry) and entry.number not in omitted, extra
        )
        return None if cursor is None else (cursor, pings[0], said, len(said) - len(extra))

    def _bound(self) -> None:
        if len(self._omitted) + len(self._pings[-1].extra) > MAX_NOTES:
            self._exact = False
            self._pings[-1].extra.clear()
            self._omitted.clear()


def walk(journal: Journal, number: int, skip: int, wanted: Callable[[Entry], bool], extra: deque[int]) -> int | None:
    """The cursor ``skip`` frames behind entry ``number``; ``extra`` are the positions of frames that are no entries,
    and loses those that are passed."""
    if number >= journal.next:
        return None
    cursor = number + 1
    for _ in range(skip):
        entry = journal.next_entry(cursor)
        while entry is not None and not wanted(entry):
            entry = journal.next_entry(entry.number + 1)
        if extra and extra[0] <= (entry.number if entry is not None else journal.next):
            extra.popleft()
        elif entry is not None:
            cursor = entry.number + 1
        else:
            return None
    return cursor if journal.whole(number + 1, cursor) else None
