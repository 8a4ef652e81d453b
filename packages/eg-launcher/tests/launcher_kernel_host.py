"""What the tests of relay, channels and kernels stand on: real kernels, and clients whose sockets are lists."""

import asyncio
import json
import shutil
import sys
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path

from eg_launcher.channels import Channel
from eg_launcher.command import StartRequest
from eg_launcher.frames import decode, encode
from eg_launcher.kernels import Kernel
from eg_launcher.limits import Limits
from eg_launcher.means import Means
from eg_launcher.relay import make_context
from eg_launcher.spawner import Spawner
from eg_launcher.spill import Room
from eg_launcher.websocket import Opcode
from eg_launcher.wire import V1_SUBPROTOCOL

IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
TIMEOUT = 15.0
HAS_SUBSHELLS = int(version("ipykernel").split(".")[0]) >= 7


async def until(condition, what="the condition", timeout=TIMEOUT):
    """Wait until it is true; its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} was not there after {timeout:g} s")
        await asyncio.sleep(0.005)


class ListConnection:
    """A WebSocket whose other side is a list. ``paused`` is set by hand: a client that does not read."""

    def __init__(self, subprotocol=None, *, count_only=False):
        self.subprotocol = subprotocol
        self.paused = False
        self.count_only = count_only
        self.messages = []
        self.frames = 0
        self.bytes = 0
        self.pings = []
        self.closed = None
        self.reading = True
        self.received = 0

    def abort(self):
        self.closed = "aborted"

    def send(self, opcode, buffers):
        payload_size = sum(len(buffer) for buffer in buffers)
        self.frames += 1
        self.bytes += payload_size
        if self.count_only:
            return
        payload = b"".join(buffers)
        if self.subprotocol == V1_SUBPROTOCOL:
            assert opcode is Opcode.BINARY
        elif opcode is Opcode.TEXT:
            assert list(json.loads(payload))[-1] == "channel"
        self.messages.append(Message(decode(opcode, payload, self.subprotocol), opcode))

    def ping(self, payload):
        self.pings.append(payload)

    def close(self, code, reason):
        self.closed = (code, reason)

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Message:
    def __init__(self, received, opcode):
        self.opcode = opcode
        self.channel = received.channel
        self.header = received.header
        self.type = received.header["msg_type"]
        self.parent, self.metadata, self.content = (json.loads(part) for part in received.parts[1:4])
        self.buffers = received.parts[4:]

    @property
    def parent_id(self):
        return self.parent.get("msg_id")

    def __repr__(self):
        return f"<{self.channel} {self.type} {str(self.content)[:200]} for {self.parent_id}>"


class Client:
    """A client on a kernel, as the server would hold it."""

    def __init__(self, kernel, *, subprotocol=None, peer="weak", session_id=None, count_only=False):
        self.connection = ListConnection(subprotocol, count_only=count_only)
        self.session = session_id or uuid.uuid4().hex
        opening = kernel.opening(session_id=session_id, link=None, after=None)
        self.channel = Channel(kernel, self.connection, peer=peer, opening=opening)

    @property
    def messages(self):
        return self.connection.messages

    def request(self, msg_type, content, *, channel="shell", buffers=(), metadata=None, **header):
        msg_id = f"{self.session}_{uuid.uuid4().hex}"
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": self.session,
            "username": "tester",
            "version": "5.3",
            "date": "2026-01-01T00:00:00Z",
            **header,
        }
        parts = [json.dumps(part).encode() for part in (header, {}, metadata or {}, content)] + list(buffers)
        opcode, pieces = encode(channel, parts, self.connection.subprotocol)
        self.channel.on_message(opcode, b"".join(pieces))
        return msg_id

    def run(self, code, **header):
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True}
        return self.request("execute_request", content, **header)

    async def execute(self, code, **header):
        """All messages of one execution, up to its end."""
        msg_id = self.run(code, **header)
        await self.ended(msg_id)
        return self.of(msg_id)

    def of(self, msg_id, *types):
        return [m for m in self.messages if m.parent_id == msg_id and (not types or m.type in types)]

    def text_of(self, msg_id, name="stdout"):
        return "".join(m.content["text"] for m in self.of(msg_id, "stream") if m.content["name"] == name)

    def is_idle(self, msg_id):
        return any(m.content["execution_state"] == "idle" for m in self.of(msg_id, "status"))

    async def ended(self, msg_id, timeout=TIMEOUT):
        """Its reply and its idle are there; the reply."""
        await until(lambda: self.of(msg_id, "execute_reply") and self.is_idle(msg_id), f"the end of {msg_id}", timeout)
        return self.of(msg_id, "execute_reply")[0]

    async def first(self, *types, timeout=TIMEOUT):
        return await until(
            lambda: next((m for m in self.messages if m.type in types), None), f"a message {types}", timeout
        )


class KernelHost:
    @classmethod
    async def open(cls):
        host = cls()
        host.folder = Path(tempfile.mkdtemp(prefix="eg-"))
        host.context = make_context()
        host.kernels = []
        host.changes = []
        host.spawner = await Spawner.open()
        host.room = Room(host.folder)
        host.means = Means(host.spawner, host.context, host.folder, host.room)
        return host

    def kernel(self, argv=None, *, env=None, interrupt_mode="signal", ready_timeout=60.0, limits=None):
        request = StartRequest(
            argv=argv or IPYKERNEL,
            env={"PYDEVD_DISABLE_FILE_VALIDATION": "1", **(env or {})},
            cwd=None,
            interrupt_mode=interrupt_mode,
            name="python3",
            ready_timeout=ready_timeout,
            limits=limits or Limits(),
        )
        kernel = Kernel.spawned(
            uuid.uuid4().hex,
            request,
            means=self.means,
            changed=lambda kernel: self.changes.append((kernel.id, kernel.state, kernel.execution_state)),
        )
        self.kernels.append(kernel)
        return kernel

    async def ready(self, argv=None, **options):
        kernel = self.kernel(argv, **options)
        await kernel.start()
        await until(lambda: kernel.state == "ready", "a ready kernel")
        return kernel

    def attached(self, info):
        kernel = Kernel.attached(
            "attached", info, name="other", context=self.context, changed=lambda _: None, room=self.room
        )
        self.kernels.append(kernel)
        return kernel

    async def close(self):
        for kernel in self.kernels:
            kernel.close()
        await self.spawner.close()
        self.room.close()
        self.context.destroy(linger=0)
        shutil.rmtree(self.folder, ignore_errors=True)
