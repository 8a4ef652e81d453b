"""A kernel behind a gateway, for programs that drive kernels with ``jupyter_client``'s classes (nbclient).

``RemoteKernel`` stands where they expect a kernel manager (REST), ``RemoteKernelClient`` where they expect a kernel
client (one WebSocket, ``v1``, buffers and all). Both send the token with every request, the WebSocket's too, and a
closed socket ends every wait with the reason in words.
"""

from __future__ import annotations

import asyncio
import json
import queue
from typing import Any
from urllib.parse import quote

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.jsonutil import extract_dates
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

from eg_launcher.frames import decode, encode
from eg_launcher.websocket import Opcode
from eg_launcher.wire import V1_SUBPROTOCOL

_MAX_MESSAGE = 1 << 30
_REQUEST_TIMEOUT = 90.0  # a launch answers in 25 s, ready or not
_CHANNELS = ("shell", "iopub", "stdin", "control")


class RemoteError(RuntimeError):
    """The gateway said no, or cannot be reached, or the kernel is gone; the message says which and why."""


class RemoteKernel:
    """One kernel of a gateway. The methods are those that nbclient calls on a kernel manager."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.kernel_id: str | None = None

    @property
    def has_kernel(self) -> bool:
        return self.kernel_id is not None

    async def kernelspecs(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self._request("GET", "/api/kernelspecs")
        return answer

    async def start_kernel(self, name: str, cwd: str) -> None:
        body = {"name": name, "env": {"KERNEL_WORKING_DIR": cwd}}
        model = await self._request("POST", "/api/kernels", body)
        self.kernel_id = model["id"]

    async def model(self) -> dict[str, Any] | None:
        """The gateway's model of the kernel; None when there is none (any more)."""
        if self.kernel_id is None:
            return None
        try:
            model: dict[str, Any] = await self._request("GET", self._path())
        except RemoteError as error:
            if isinstance(error.__cause__, HTTPClientError) and error.__cause__.code == 404:
                return None
            raise
        return model

    async def is_alive(self) -> bool:
        model = await self.model()
        return model is not None and model.get("execution_state") != "dead"

    async def interrupt_kernel(self) -> None:
        await self._request("POST", self._path("/interrupt"), {})

    async def shutdown_kernel(self, now: bool = False) -> None:
        if self.kernel_id is not None:
            try:
                await self._request("DELETE", self._path())
            except RemoteError as error:
                if not (isinstance(error.__cause__, HTTPClientError) and error.__cause__.code == 404):
                    raise
            self.kernel_id = None

    async def cleanup_resources(self, restart: bool = False) -> None:
        """Nothing of it is on this side."""

    def client(self) -> RemoteKernelClient:
        return RemoteKernelClient(self)

    def channels_request(self, session_id: str) -> HTTPRequest:
        url = f"ws{self.url.removeprefix('http')}{self._path('/channels')}?session_id={quote(session_id)}"
        return HTTPRequest(url, headers=self._headers(), connect_timeout=20, request_timeout=_REQUEST_TIMEOUT)

    def _path(self, tail: str = "") -> str:
        return f"/api/kernels/{quote(self.kernel_id or '')}{tail}"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = HTTPRequest(
            self.url + path,
            method=method,
            headers=self._headers(),
            body=None if body is None else json.dumps(body),
            request_timeout=_REQUEST_TIMEOUT,
        )
        try:
            response = await AsyncHTTPClient().fetch(request)
        except HTTPClientError as error:
            raise RemoteError(_words(error, error.response)) from error
        except OSError as error:
            raise RemoteError(f"The gateway at {self.url} cannot be reached: {error}") from error
        return json.loads(response.body) if response.body else None


def _words(error: HTTPClientError, response: HTTPResponse | None) -> str:
    try:
        answer = json.loads(response.body) if response is not None else {}
        return str(answer.get("message") or answer.get("reason") or error)
    except (ValueError, AttributeError):
        return str(error)


class RemoteKernelClient(AsyncKernelClient):
    """A kernel client over the gateway's WebSocket."""

    allow_stdin = False

    def __init__(self, kernel: RemoteKernel, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel = kernel
        self._socket: WebSocketClientConnection | None = None
        self._queues = {name: _Channel(self, name) for name in _CHANNELS}
        self._router: asyncio.Task[None] | None = None
        self.closed: str | None = None  # why, in words

    async def start_channels(self, *_: object, **__: object) -> None:  # type: ignore[override]
        request = self.kernel.channels_request(self.session.session)
        try:
            self._socket = await websocket_connect(
                request, subprotocols=[V1_SUBPROTOCOL], max_message_size=_MAX_MESSAGE
            )
        except HTTPClientError as error:
            raise RemoteError(_words(error, error.response)) from error
        except OSError as error:
            raise RemoteError(f"The gateway at {self.kernel.url} cannot be reached: {error}") from error
        self._router = asyncio.create_task(self._route(self._socket))

    def stop_channels(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._end("The client closed the connection.")

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Returns when the kernel has answered; the gateway holds the request while the kernel is starting."""
        msg_id = self.kernel_info()
        try:
            await asyncio.wait_for(self._reply(msg_id), timeout)
        except asyncio.TimeoutError:
            raise RemoteError(f"The kernel did not answer within {timeout} s.") from None

    async def _reply(self, msg_id: str) -> None:
        while (await self.shell_channel.get_msg())["parent_header"].get("msg_id") != msg_id:
            pass

    async def is_alive(self) -> bool:
        return self.closed is None

    @property
    def shell_channel(self) -> _Channel:
        return self._queues["shell"]

    @property
    def iopub_channel(self) -> _Channel:
        return self._queues["iopub"]

    @property
    def stdin_channel(self) -> _Channel:
        return self._queues["stdin"]

    @property
    def control_channel(self) -> _Channel:
        return self._queues["control"]

    def send(self, channel: str, message: dict[str, Any]) -> None:
        if self._socket is None or self.closed is not None:
            raise RemoteError(self.closed or "The connection to the kernel is not open.")
        parts = [self.session.pack(message[key]) for key in ("header", "parent_header", "metadata", "content")]
        opcode, payload = encode(channel, [*parts, *message.get("buffers", ())], self._socket.selected_subprotocol)
        self._socket.write_message(b"".join(payload), binary=opcode == Opcode.BINARY)

    async def _route(self, socket: WebSocketClientConnection) -> None:
        try:
            while (data := await socket.read_message()) is not None:
                opcode, payload = (Opcode.TEXT, data.encode()) if isinstance(data, str) else (Opcode.BINARY, data)
                message = decode(opcode, payload, socket.selected_subprotocol)
                if message.channel in self._queues:
                    self._queues[message.channel].put(_as_dict(message.header, message.parts))
        except ValueError as error:
            socket.close(1007, "not a message")
            self._end(f"The gateway sent what is no message: {error}")
            return
        why = (
            f"{socket.close_reason} (code {socket.close_code})" if socket.close_reason else f"code {socket.close_code}"
        )
        self._end(f"The gateway closed the connection to the kernel: {why}")

    def _end(self, why: str) -> None:
        if self.closed is None:
            self.closed = why
            for channel in self._queues.values():
                channel.put(None)


def _as_dict(header: dict[str, Any], parts: list[bytes]) -> dict[str, Any]:
    parent, metadata, content = (json.loads(part) for part in parts[1:4])
    header = extract_dates(header)
    return {
        "header": header,
        "msg_id": header["msg_id"],
        "msg_type": header["msg_type"],
        "parent_header": extract_dates(parent),
        "metadata": metadata,
        "content": content,
        "buffers": [memoryview(part) for part in parts[4:]],
    }


class _Channel:
    """One channel of the socket, with the methods that ``jupyter_client`` expects of a channel."""

    def __init__(self, client: RemoteKernelClient, name: str) -> None:
        self._client = client
        self._name = name
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def put(self, message: dict[str, Any] | None) -> None:
        self._messages.put_nowait(message)

    def send(self, message: dict[str, Any]) -> None:
        self._client.send(self._name, message)

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; ``queue.Empty`` after ``timeout``, RemoteError once all of a closed socket is read."""
        try:
            message = await asyncio.wait_for(self._messages.get(), timeout)
        except asyncio.TimeoutError:
            raise queue.Empty from None
        if message is None:
            self.put(None)
            raise RemoteError(self._client.closed or "The connection to the kernel is closed.")
        return message

    async def msg_ready(self) -> bool:
        return not self._messages.empty()

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def is_alive(self) -> bool:
        return self._client.closed is None
