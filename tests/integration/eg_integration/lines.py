"""Numbered lines that a kernel prints while its client is cut off, and the account of what arrived of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESET, HALF_OPEN, BLACK_HOLE, KILL = "reset", "half-open", "black hole", "kill -9"

CODE = """
import os, sys, time
told = os.open({told!r}, os.O_WRONLY | os.O_CREAT)
for n in range({count}):
    sys.stdout.write(f"{{n}}\\n")  # in one piece, so that no message ends within a line
    if n % {every} == {every} - 1:
        sys.stdout.flush()
        os.pwrite(told, b"%09d" % (n + 1), 0)
        while n >= {hold} and not os.path.exists({go!r}):
            time.sleep(0.01)
        time.sleep({pause})
sys.stdout.flush()
os.pwrite(told, b"%09d" % {count}, 0)
"""


class Lines:
    """``count`` lines, ``every`` a message. The last tenth waits for ``go``: no cut comes too late.

    It has a pace: ipykernel drops outputs when 1000 messages are unsent, before anybody could read them.
    """

    def __init__(self, folder: Path, count: int, every: int = 20, pause: float = 0.004) -> None:
        self.count = count
        folder.mkdir(parents=True, exist_ok=True)
        self._told, self._go = folder / "told", folder / "go"
        hold = count * 9 // 10
        self.code = CODE.format(
            told=str(self._told), go=str(self._go), count=count, every=every, hold=hold, pause=pause
        )

    def printed(self) -> int:
        """How far the kernel is, whoever hears it."""
        return int(self._told.read_bytes() or b"0") if self._told.exists() else 0

    def go_on(self) -> None:
        self._go.touch()


def plan(kinds: Sequence[str], count: int, seed: int) -> list[tuple[int, str]]:
    """Where each cut comes, in lines: anywhere, and in any order of kinds."""
    chance = random.Random(seed)
    return list(
        zip(
            sorted(chance.sample(range(count // 50, count * 17 // 20), len(kinds))),
            chance.sample(kinds, len(kinds)),
            strict=True,
        )
    )


@dataclass(frozen=True)
class Account:
    """What a client has had of ``count`` lines, and how its connection ended how often."""

    client: str
    gateway: str
    count: int
    missing: int
    doubled: int
    in_order: bool
    cuts: Counter[str]
    unasked: int
    replied: bool

    @classmethod
    def of(cls, client: str, gateway: str, count: int, text: str, **more: object) -> Account:
        lines = text.splitlines()
        wanted = [str(n) for n in range(count)]
        had = Counter(lines)
        missing = sum(1 for line in wanted if line not in had)
        doubled = sum(times - 1 for times in had.values())
        return cls(client, gateway, count, missing, doubled, lines == wanted, **more)  # type: ignore[arg-type]

    @property
    def exact(self) -> bool:
        """Every line once and in order, and the end of the request."""
        return self.in_order and self.replied

    def row(self) -> str:
        cuts = ", ".join(f"{times} {kind}" for kind, times in sorted(self.cuts.items()))
        cuts += f"; {self.unasked} unasked" if self.unasked else ""
        end = "yes" if self.replied else "no"
        cells = (self.client, self.gateway, self.count, self.missing, self.doubled, end, self.cuts.total(), cuts)
        return "| " + " | ".join(map(str, cells)) + " |"


def table(accounts: Sequence[Account]) -> str:
    head = "| client | gateway | lines | missing | doubled | told of the end | cuts | which |"
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- | --- | --- |", *(one.row() for one in accounts), ""])
