"""The sockets a server accepts from. It may let them rest; who connects meanwhile waits in the backlog."""

from __future__ import annotations

import asyncio
import socket
from typing import Callable


class Doorway:
    def __init__(self, loop: asyncio.AbstractEventLoop, accept: Callable[[socket.socket], None]) -> None:
        self._loop = loop
        self._accept = accept
        self._listeners: list[socket.socket] = []
        self.resting = False

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        self.rest()
        self._listeners.clear()

    def rest(self) -> None:
        """Until ``go_on``."""
        self.resting = True
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    def go_on(self) -> None:
        if self.resting:
            self.resting = False
            for listener in self._listeners:
                self._loop.add_reader(listener, self._accept, listener)
