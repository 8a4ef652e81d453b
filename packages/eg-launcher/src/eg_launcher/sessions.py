"""What each client session has asked, been sent, and has had for certain: the memory that a replay needs. Pure.

A *session* is a client's ``session_id``, whatever sockets it comes on; a socket without one is a session of its own,
which has no past. Numbers are the journal's. What a pong proves depends on the peer: of a *strong* one, that the
process that uses the messages had them (``acked``); of a *weak* one, only that they got near. But a weak one that
speaks is alive: what it had acknowledged ``DOUBT`` seconds before its last own message is ``safe``.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from eg_launcher.trace import Trace

if TYPE_CHECKING:
    from eg_launcher.channels import Channel

DOUBT = 5.0
MARK_EVERY = 0.25
MAX_MARKS = 2000
MAX_SESSIONS = 256
MAX_ASKED = 2000
ANONYMOUS_FOR = 60.0
"""Seconds that a session without an id is remembered after its socket: for a leg that breaks alone."""
POISON_AFTER = 3
MAX_LINKS = 16


class Left:
    """What is remembered of a socket that is gone."""

    __slots__ = ("received", "trace")

    def __init__(self, trace: Trace, received: int) -> None:
        self.trace = trace
        self.received = received


class Asked:
    """A request: ``first`` and ``last`` number of what answers it (0: nothing yet), ``header`` as it was sent;
    ``comms``: comm messages are among it."""

    __slots__ = ("comms", "first", "header", "last", "msg_id", "msg_type")

    def __init__(self, msg_id: str, msg_type: str, header: bytes) -> None:
        self.msg_id = msg_id
        self.msg_type = msg_type
        self.header = header
        self.first = 0
        self.last = 0
        self.comms = False


class Session:
    """``sent`` and ``total`` are the newest socket's place: a number, and the journal's bytes up to it."""

    def __init__(self, target: str, *, lasting: bool, sent: int, total: int) -> None:
        self.target = target
        self.lasting = lasting
        self.sent = self.acked = self.begin = sent
        self.total = total
        self.prompt = 0  # the number of an input_request that waits for its answer
        self.prompt_parent = ""
        self.asked: OrderedDict[str, Asked] = OrderedDict()
        self.channels: list[Channel] = []
        self.links: OrderedDict[str, Left] = OrderedDict()
        self.serials = itertools.count(1)
        self.left_at = time.monotonic()
        self.suspects: tuple[int, int] | None = None
        self.poison: set[int] = set()
        self._spoke: float | None = None
        self._marks: deque[tuple[float, int]] = deque()
        self._flights: list[tuple[int, int]] = []
        self._latest: Channel | None = None  # until it has gone: that an older one ends, half-open, is no cut

    @property
    def newest(self) -> Channel | None:
        return self.channels[-1] if self.channels else None

    def window(self, *, strong: bool) -> tuple[int, int]:
        """What may not have arrived: all after the first number, up to the second."""
        if strong:
            return max(self.acked, self.begin), self.sent
        return max(self._safe(), self.begin), self.sent

    def enter(self, channel: Channel) -> None:
        """A socket comes. What was sent on others after the last safe moment is in doubt until it has been replayed."""
        safe = self._safe()
        while self._marks and self._marks[-1][1] > safe:
            self._marks.pop()
        self.channels.append(channel)
        self._latest = channel

    def leave(self, channel: Channel, flight: tuple[int, int] | None) -> None:
        """A socket goes, with ``flight`` on their way. What was so at three cuts in a row, alone twice, breaks them."""
        if channel not in self.channels:
            return
        if channel is self._latest:
            self._latest = None
            self._cut(flight)
        self.channels.remove(channel)
        self.left_at = time.monotonic()
        self.links[channel.link] = Left(channel.trace, channel.received)
        self.links.move_to_end(channel.link)
        if len(self.links) > MAX_LINKS:
            self.links.popitem(last=False)

    def forgive(self) -> None:
        """The last cut was not the client's: only the gateway's leg broke."""
        self._flights.clear()
        self.suspects = None

    def note_sent(self, number: int, total: int) -> None:
        """The newest socket has got so far."""
        self.sent, self.total = number, total

    def note_acked(self, now: float, number: int) -> None:
        self.acked = max(self.acked, number)
        if not self._marks or now - self._marks[-1][0] >= MARK_EVERY:
            self._marks.append((now, number))
            if len(self._marks) > MAX_MARKS:
                self._marks = deque(list(self._marks)[::2])

    def note_spoken(self, now: float) -> None:
        self._spoke = now
        while len(self._marks) > 1 and self._marks[1][0] <= now - DOUBT:
            self._marks.popleft()

    def restarted(self, number: int) -> None:
        """A new incarnation: what the one before has said, up to ``number``, is not said again."""
        self.begin = min(number, self.sent)
        self.asked.clear()
        self.prompt = 0

    def _safe(self) -> int:
        safe = 0
        if self._spoke is not None:
            for at, number in self._marks:
                if at > self._spoke - DOUBT:
                    break
                safe = number
        return safe

    def _cut(self, flight: tuple[int, int] | None) -> None:
        if flight is None:
            if self.suspects is None:
                self._flights.clear()
            return
        self.suspects = None
        if self._flights:
            first, last = self._flights[-1]
            both = max(first, flight[0]), min(last, flight[1])
            if both[0] > both[1]:
                self._flights.clear()
            else:
                flight = both
        self._flights.append(flight)
        # Once alone is chance: while suspects go one by one, every cut meets one of them.
        if len(self._flights) >= POISON_AFTER and self._flights[-2] == flight and flight[0] == flight[1]:
            self.poison.add(flight[0])
            self._flights.clear()
        elif len(self._flights) >= POISON_AFTER - 1:
            self.suspects = flight


class Sessions:
    """A kernel's. ``cells`` finds the last request of a notebook's cell."""

    def __init__(self) -> None:
        self.by_target: OrderedDict[str, Session] = OrderedDict()
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._cells: OrderedDict[str, str] = OrderedDict()

    def of(self, target: str, *, lasting: bool, sent: int, total: int) -> tuple[Session, bool]:
        """The session, and whether it has a past."""
        session = self.by_target.get(target)
        if session is not None:
            self.by_target.move_to_end(target)
            return session, True
        session = self.by_target[target] = Session(target, lasting=lasting, sent=sent, total=total)
        self._forget()
        return session, False

    def ask(self, target: str, header: dict[str, Any], raw: bytes, cell: str | None) -> None:
        """A session's message to the kernel."""
        session = self.by_target.get(target)
        if session is None:
            return
        asked = Asked(header["msg_id"], header["msg_type"], raw)
        self._asked[asked.msg_id] = asked
        if len(self._asked) > MAX_ASKED:
            self._asked.popitem(last=False)
        session.asked[asked.msg_id] = asked
        if len(session.asked) > MAX_ASKED:
            session.asked.popitem(last=False)
        if cell is not None:
            self._cells[cell] = asked.msg_id
            self._cells.move_to_end(cell)
            if len(self._cells) > MAX_ASKED:
                self._cells.popitem(last=False)

    def answer(self, number: int, msg_type: str, target: str | None, parent: str) -> None:
        """A kernel's message got this number."""
        asked = self._asked.get(parent)
        if asked is not None:
            asked.first = asked.first or number
            asked.last = number
            asked.comms = asked.comms or msg_type == "comm_msg"
        if target is not None and (session := self.by_target.get(target)) is not None:
            if msg_type == "input_request":
                session.prompt, session.prompt_parent = number, parent
            elif session.prompt and session.prompt_parent == parent:
                session.prompt = 0

    def find(self, *, parent: str | None = None, cell: str | None = None) -> Asked | None:
        return self._asked.get(parent or self._cells.get(cell or "", ""))

    def restarted(self, number: int) -> None:
        for session in self.by_target.values():
            session.restarted(number)

    def expire(self, now: float, age: float) -> None:
        for target, session in list(self.by_target.items()):
            if not session.channels and now - session.left_at > (age if session.lasting else ANONYMOUS_FOR):
                del self.by_target[target]

    def _forget(self) -> None:
        """When there are too many: the one that has not come for longest, of those that have no past first."""
        if len(self.by_target) > MAX_SESSIONS:
            gone = [target for target, session in self.by_target.items() if not session.channels]
            anonymous = [target for target in gone if not self.by_target[target].lasting]
            for target in (anonymous or gone)[:1]:
                del self.by_target[target]
