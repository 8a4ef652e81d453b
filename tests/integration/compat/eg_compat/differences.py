"""Where the incumbents do other than we do: the reviewed list.

A test says what *ours* does; here stands what Enterprise Gateway 3.3.0 (``eg``) and Kernel Gateway 3.0.1 (``kg``) do
otherwise, by test and by the name of the observation, and why we differ. A difference that is not here fails, and so
does one that is here but is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    why: str
    eg: Mapping[str, Any] | None = None
    kg: Mapping[str, Any] | None = None

    def of(self, kind: str) -> Mapping[str, Any] | None:
        return {"eg": self.eg, "kg": self.kg}.get(kind)


ABSENT: Mapping[str, Mapping[str, str]] = {}
"""What a kind has not at all: by test, the kinds and why. It is not run there."""

DIFFERENCES: Mapping[str, tuple[Difference, ...]] = {}
