"""A network of two ends that can be cut, so that packets are dropped and nobody is told.

The far end is a network namespace for programs (``prefix``), the near end this host's; neither leads anywhere else.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from pathlib import Path

_COUNT = itertools.count()
_MAC = "02:00:00:00:00:02"


class Namespace:
    """``create()``, and ``remove()`` at the end. ``ip``: what the far end can be reached by."""

    def __init__(self, name: str, net: str) -> None:
        self.name = name
        self.near, self.ip = f"{net}.1", f"{net}.2"

    @classmethod
    def create(cls) -> Namespace | None:
        """None where this user, or this machine, cannot have one."""
        if os.geteuid() != 0:
            return None
        made = cls(f"egt{os.getpid()}n{next(_COUNT)}", _free_net())
        link = made.name  # at the near end
        try:
            _sweep()
            _ip("netns", "add", made.name)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "address", _MAC, "netns", made.name)
            _ip("address", "add", f"{made.near}/30", "dev", link)
            _ip("link", "set", link, "up")
            # Known for good, or who asks in vain for the far end's address is told that there is no route.
            _ip("neighbour", "add", made.ip, "lladdr", _MAC, "dev", link, "nud", "permanent")
            _ip("-n", made.name, "address", "add", f"{made.ip}/30", "dev", "eth0")
            _ip("-n", made.name, "link", "set", "eth0", "up")
            _ip("-n", made.name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            made.remove()
            return None
        return made

    @property
    def prefix(self) -> list[str]:
        """Runs a command at the far end (``ip netns exec`` would hide the cgroups from it)."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def cut(self) -> None:
        """From now on every packet is dropped, either way."""
        _ip("-n", self.name, "link", "set", "eth0", "down")

    def mend(self) -> None:
        _ip("-n", self.name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)


def _ip(*args: str) -> str:
    return subprocess.run(["ip", *args], capture_output=True, text=True, check=True, timeout=20).stdout


def _free_net() -> str:
    while True:
        net = f"10.247.{random.randrange(1, 255)}"
        if not _ip("-4", "address", "show", "to", f"{net}.0/24"):
            return net


def _sweep() -> None:
    """Remove those of runs that have died."""
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        pid = name[3:].partition("n")[0]
        if name.startswith("egt") and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _ip("netns", "delete", name)
