"""What a kernel's process wrote to stdout and stderr: the last of it, by offsets into all of it. Pure."""

from __future__ import annotations

import re
from typing import Any

LIMIT = 1 << 20
MAX_LINE = 1000
_TAIL = 64 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


class OutputRing:
    """Bytes ``first`` to ``next`` (exclusive) of all that was fed are kept, ``limit`` at most."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()
        self.first = 0

    @property
    def next(self) -> int:
        return self.first + len(self._data)

    def feed(self, data: bytes) -> None:
        self._data += data
        surplus = len(self._data) - self._limit
        if surplus > 0:
            del self._data[:surplus]  # moves a pointer, copies nothing
            self.first += surplus

    def read(self, after: int) -> dict[str, Any]:
        """The protocol's answer: what stands at ``after`` and behind it. A ``first`` above ``after`` tells a gap.

        A character that is cut by the ring's start is left out; one that has not come whole waits for the rest.
        """
        begin = min(max(after, self.first), self.next)
        chunk = bytes(self._data[begin - self.first :])
        if begin > after or begin == self.first > 0:
            lead = _continuation_bytes(chunk)
            begin, chunk = begin + lead, chunk[lead:]
        chunk = chunk[: len(chunk) - _unfinished(chunk)]
        return {"first": begin, "next": begin + len(chunk), "text": chunk.decode("utf-8", "replace")}

    def last_lines(self, n: int = 20) -> list[str]:
        """The last lines that say something, as a terminal would show them, without colours."""
        text = bytes(self._data[-_TAIL:]).decode("utf-8", "replace")
        lines = [_shown(line) for line in _ANSI.sub("", text).split("\n")]
        return [line[:MAX_LINE] for line in lines if line][-n:] if n > 0 else []


def _shown(line: str) -> str:
    """A progress bar overwrites itself: what was written last counts."""
    return line.rstrip().rsplit("\r", 1)[-1].rstrip()


def _continuation_bytes(chunk: bytes) -> int:
    count = 0
    while count < min(3, len(chunk)) and chunk[count] & 0xC0 == 0x80:
        count += 1
    return count


def _unfinished(chunk: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character of which the rest has not come."""
    for back in range(1, min(3, len(chunk)) + 1):
        byte = chunk[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return back if length > back else 0
    return 0
