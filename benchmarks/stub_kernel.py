"""A light kernel for measurements: pyzmq and the standard library, one process, one kernel or many.

    python stub_kernel.py CONNECTION_FILE        # one kernel
    python stub_kernel.py --many                 # as many as lines "PID CONNECTION_FILE" come on stdin

It answers ``kernel_info`` and ``execute``. The code of a request says what to do: ``prepare N BYTES`` makes and signs
N stream messages of that much text, ``blast`` sends them; anything else is an echo, whose text is the process id.
Every message has an id of its own, so that nobody may take two for one. With ``--many`` the process that a gateway
started is a stand-in that only sleeps; it is killed when its kernel is shut down.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import resource
import selectors
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

DELIMITER = b"<IDS|MSG>"
SNDMORE = int(zmq.SNDMORE)
INFO = {
    "status": "ok",
    "protocol_version": "5.3",
    "implementation": "stub",
    "implementation_version": "1",
    "language_info": {"name": "stub", "version": "1", "mimetype": "text/plain", "file_extension": ".txt"},
    "banner": "",
    "help_links": [],
}


class StubKernel:
    """One kernel: its sockets and what it answers."""

    def __init__(self, context: zmq.Context[Any], info: dict[str, Any], pid: int) -> None:
        self.pid = pid
        self.ended = False
        self._key = info["key"].encode()
        self._session = os.urandom(8).hex()
        self._made = 0
        self._prepared: list[list[bytes]] = []
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        for channel in ("shell", "control", "stdin", "hb", "iopub"):
            sock = context.socket(zmq.PUB if channel == "iopub" else zmq.ROUTER)
            sock.linger, sock.sndhwm, sock.rcvhwm = 500, 0, 0
            dash = "-" if info["transport"] == "ipc" else ":"
            sock.bind(f"{info['transport']}://{info['ip']}{dash}{info[channel + '_port']}")
            self.sockets[channel] = sock

    def drain(self, channel: str) -> None:
        """Answer all that has come on this channel."""
        sock = self.sockets[channel]
        while not self.ended and sock.poll(0):
            parts = sock.recv_multipart()
            if channel == "hb":
                sock.send_multipart(parts)
            elif channel != "stdin":
                self._answer(sock, parts)

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()

    def _answer(self, sock: zmq.Socket[bytes], parts: list[bytes]) -> None:
        at = parts.index(DELIMITER)
        route, parent = parts[:at], parts[at + 2]
        kind = json.loads(parent)["msg_type"]
        self._publish("status", {"execution_state": "busy"}, parent)
        reply: dict[str, Any] = {"status": "ok"}
        if kind == "execute_request":
            self._execute(json.loads(parts[at + 5])["code"], parent)
            reply.update(execution_count=1, user_expressions={}, payload=[])
        elif kind == "kernel_info_request":
            reply = INFO
        elif kind == "shutdown_request":
            reply.update(restart=False)
            self.ended = True
        answer = self._message(kind.replace("_request", "_reply"), reply, parent)
        sock.send_multipart([*route, *answer])
        self._publish("status", {"execution_state": "idle"}, parent)

    def _execute(self, code: str, parent: bytes) -> None:
        if code == "blast":
            for message in self._prepared:
                self._send(message)
            self._prepared = []
            return
        if code.startswith("prepare "):
            count, size = map(int, code.split()[1:])
            padding = "x" * max(0, size - 9)
            texts = (f"{number:08d} {padding}" for number in range(count))
            self._prepared = [self._message("stream", {"name": "stdout", "text": text}, parent) for text in texts]
        self._publish("stream", {"name": "stdout", "text": f"{self.pid}\n"}, parent)

    def _send(self, message: list[bytes]) -> None:
        """A third of ``send_multipart``'s cost, as it competes with the gateway for the machine."""
        send = self.sockets["iopub"].send
        send(b"stream", SNDMORE)
        for part in message[:-1]:
            send(part, SNDMORE)
        send(message[-1], copy=len(message[-1]) < 65536)

    def _publish(self, kind: str, content: dict[str, Any], parent: bytes) -> None:
        self.sockets["iopub"].send_multipart([kind.encode(), *self._message(kind, content, parent)])

    def _message(self, kind: str, content: dict[str, Any], parent: bytes) -> list[bytes]:
        self._made += 1
        header = (
            f'{{"msg_id": "{self._session}_{self.pid}_{self._made}", "msg_type": "{kind}", "username": "stub", '
            f'"session": "{self._session}", "date": "2026-01-01T00:00:00.000000Z", "version": "5.3"}}'
        ).encode()
        return [DELIMITER, *self._sign([header, parent, b"{}", json.dumps(content).encode()])]

    def _sign(self, parts: Sequence[bytes]) -> list[bytes]:
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            digest.update(part)
        return [digest.hexdigest().encode(), *parts]


class Host:
    """The loop: kernels by their sockets' descriptors, which tell of a change once, so each is drained."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        with contextlib.suppress(zmq.ZMQError):
            self.context.max_sockets = 60_000
        self.selector = selectors.DefaultSelector()
        self.kernels = 0
        self._tail = b""

    def add(self, file: str, pid: int) -> None:
        kernel = StubKernel(self.context, json.loads(Path(file).read_text()), pid)
        for channel in ("shell", "control", "hb"):
            self.selector.register(kernel.sockets[channel], selectors.EVENT_READ, (kernel, channel))
            kernel.drain(channel)
        self.kernels += 1

    def turn(self) -> bool:
        """Wait for something and answer it. False: stdin is at its end."""
        for key, _ in self.selector.select():
            if key.data is None:
                if not self._read_lines():
                    return False
                continue
            kernel, channel = key.data
            kernel.drain(channel)
            if kernel.ended:
                self._end(kernel)
                break  # what else was ready may belong to it; it is told again
        return True

    def _read_lines(self) -> bool:
        data = os.read(0, 65536)
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            pid, _, file = line.decode().strip().partition(" ")
            try:
                self.add(file, int(pid))
            except (OSError, ValueError, zmq.ZMQError) as error:
                print(f"stub kernel {pid}: {error}", file=sys.stderr, flush=True)
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(pid), signal.SIGKILL)
        return bool(data)

    def _end(self, kernel: StubKernel) -> None:
        for channel in ("shell", "control", "hb"):
            self.selector.unregister(kernel.sockets[channel])
        kernel.close()
        self.kernels -= 1
        if kernel.pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(kernel.pid, signal.SIGKILL)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(1800)  # no run is so long: who is still there then was forgotten
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host = Host()
    if sys.argv[1] == "--many":
        host.selector.register(0, selectors.EVENT_READ, None)
        while host.turn():
            pass
    else:
        host.add(sys.argv[1], os.getpid())
        while host.kernels:
            host.turn()
    host.context.destroy(linger=500)


if __name__ == "__main__":
    main()
