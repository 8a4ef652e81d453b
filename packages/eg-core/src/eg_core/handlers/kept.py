"""What a client has sent and its launcher is not known to have: so that a lost leg loses no request, and doubles none.

The bytes are the client's own, masked, whole. The launcher's pings confirm so many data frames; what is not confirmed
can be sent again on a new leg. From ``KEPT_MAX`` on nothing is kept, until all of it has been confirmed.
"""

from __future__ import annotations

KEPT_MAX = 1024 * 1024


class Kept:
    __slots__ = ("_base", "_confirmed", "_data", "_end", "_ends", "_overflowed", "_seen")

    def __init__(self) -> None:
        self._data = bytearray()
        self._base = 0  # the stream's offset where the kept bytes begin
        self._seen = 0  # bytes of the stream so far
        self._end = 0  # where the last frame ends whose header was seen; that may be still to come
        self._ends: list[int] = []  # of the data frames that are not confirmed
        self._confirmed = 0
        self._overflowed = False

    @property
    def seen(self) -> int:
        """Bytes of the client so far."""
        return self._seen

    @property
    def resumable(self) -> bool:
        return not self._overflowed

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._data += data
        self._seen += len(data)
        while (size := _frame_size(self._data, self._end - self._base)) is not None:
            if not self._data[self._end - self._base] & 0x08:
                self._ends.append(self._end + size)
            self._end += size
        if len(self._data) > KEPT_MAX:  # from here on only what is needed to follow the frames
            self._overflowed = True
        if self._overflowed or not self._ends:  # control frames alone: nobody would miss them
            self._drop(min(self._end - self._base, len(self._data)))

    def confirm(self, frames: int) -> None:
        """The launcher has so many data frames."""
        done = min(frames - self._confirmed, len(self._ends))
        if done <= 0:
            return
        upto = self._ends[done - 1]
        del self._ends[:done]
        self._confirmed += done
        if self._base < upto:
            self._drop(min(upto - self._base, len(self._data)))
        if self._overflowed and not self._ends and self._end <= self._seen:
            self._overflowed = False

    def unconfirmed(self, frames: int) -> bytes | None:
        """What a launcher that has so many data frames is to be sent; None when that is not known any more."""
        self.confirm(frames)
        return None if self._overflowed or frames != self._confirmed else bytes(self._data)

    @property
    def unread(self) -> bytes:
        """What is kept."""
        return b"" if self._overflowed else bytes(self._data)

    def _drop(self, size: int) -> None:
        del self._data[:size]
        self._base += size


def _frame_size(data: bytearray, at: int) -> int | None:
    """The whole length of the masked frame at ``at``; None when its header is not there."""
    have = len(data) - at
    if have < 2:
        return None
    length = data[at + 1] & 0x7F
    if length < 126:
        return 6 + length
    wide = 2 if length == 126 else 8
    return 6 + wide + int.from_bytes(data[at + 2 : at + 2 + wide], "big") if have >= 2 + wide else None
