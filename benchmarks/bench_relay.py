"""What a message costs the launcher, kernel → client, in µs of CPU; and a bare pyzmq loop on the same messages.

    python benchmarks/bench_relay.py [--messages 50000] [--size 600]

One process pretends to be the kernel (it signs beforehand and then only sends), one reads the client's socket and
throws away what it gets; this process is the launcher between them. Prints one JSON line. About ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import zmq

from eg_launcher.channels import Channel
from eg_launcher.connection_file import make_connection_info, urls
from eg_launcher.kernels import Kernel
from eg_launcher.relay import DELIMITER, make_context
from eg_launcher.signing import Signer, make_message
from eg_launcher.sockets import WebSocket
from eg_launcher.spill import Room
from eg_launcher.wire import V1_SUBPROTOCOL


def kernel_process(info: dict[str, Any], messages: int, size: int) -> None:
    """Answers requests; an ``execute_request`` is answered by a burst of stream messages."""
    where, signer = urls(info), Signer(info["key"].encode())
    with zmq.Context() as context:
        sockets = {name: context.socket(zmq.ROUTER) for name in ("shell", "control", "stdin")}
        sockets["iopub"] = context.socket(zmq.PUB)
        for name, sock in sockets.items():
            sock.linger, sock.sndhwm = 0, 0
            sock.bind(where[name])
        content = {"name": "stdout", "text": "x" * size}
        burst = []
        for _ in range(messages):
            parts = make_message("stream", content, session="bench", parent_header=b'{"msg_id":"m","session":"c"}')
            burst.append([b"stream", DELIMITER, signer.sign(parts), *parts])
        while True:
            identity, *_, header = sockets["shell"].recv_multipart()[:4]
            parent = header
            kind = json.loads(header)["msg_type"]
            if kind == "execute_request":
                for message in burst:
                    sockets["iopub"].send_multipart(message)
            reply = make_message(
                kind.replace("request", "reply"), {"status": "ok"}, session="bench", parent_header=parent
            )
            sockets["shell"].send_multipart([identity, DELIMITER, signer.sign(reply), *reply])
            idle = make_message("status", {"execution_state": "idle"}, session="bench", parent_header=parent)
            sockets["iopub"].send_multipart([b"status", DELIMITER, signer.sign(idle), *idle])


def reader_process(sock: socket.socket) -> None:
    while sock.recv(1 << 20):
        pass


class Pipe(asyncio.Protocol):
    """A WebSocket on one end of a socket pair."""

    websocket: WebSocket

    def __init__(self, subprotocol: str | None) -> None:
        self.subprotocol = subprotocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        self.websocket = WebSocket(transport, loop, subprotocol=self.subprotocol, max_message=1 << 20)

    def pause_writing(self) -> None:
        self.websocket.pause_writing()

    def resume_writing(self) -> None:
        self.websocket.resume_writing()


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.002)


async def relay(info: dict[str, Any], messages: int, subprotocol: str | None) -> dict[str, float]:
    ours, theirs = socket.socketpair()
    reader = multiprocessing.get_context("spawn").Process(target=reader_process, args=(theirs,), daemon=True)
    reader.start()
    theirs.close()
    kernel = Kernel.attached(
        "bench", info, name="bench", context=make_context(), changed=lambda _: None, room=Room(None)
    )
    await kernel.start()
    await until(lambda: kernel.state == "ready")
    transport, pipe = await asyncio.get_running_loop().create_connection(lambda: Pipe(subprotocol), sock=ours)
    opening = kernel.opening(session_id="c", link=None, after=None)
    channel = Channel(kernel, pipe.websocket, peer="weak", opening=opening)
    pipe.websocket.start(channel, b"")
    goal = kernel.journal.next + messages
    assert kernel._life is not None
    parts = make_message("execute_request", {}, session="c")
    began, spent = time.perf_counter(), cpu()
    kernel._life.send("shell", parts)
    await until(lambda: channel.cursor >= goal and not pipe.websocket.paused)
    spent, took = cpu() - spent, time.perf_counter() - began
    kernel.close()
    transport.abort()
    await asyncio.sleep(0)
    reader.kill()
    return {"us_per_message": round(spent / messages * 1e6, 2), "messages_per_second": round(messages / took)}


def bare(info: dict[str, Any], messages: int) -> dict[str, float]:
    """Only receive."""
    with zmq.Context() as context:
        sub, shell = context.socket(zmq.SUB), context.socket(zmq.DEALER)
        sub.rcvhwm, sub.linger, shell.linger = 0, 0, 0
        sub.subscribe(b"")
        sub.connect(urls(info)["iopub"])
        shell.connect(urls(info)["shell"])
        signer = Signer(info["key"].encode())
        while not sub.poll(100):
            nudge = make_message("kernel_info_request", {}, session="c")
            shell.send_multipart([DELIMITER, signer.sign(nudge), *nudge])
        parts = make_message("execute_request", {}, session="c")
        got, began, spent = 0, time.perf_counter(), cpu()
        shell.send_multipart([DELIMITER, signer.sign(parts), *parts])
        while got < messages:
            if sub.recv_multipart()[0] == b"stream":
                got += 1
        spent, took = cpu() - spent, time.perf_counter() - began
    return {"us_per_message": round(spent / messages * 1e6, 2), "messages_per_second": round(messages / took)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eg-") as folder:
        info = make_connection_info(Path(folder), name="bench", ipc=True)
        arguments = (info, options.messages, options.size)
        kernel = multiprocessing.get_context("spawn").Process(target=kernel_process, args=arguments, daemon=True)
        kernel.start()
        try:
            result = {
                "bench": "relay",
                "messages": options.messages,
                "size": options.size,
                "bare": bare(info, options.messages),
                "v1": asyncio.run(relay(info, options.messages, V1_SUBPROTOCOL)),
                "json": asyncio.run(relay(info, options.messages, None)),
            }
        finally:
            kernel.kill()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
