"""For the tests of the channels: a stub launcher, a stand-in registry with a gateway around it, and a raw client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from eg_core.errors import KernelGone
from eg_core.handlers.base import GatewayHandler
from eg_core.handlers.channels import ChannelsHandler
from eg_core.kernels.states import PENDING, KernelState
from eg_core.launchers.client import LauncherClient
from eg_core.launchers.credentials import CertificateAuthority
from eg_core.launchers.stream import start_tls
from eg_launcher.websocket import (
    MessageReader,
    Opcode,
    accept_key,
    apply_mask,
    close_payload,
    frame_header,
    parse_close,
)

WAIT = 20.0
KERNEL_ID = "6f1d2c3b-0000-4000-8000-0123456789ab"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], Any], what: str = "the condition", timeout: float = WAIT) -> Any:
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        value = condition()
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        await asyncio.sleep(0.005)


def frame(opcode: int, payload: bytes, *, masked: bool = False, fin: bool = True) -> bytes:
    if not masked:
        return frame_header(opcode, len(payload), fin=fin) + payload
    mask = os.urandom(4)
    return frame_header(opcode, len(payload), mask=mask, fin=fin) + apply_mask(mask, payload)


def make_tls(folder: Any, name: str = "launcher-1") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context."""
    authority = CertificateAuthority.from_pem(CertificateAuthority.create())
    certificate, key = authority.issue(name)
    (folder / "leaf.pem").write_text(certificate + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "leaf.pem")
    return server, authority.client_context()


# -- the launcher ---------------------------------------------------------------------------------------------


class StubChannels:
    """One spliced connection as the launcher sees it: echoes what it gets unless told to be silent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, headers: dict) -> None:
        self.reader = reader
        self.writer = writer
        self.path = path
        self.headers = headers
        self.received: list[tuple[Opcode, bytes]] = []
        self.pongs: list[bytes] = []
        self.ended = False
        self.blocked = False
        """It has waited long for the gateway to take more."""
        self.echo = True

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def reset(self) -> None:
        """End with RST, as a killed process with unread input does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def serve(self) -> None:
        reader = MessageReader(max_message=1 << 30, masked=True)
        try:
            while data := await self.reader.read(1 << 20):
                for opcode, payload in reader.feed(data):
                    if opcode is Opcode.CLOSE:
                        self.writer.write(frame(Opcode.CLOSE, payload))
                        return
                    await self._message(opcode, payload)
        except OSError:
            pass
        finally:
            self.ended = True
            self.writer.close()

    async def _message(self, opcode: Opcode, payload: bytes) -> None:
        if opcode is Opcode.PING:
            self.writer.write(frame(Opcode.PONG, payload))
        elif opcode is Opcode.PONG:
            self.pongs.append(payload)
        elif payload.startswith(b"flood "):
            count, size = map(int, payload.split()[1:3])
            one = frame(Opcode.BINARY, b"x" * size)
            for _ in range(count):
                self.writer.write(one)
                noticed = asyncio.get_running_loop().call_later(0.2, setattr, self, "blocked", True)
                await self.writer.drain()
                noticed.cancel()
        else:
            self.received.append((opcode, payload))
            if self.echo:
                self.writer.write(frame_header(opcode, len(payload)))
                self.writer.write(payload)
                await self.writer.drain()


class StubLauncher:
    """Speaks the launcher protocol, or whatever ``answers`` says instead."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, bytes] = {}
        """Raw bytes by the path's last component; the connection is closed after them."""
        self.channels: list[StubChannels] = []
        self.greeting = b""
        """Sent in one piece with the 101 of channels."""
        self.echo = True
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        for _ in range(10):  # a server that is closed while it accepts leaks the connection (Python 3.13)
            await asyncio.sleep(0)
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._request(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((method, target, headers, body))
        call = target.partition("?")[0].rpartition("/")[2]
        if call in self.answers:
            writer.write(self.answers[call])
            await writer.drain()
        elif "sec-websocket-key" in headers:
            writer.write(handshake(headers) + self.greeting)
            channels = StubChannels(reader, writer, target, headers)
            channels.echo = self.echo
            self.channels.append(channels)
            await channels.serve()
        else:
            writer.write(json_answer(200, {"protocol": 1, "path": target, "body": json.loads(body or b"{}")}))
            await writer.drain()


def handshake(headers: dict[str, str]) -> bytes:
    answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    answer += f"Sec-WebSocket-Accept: {accept_key(headers['sec-websocket-key'])}\r\n"
    if "sec-websocket-protocol" in headers:
        answer += f"Sec-WebSocket-Protocol: {headers['sec-websocket-protocol']}\r\n"
    return (answer + "\r\n").encode()


def json_answer(status: int, body: Any) -> bytes:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} Words\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload


def connector(port: int, context: ssl.SSLContext | None = None, name: str = "launcher-1") -> Callable[[], Any]:
    async def connect() -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return await start_tls(sock, context, name) if context is not None else sock

    return connect


# -- the gateway ----------------------------------------------------------------------------------------------


class StandInKernel:
    """As much of the registry's kernel as the channels use."""

    def __init__(self, client: LauncherClient) -> None:
        self.id = KERNEL_ID
        self.session: str | None = "kernel-session"
        self.sockets: set[Any] = set()
        self.failure = "The kernel exited with code 3."
        self.description: dict[str, Any] = {}
        self.client = client
        self.opened: list[dict[str, Any]] = []
        self._state = KernelState.READY
        self._changed = asyncio.Event()

    @property
    def state(self) -> KernelState:
        return self._state

    @state.setter
    def state(self, state: KernelState) -> None:
        self._state = state
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def settled(self) -> None:
        while self._state in PENDING:
            await self._changed.wait()

    async def open_channels(self, **about: Any) -> tuple[socket.socket, bytes]:
        self.opened.append(about)
        return await self.client.open_channels(self.id, **about)


class StandInRegistry:
    def __init__(self, kernel: StandInKernel) -> None:
        self.one = kernel

    def kernel(self, kernel_id: str) -> StandInKernel:
        if kernel_id != self.one.id:
            raise KernelGone(f"Kernel does not exist: {kernel_id}")
        return self.one


class HelloHandler(GatewayHandler):
    def get(self) -> None:
        self.write_json({"hello": "there"})


class Gateway:
    """A tornado server with the channels' handler, on loopback."""

    def __init__(self, kernel: StandInKernel, context: ssl.SSLContext | None = None, token: str = "") -> None:
        self.kernel = kernel
        self.settings: dict[str, Any] = {
            "registry": StandInRegistry(kernel),
            "log": logging.getLogger("eg.test"),
            "auth_token": token,
            "base_url": "/",
            "log_function": self._log,
        }
        self.logged: list[tuple[int, str]] = []
        self.clients: list[RawClient] = []
        application = Application(
            [(r"/api/kernels/(?P<kernel_id>[\w-]+)/channels", ChannelsHandler), (r"/hello", HelloHandler)],
            **self.settings,
        )
        self.application = application
        self._server = HTTPServer(application, ssl_options=context)
        sockets = bind_sockets(0, "127.0.0.1")
        self._server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        scheme = "wss" if context is not None else "ws"
        self.url = f"{scheme}://127.0.0.1:{self.port}/api/kernels/{KERNEL_ID}/channels"

    def _log(self, handler: Any) -> None:
        self.logged.append((handler.get_status(), handler.request.path))

    @property
    def legs(self) -> int:
        board = self.application.settings.get("switchboard")
        return len(board.legs) if board is not None else 0

    async def stop(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
            await client.close()
        self._server.stop()
        await self._server.close_all_connections()
        board = self.application.settings.get("switchboard")
        if board is not None:
            board.close()


@contextlib.asynccontextmanager
async def running(
    *,
    client_tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    launcher_tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    token: str = "",
) -> AsyncIterator[tuple[Gateway, StubLauncher]]:
    launcher = StubLauncher()
    await launcher.start(launcher_tls[0] if launcher_tls else None)
    connect = connector(launcher.port, launcher_tls[1] if launcher_tls else None)
    gateway = Gateway(
        StandInKernel(LauncherClient(connect, "secret")), client_tls[0] if client_tls else None, token=token
    )
    try:
        yield gateway, launcher
    finally:
        await gateway.stop()
        await launcher.stop()


# -- the client -----------------------------------------------------------------------------------------------


class RawClient:
    """A WebSocket client that does exactly what it is told, one byte stream at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._messages = MessageReader(max_message=1 << 30, masked=False)
        self._queue: list[tuple[Opcode, bytes]] = []

    @classmethod
    async def connect(
        cls,
        gateway: Gateway,
        *,
        path: str = "",
        headers: dict[str, str | None] | None = None,
        pipelined: bytes = b"",
        before: bytes = b"",
        context: ssl.SSLContext | None = None,
    ) -> RawClient:
        """Upgrade. ``before`` goes ahead of the request on the same connection, ``pipelined`` right behind it."""
        name = "launcher-1" if context is not None else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", gateway.port, ssl=context, server_hostname=name, limit=1 << 20
        )
        client = cls(reader, writer)
        gateway.clients.append(client)
        if before:
            writer.write(before)
            await client.read_answer()
        writer.write(upgrade_request(gateway, path, headers or {}) + pipelined)
        await client.read_answer()
        return client

    async def read_answer(self) -> None:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT)).decode("latin-1").split("\r\n")
        self.status = int(head[0].split(" ")[1])
        self.headers = {k: v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        self.body = await self.reader.readexactly(int(self.headers.get("Content-Length", 0)))

    def send(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        self.writer.write(frame(opcode, payload, masked=True, fin=fin))

    async def receive(self, timeout: float = WAIT) -> tuple[Opcode, bytes]:
        """The next message or control frame; EOFError at the end."""
        while not self._queue:
            data = await asyncio.wait_for(self.reader.read(1 << 20), timeout)
            if not data:
                raise EOFError
            self._queue += self._messages.feed(data)
        return self._queue.pop(0)

    async def receive_close(self) -> tuple[tuple[int, str], list[tuple[Opcode, bytes]]]:
        """What came before the Close frame, and its code and reason; answers it."""
        before = []
        while True:
            opcode, payload = await self.receive()
            if opcode is Opcode.CLOSE:
                self.send(Opcode.CLOSE, payload[:2])
                return parse_close(payload), before
            before.append((opcode, payload))

    async def ended(self) -> None:
        """Read to the end of the connection."""
        with contextlib.suppress(OSError):
            while await asyncio.wait_for(self.reader.read(1 << 20), WAIT):
                pass

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def upgrade_request(gateway: Gateway, path: str, headers: dict[str, str | None]) -> bytes:
    """``headers`` replace or, with None, take away."""
    default: dict[str, str | None] = {
        "Host": f"127.0.0.1:{gateway.port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    path = path or f"/api/kernels/{KERNEL_ID}/channels?session_id=abc"
    lines = [f"{name}: {value}" for name, value in (default | headers).items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def request(msg_type: str, channel: str = "shell", msg_id: str = "m1") -> bytes:
    """A client's message in the default protocol."""
    header = {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "session": "client",
        "username": "u",
        "date": "",
        "version": "5.3",
    }
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": {}, "channel": channel}
    return json.dumps(message).encode()


def close(code: int, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, close_payload(code, reason))
