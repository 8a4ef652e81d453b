"""A floor: a kernel with no gateway at all, through jupyter_client's blocking client over ZMQ.

It is as fast as that can be: the first request is sent before the kernel is there, and ZMQ tries again every 5 ms,
not every 100.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from benchmarks.client import Burst, Failed

PATIENCE = 60.0
UNHEARD = 0.05
"""Seconds after a reply in which its output must have come; else iopub was not connected yet."""


class BareKernel:
    """One kernel and its client."""

    def __init__(self, kernelspecs: Path, name: str) -> None:
        context = zmq.Context()
        context.setsockopt(zmq.RECONNECT_IVL, 5)
        context.setsockopt(zmq.RCVHWM, 0)  # or it would lose messages above 1,000
        specs = KernelSpecManager(kernel_dirs=[str(kernelspecs)])
        self._context = context
        file = kernelspecs.parent / f"bare-{time.monotonic_ns()}.json"
        self._manager = KernelManager(
            kernel_name=name, context=context, kernel_spec_manager=specs, connection_file=str(file)
        )
        self._began = time.perf_counter()
        self._manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels(stdin=False, hb=False)

    def first_output(self) -> float:
        """Seconds from before the start until the first output."""
        deadline = self._began + PATIENCE
        asked: set[str] = set()
        while time.perf_counter() < deadline:
            asked.add(self._client.execute("print(1)", store_history=False))
            until = deadline
            for channel, message in self._messages():
                if message is None:
                    if time.perf_counter() > until:
                        break
                elif message["parent_header"].get("msg_id") in asked:
                    if message["msg_type"] == "stream":
                        return time.perf_counter() - self._began
                    if channel == "shell":
                        until = time.perf_counter() + UNHEARD
        raise Failed("the bare kernel put nothing out")

    def _messages(self) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """What comes on either channel; None every 10 ms that nothing does."""
        channels = {"shell": self._client.shell_channel, "iopub": self._client.iopub_channel}
        poller = zmq.Poller()
        for channel in channels.values():
            poller.register(channel.socket, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(10))
            for name, channel in channels.items():
                if channel.socket in ready:
                    yield name, channel.get_msg(timeout=1)
            if not ready:
                yield "", None

    def round_trip(self, code: str = "echo") -> float:
        began = time.perf_counter()
        msg_id = self._client.execute(code, store_history=False)
        missing = {"execute_reply", "stream", "idle"}
        for _, message in self._messages():
            if message is not None and message["parent_header"].get("msg_id") == msg_id:
                missing -= {message["msg_type"], message["content"].get("execution_state", "")}
                if not missing:
                    break
            if time.perf_counter() > began + PATIENCE:
                raise Failed("no answer from the bare kernel")
        return time.perf_counter() - began

    def burst(self, count: int, size: int) -> Burst:
        self.round_trip(f"prepare {count} {size}")
        spent, began = time.thread_time(), time.perf_counter()
        self._client.execute("blast", store_history=False)
        seen = payload = 0
        while seen < count:
            message = self._client.get_iopub_msg(timeout=PATIENCE)
            if message["msg_type"] == "stream":
                seen += 1
                payload += len(message["content"]["text"])
        return Burst(seen, time.perf_counter() - began, payload, time.thread_time() - spent)

    def delete(self) -> float:
        """Seconds until its process has ended."""
        began = time.perf_counter()
        self._client.stop_channels()
        self._manager.shutdown_kernel()
        took = time.perf_counter() - began
        self._context.destroy(linger=0)
        return took

    def kill(self) -> None:
        with contextlib.suppress(Exception):
            self._manager.shutdown_kernel(now=True)
        self._context.destroy(linger=0)
