"""Enterprise Gateway and Kernel Gateway, where tests beside ``compat/`` measure them, too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parents[1] / "compat"))

from benchmarks import venvs
from eg_compat.gateways import CompatGateway, Config

NAMES = {"eg": "Enterprise Gateway 3.3.0", "kg": "Kernel Gateway 3.0.1"}


class Incumbent(CompatGateway):
    def start(self, *args: str, ip: str = "127.0.0.1", **more: Any) -> CompatGateway:
        return super().start("--ip", ip, *args, **more)


def incumbent(kind: str, needs: Callable[..., Any]) -> CompatGateway:
    """One that is not started yet."""
    try:
        venvs.incumbent(kind.upper())
    except venvs.NotInstalled as error:
        needs(kind, False, f"{error}; `python -m benchmarks.venvs` makes it")
    return Incumbent(kind, Config())
