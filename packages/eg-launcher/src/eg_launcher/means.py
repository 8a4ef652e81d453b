"""What a launcher has for the kernels it starts, and all that one process of them is made with."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import zmq

from eg_launcher import command, connection_file
from eg_launcher.death import OutOfMemory
from eg_launcher.spawner import Spawner
from eg_launcher.spill import Room


@dataclass(frozen=True)
class Recipe:
    """One process: how it is executed, and where its channels and its connection file are."""

    argv: list[str]
    env: dict[str, str] = field(repr=False)
    cwd: str
    info: dict[str, Any] = field(repr=False)
    file: Path


@dataclass(frozen=True)
class Means:
    """``folder`` is private and its path short: connection files and sockets go there."""

    spawner: Spawner
    context: zmq.Context[zmq.Socket[bytes]]
    folder: Path
    room: Room  # the journals'
    out_of_memory: OutOfMemory = field(default_factory=OutOfMemory)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def recipe(self, kernel_id: str, start: command.StartRequest) -> Recipe:
        """New addresses and a new key each time. ValueError when ``start`` asks for what is not to be had."""
        # A file per process: what is left of the last one can still be removing its own.
        file = self.folder / f"kernel-{kernel_id}-{uuid.uuid4().hex[:8]}.json"
        argv = command.resolve_argv(start.argv, connection_file=str(file))
        env = command.kernel_environment(command.base_environment(self.environ), start.env)
        cwd = command.resolve_cwd(start.cwd, env.get("HOME", ""))
        ipc = command.speaks_ipc(argv)
        info = connection_file.make_connection_info(self.folder, name=start.name, ipc=ipc)
        return Recipe(argv, env, cwd, info, file)
