"""How long the launcher lives without a gateway. Pure: clocks are given, ``over()`` is asked by the app's one timer.

Any authorised request renews it; while a gateway holds ``/events`` it cannot end. After a suspended machine
(the wall clock jumped against the monotonic one) or a stopped launcher (nobody asked for a long time) no gateway
had its chance, so the lease starts anew.
"""

from __future__ import annotations

import time
from typing import Callable

JUMP = 5.0
"""Seconds by which the clocks may drift apart, or ``over`` may not be asked, before it counts as a jump."""


class Lease:
    def __init__(
        self,
        seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``seconds`` 0 is for ever."""
        self.seconds = seconds
        self._monotonic = monotonic
        self._wall = wall
        self._holders = 0
        self._renewed = self._asked = monotonic()
        self._asked_wall = wall()

    def renew(self) -> None:
        self._renewed = self._monotonic()

    def hold(self) -> None:
        self._holders += 1
        self.renew()

    def release(self) -> None:
        self._holders -= 1
        self.renew()

    @property
    def held(self) -> bool:
        return self._holders > 0

    def over(self) -> bool:
        """To be asked every second or so."""
        now, wall = self._monotonic(), self._wall()
        asleep = now - self._asked > JUMP
        jumped = abs((wall - self._asked_wall) - (now - self._asked)) > JUMP
        self._asked, self._asked_wall = now, wall
        if asleep or jumped or self.held:
            self._renewed = now
        return self.seconds > 0 and now - self._renewed >= self.seconds
