"""Clients that run one request after the other on kernels that are killed under them, and somebody who kills.

Whatever dies, each request must come to an end within ``PATIENCE`` seconds: its reply, or words why there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import websocket

from eg_integration.channels import Channels, Closed, Message, replies
from eg_integration.gateway import Answer, Gateway
from eg_integration.waiting import wait_until

PATIENCE = 5.0
LONGEST = 0.4
KERNEL, LAUNCHER, SOCKET = "kernel", "launcher", "socket"


class Client(threading.Thread):
    """``outcomes``: how its requests ended, how often. ``wrong``: what must not happen; it ends with that."""

    def __init__(self, gateway: Gateway, kernel_id: str, number: int, seed: int) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.gateway, self.kernel_id = gateway, kernel_id
        self.random = random.Random(f"{seed}-{number}")
        self.outcomes: Counter[str] = Counter()
        self.wrong = ""
        self.busy: int | None = None  # with this kernel's process
        self.slowest = 0.0
        self.cuts = 0
        self.struck = 0.0  # when something of its own died last
        self._cut_wanted = False
        self._ending = False
        self._session = f"mortal-{number}"
        self._channels: Channels | None = None

    def run(self) -> None:
        try:
            while not self._ending:
                self._one_request(f"sleep {self.random.uniform(0.05, LONGEST):.3f}")
            self._last_request()
        except Exception as error:  # noqa: BLE001 - told by the test
            self.wrong = f"{self.name}, kernel {self.kernel_id}: {type(error).__name__}: {error}"
        finally:
            self.busy = None
            if self._channels is not None:
                self._channels.close()

    def end(self) -> None:
        self._ending = True

    def cut(self) -> None:
        """Have its connection reset, while its request runs."""
        self.struck = time.monotonic()
        self._cut_wanted = True

    # -- one request

    def _one_request(self, code: str) -> str:
        sent = time.monotonic()
        try:
            how = self._ended(code, sent)
        except websocket.WebSocketBadStatusException as refused:
            how = _refused(Answer(refused.status_code, {}, refused.resp_body or b""))
        finally:
            self.busy = None
        self.slowest = max(self.slowest, time.monotonic() - max(sent + LONGEST, self.struck))
        self.outcomes[how] += 1
        if how != "reply":
            self._revive()
        return how

    def _last_request(self) -> None:
        """The kernel goes on, whatever has died before it."""
        for _ in range(3):
            if self._one_request("sleep 0") == "reply":
                return
        raise AssertionError("three requests at the end, when nothing died any more, and none had its reply")

    def _ended(self, code: str, sent: float) -> str:
        """How the request ended."""
        if self._channels is None:
            self._channels = self._connect()
        channels, closed = self._channels, None
        try:
            msg_id = channels.execute(code)
        except OSError as error:
            closed = Closed(1006, str(error))
        while closed is None:
            try:
                message = self._next(channels, sent)
            except Closed as error:
                closed = error
                break
            if message is not None and message.parent_id == msg_id:
                if message.type == "stream" and message.content["name"] == "stdout":
                    self.busy = int(message.content["text"])
                elif replies(message):
                    return self._replied(message)
            if self._cut_wanted and self.busy is not None:
                self._cut_wanted = False
                reset(channels)
                self.cuts += 1
                self._channels = channels = self._connect()
        self._channels = None
        channels.close()
        if closed.code == 1006:  # what was said with it has got lost; who asks again is told
            try:
                self._connect().close()
            except websocket.WebSocketBadStatusException as refused:
                return _refused(Answer(refused.status_code, {}, refused.resp_body or b""))
            raise AssertionError(f"the connection broke, though its kernel lives: {closed}")
        assert 4000 <= closed.code < 5000, closed
        assert closed.reason, closed
        return f"closed with {closed.code}"

    def _connect(self) -> Channels:
        return self.gateway.connect(self.kernel_id, session=self._session, timeout=PATIENCE)

    def _next(self, channels: Channels, sent: float) -> Message | None:
        late = time.monotonic() - max(sent + LONGEST, self.struck)
        assert late < PATIENCE, f"nothing for {late:.1f} s; {[(m.type, m.content) for m in channels.seen[-5:]]}"
        message = channels.receive(0.05)
        del channels.seen[:-20]
        return message

    def _replied(self, message: Message) -> str:
        if message.content["status"] == "ok":
            return "reply"
        assert message.content["ename"], message.content
        assert message.content["evalue"], message.content
        # Nobody is left to sit there with a dead kernel's socket.
        assert self._channels is not None
        try:
            closed = self._channels.until_closed(PATIENCE)
        finally:
            self._channels.close()
            self._channels = None
        assert closed.code == 1006 or (4000 <= closed.code < 5000 and closed.reason), closed
        return f"error {message.content['ename']}"

    # -- the next life

    def _revive(self) -> None:
        """Start the kernel again. What dies meanwhile is said, too."""
        if self._channels is not None:
            self._channels.close()
            self._channels = None
        began = time.monotonic()
        while True:
            answer = self.gateway.request("POST", f"/api/kernels/{self.kernel_id}/restart", {}, timeout=30)
            if answer.status == 200:
                return
            self.outcomes[f"restart {_refused(answer)}"] += 1
            late = time.monotonic() - max(began, self.struck)
            assert late < 2 * PATIENCE, f"no restart for {late:.1f} s: {answer.status} {answer.words}"


class Killer:
    """Kills what is at work, by chance."""

    def __init__(self, gateway: Gateway, clients: Sequence[Client], seed: int) -> None:
        self.gateway, self.clients = gateway, clients
        self.random = random.Random(seed)
        self.deaths: Counter[str] = Counter()

    def strike(self) -> None:
        """One death, of something that works."""
        kind = self.random.choices([KERNEL, SOCKET, LAUNCHER], [45, 40, 15])[0]
        at_work = 2 if kind == LAUNCHER else 1
        time.sleep(self.random.uniform(0, 0.1))  # anywhere in a request
        busy = wait_until(lambda: self._busy(at_work), f"{at_work} clients at work", 30, every=0.005)
        client = self.random.choice(busy)
        if kind == KERNEL:
            pid = client.busy
            if pid is None or not self._kill(pid, client):
                return  # its request has ended meanwhile
        elif kind == SOCKET:
            before = client.cuts
            client.cut()
            wait_until(lambda: client.cuts > before or client.wrong, f"{client.name} to cut its connection", 30)
        else:
            launchers = self.gateway.launchers()
            if not launchers:
                return  # it has ended by itself, without kernels
            for each in self.clients:
                each.struck = time.monotonic()
            os.kill(self.random.choice(launchers).pid, signal.SIGKILL)
        self.deaths[kind] += 1

    def _busy(self, count: int) -> list[Client]:
        assert not (wrong := [one.wrong for one in self.clients if one.wrong]), wrong
        busy = [one for one in self.clients if one.busy is not None]
        return busy if len(busy) >= count else []

    def _kill(self, pid: int, client: Client) -> bool:
        with contextlib.suppress(OSError):
            if str(self.gateway.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                client.struck = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                return True
        return False


def reset(channels: Channels) -> None:
    channels.socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channels.close()


def _refused(answer: Answer) -> str:
    """A refusal has a reason, in a word and in a sentence."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = {}
    assert body.get("reason_code"), f"{answer.status} {answer.body!r}"
    assert body.get("message"), body
    return f"refused with {answer.status} {body['reason_code']}"
