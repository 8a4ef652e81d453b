"""Clients whose connection is cut while a kernel prints, and that come back.

None of them joins or drops anything: every line that arrives is counted.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import websocket

from eg_integration.channels import Channels, idles, replies, unpack
from eg_integration.cutting_proxy import CuttingProxy, Upstream, reset
from eg_integration.gateway import Gateway
from eg_integration.lines import BLACK_HOLE, HALF_OPEN, KILL, RESET, Account, Lines, plan
from eg_integration.netns import Namespace
from eg_integration.node import SERVICES
from eg_integration.waiting import wait_until

SILENCE = 4.0
"""Seconds without anything, once the kernel has printed all, after which nothing more is to be expected of it."""


class Site:
    """A gateway at the far end of a network that can be cut; it can be killed and started again."""

    def __init__(self, gateway: Gateway, network: Namespace, *args: str) -> None:
        self.gateway, self.network = gateway, network
        self._args = args
        self._up = threading.Event()

    def start(self) -> Site:
        self.gateway.start(*self._args, prefix=self.network.prefix, ip=self.network.ip)
        self._up.set()
        return self

    def kill(self) -> None:
        """SIGKILL, and a new process."""
        self._up.clear()
        self.gateway.stop(9)
        self.start()

    def upstream(self, _path: str) -> Upstream:
        """Where it is, once it is there: a proxy that waits for it."""
        assert self._up.wait(60), "the gateway did not come back"
        return Upstream(self.gateway.url)


class Client(ABC):
    """One request, and all that comes of it. ``step`` waits for something, shortly."""

    name: str

    def __init__(self, site: Site, kernel_id: str, lines: Lines) -> None:
        self.site, self.kernel_id, self.lines = site, kernel_id, lines
        self.unasked = 0
        self.heard_at = time.monotonic()

    @abstractmethod
    def text(self) -> str: ...

    @abstractmethod
    def size(self) -> int:
        """Characters so far."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether the request has had its reply and its idle."""

    @abstractmethod
    def step(self) -> None: ...

    @abstractmethod
    def cut(self, kind: str, hole: Callable[[], None]) -> None:
        """Cut it, and have it come back. ``hole`` waits as long as the network is down."""

    @abstractmethod
    def close(self) -> None: ...


class Reader(Client):
    """websocket-client. ``exact``: it says what it has had when it comes back."""

    def __init__(self, site: Site, kernel_id: str, lines: Lines, *, exact: bool) -> None:
        super().__init__(site, kernel_id, lines)
        self.name = "exact" if exact else "websocket-client"
        self._exact = exact
        self._place: str | None = None
        self._behind = 0
        self._pieces: list[str] = []
        self._size = 0
        self._ends: set[str] = set()
        self._session = f"reader-{self.name}"
        self._forsaken: list[Channels] = []
        self._channels = self._connect()
        self._parent = self._channels.execute(lines.code)

    def text(self) -> str:
        return "".join(self._pieces)

    def size(self) -> int:
        return self._size

    def ended(self) -> bool:
        return self._ends == {"reply", "idle"}

    def step(self) -> None:
        try:
            opcode, data = self._channels.socket.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            return
        except (websocket.WebSocketConnectionClosedException, OSError):
            opcode, data = websocket.ABNF.OPCODE_CLOSE, b""
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self.unasked += 1
            self._channels.close()
            self._channels = self._connect()
        elif opcode == websocket.ABNF.OPCODE_PING:
            self._pinged(data)
        elif opcode == websocket.ABNF.OPCODE_TEXT:
            self._take(data)

    def cut(self, kind: str, hole: Callable[[], None]) -> None:
        if kind == HALF_OPEN:  # it stays, and nobody reads it
            self._forsaken.append(self._channels)
        elif kind == BLACK_HOLE:
            self.site.network.cut()
            hole()
            reset_channels(self._channels)  # which the gateway does not learn
            self.site.network.mend()
        elif kind == KILL:
            self.site.kill()
            self._channels.close()
        else:
            assert kind == RESET
            reset_channels(self._channels)
        self._channels = self._connect()

    def close(self) -> None:
        for channels in (self._channels, *self._forsaken):
            channels.close()

    def _connect(self) -> Channels:
        query = f"&after={self._place}&skip={self._behind}" if self._exact and self._place else ""
        made = self.site.gateway.connect(self.kernel_id, session=self._session, query=query)
        made.socket.settimeout(0.2)
        return made

    def _take(self, data: bytes) -> None:
        self._behind += 1
        message = unpack(None, False, data)
        if message.parent_id != self._parent:
            return
        self.heard_at = time.monotonic()
        if message.type == "stream" and message.content["name"] == "stdout":
            self._pieces.append(message.content["text"])
            self._size += len(self._pieces[-1])
        elif replies(message):
            self._ends.add("reply")
        elif idles(message):
            self._ends.add("idle")

    def _pinged(self, payload: bytes) -> None:
        """Which place a ping names: epoch, number, serial."""
        if len(payload) == 26:
            epoch, number, serial, _ = struct.unpack("!6sQIQ", payload)
            self._place = f"{epoch.hex()}.{number}.{serial}" if serial else None
            self._behind = 0


class Services(Client):
    """@jupyterlab/services in Node, which connects again by itself; it is cut at a proxy on its own host."""

    name = "@jupyterlab/services"

    def __init__(self, site: Site, kernel_id: str, lines: Lines, packages: Path, folder: Path) -> None:
        super().__init__(site, kernel_id, lines)
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._log, code = folder / "text", folder / "node.log", folder / "code"
        self._out.touch()
        code.write_text(lines.code)
        self._cuts = 0
        self._had = 0
        self._stack = contextlib.ExitStack()
        self._proxy = self._stack.enter_context(Proxy(site.upstream))
        self._node: subprocess.Popen[bytes] | None = None
        environ = {"PATH": os.environ["PATH"], "NODE_PATH": str(packages), "GATEWAY_URL": self._proxy.url,
                   "GATEWAY_TOKEN": site.gateway.token, "KERNEL_ID": kernel_id,
                   "CODE": str(code), "OUT": str(self._out)}  # fmt: skip
        with self._log.open("wb") as log:
            self._node = subprocess.Popen(
                ["node", str(SERVICES / "lines.cjs")], env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def text(self) -> str:
        return self._out.read_text()

    def size(self) -> int:
        return self._out.stat().st_size

    def ended(self) -> bool:
        assert self._node is not None
        code = self._node.poll()
        assert code in {None, 0}, f"Node ended with {code}:\n{self._log.read_text()[-3000:]}"
        return code == 0

    def step(self) -> None:
        time.sleep(0.02)  # it works by itself
        if (size := self.size()) != self._had:
            self._had = size
            self.heard_at = time.monotonic()
        self.unasked = max(self._proxy.opened - 1 - self._cuts, 0)

    def cut(self, kind: str, hole: Callable[[], None]) -> None:
        since = self._proxy.opened
        wait_until(lambda: any(not one.mute for one in self._proxy.tunnels), "a connection to cut", 60)
        self._cuts += 1
        if kind == HALF_OPEN:
            self._proxy.forsake()
        elif kind == BLACK_HOLE:
            self.site.network.cut()
            hole()
            self._proxy.cut()
            self.site.network.mend()
        elif kind == KILL:
            self.site.kill()
        else:
            assert kind == RESET
            self._proxy.cut()
        self._proxy.wait_opened(since, 60)

    def close(self) -> None:
        if self._node is not None and self._node.poll() is None:
            self._node.kill()
            self._node.wait(10)
        self._stack.close()


class Proxy(CuttingProxy):
    def forsake(self) -> None:
        """The client learns that its connection is gone, the gateway does not: its own stays, and nobody reads it."""
        assert self._run(self._forsake), "no WebSocket to forsake"

    def cut(self) -> None:
        super().cut()
        self._run(lambda: None)  # what a reset has put off to the loop's next turn is done

    def _forsake(self) -> int:
        forsaken = [one for one in self._tunnels if not one.mute]
        for one in forsaken:
            client, server = one._ends
            one.mute = True
            server.transport.pause_reading()
            reset(client)
        return len(forsaken)

    def _cut(self) -> int:
        alive = [one for one in self._tunnels if not one.mute]
        for one in alive:
            one.reset()
        return len(alive)


def reset_channels(channels: Channels) -> None:
    """A reset: what is on its way is gone."""
    sock = channels.socket.sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channels.close()


def watch(client: Client, gateway: str, kinds: list[str], seed: int, timeout: float) -> Account:
    """Cut ``client`` again and again until its request has ended, or nothing more is to be expected."""
    lines = client.lines
    chance = random.Random(seed)
    cuts = plan(kinds, lines.count, seed)
    done: Counter[str] = Counter()
    size, back_at = -1, time.monotonic()
    deadline = time.monotonic() + timeout

    def hole() -> None:
        there = lines.printed()
        until = min(there + chance.randrange(lines.count // 50, lines.count // 20), lines.count * 9 // 10)
        wait_until(lambda: lines.printed() >= until, f"the kernel to print {until} lines", 60, every=0.01)

    while not client.ended():
        assert time.monotonic() < deadline, (
            f"after {timeout:g} s: {lines.printed()} lines printed, {client.text().count(chr(10))} had; {dict(done)}"
        )
        # A client that has had nothing since it came back is cut again only where nothing comes.
        fresh = client.size() > size or time.monotonic() > back_at + SILENCE / 2
        if cuts and fresh and lines.printed() >= cuts[0][0]:
            kind = cuts.pop(0)[1]
            client.cut(kind, hole)
            done[kind] += 1
            size, back_at = client.size(), time.monotonic()
            if not cuts:
                lines.go_on()
        over = not cuts and lines.printed() == lines.count
        if over and time.monotonic() > max(client.heard_at, back_at) + SILENCE:
            break
        client.step()
    assert not cuts, f"the request ended before these cuts: {cuts}"
    return Account.of(
        client.name, gateway, lines.count, client.text(), cuts=done, unasked=client.unasked, replied=client.ended()
    )


def run(make: Callable[[], Client], gateway: str, kinds: list[str], seed: int, timeout: float) -> Account:
    client = make()
    try:
        return watch(client, gateway, kinds, seed, timeout)
    finally:
        client.close()
