"""The gateway's calls to one launcher: HTTP/1.1, a connection each, and the ``/events`` WebSocket.

Contract: ``docs/developers/launcher-protocol.md``. Everything read is bounded and every wait has a deadline. What
goes wrong is one of two: ``LauncherUnreachable`` (try again) or ``LauncherError`` (it answered, and not as hoped).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from eg_core.errors import GatewayError
from eg_core.launchers.stream import SocketStream
from eg_launcher import wire
from eg_launcher.websocket import MessageReader, Opcode, ProtocolError, accept_key, apply_mask, frame_header

SILENCE = 90.0
"""Seconds without a byte after which an ``/events`` link is lost; the launcher pings every 30."""

_CHUNK = 64 * 1024


class LauncherError(GatewayError):
    """The launcher answered with an error, or with what is not this protocol. ``status`` is HTTP's.

    ``spoken`` are the protocols it speaks, where that was the trouble.
    """

    reason = "launcher_error"

    def __init__(self, message: str, *, status: int, reason: str | None = None, spoken: Any = None) -> None:
        super().__init__(message, reason=reason)
        self.status = status
        self.spoken = spoken


class LauncherUnreachable(GatewayError):
    """The launcher cannot be reached now, or the connection to it was lost."""

    reason = "launcher_unreachable"


@dataclass(frozen=True)
class _Head:
    status: int
    headers: dict[str, str]


class ChannelsLink(NamedTuple):
    """A socket behind its WebSocket handshake, what was read beyond that, and the client's data frames that a launcher
    has already from an earlier link of the same name."""

    sock: socket.socket
    ahead: bytes
    received: int


class LauncherClient:
    """``connect`` gives a connected socket, TLS done. ``timeout`` bounds each call as a whole."""

    def __init__(self, connect: Callable[[], Awaitable[socket.socket]], token: str, *, timeout: float = 10.0) -> None:
        self._connect = connect
        self._token = token
        self._timeout = timeout
        self._protocol = wire.PROTOCOL

    @property
    def outdated(self) -> bool:
        """It speaks the version before ours, as far as is known."""
        return self._protocol != wire.PROTOCOL

    # -- calls -----------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        status = await self._call("GET", "/status")
        self._agree(status.get("protocol"))
        return status

    async def start(self, kernel_id: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call("POST", _path(kernel_id, "start"), body)

    async def interrupt(self, kernel_id: str) -> None:
        await self._call("POST", _path(kernel_id, "interrupt"), {})

    async def restart(self, kernel_id: str) -> dict[str, Any]:
        return await self._call("POST", _path(kernel_id, "restart"), {})

    async def shutdown(self, kernel_id: str, grace: float, message: str | None = None) -> None:
        """``message``: words for whoever waits for the kernel or is connected to it."""
        words = {} if message is None else {"message": message}
        await self._call("POST", _path(kernel_id, "shutdown"), {"grace": grace, **words})

    async def log(self, kernel_id: str, after: int = 0) -> dict[str, Any]:
        return await self._call("GET", f"{_path(kernel_id, 'log')}?after={after}")

    async def outputs(self, kernel_id: str, **which: str) -> dict[str, Any]:
        """What a request has put out; ``parent`` names its msg_id, or ``cell`` a notebook's cell."""
        path = f"{_path(kernel_id, 'outputs')}?{urlencode(which)}"
        return await self._call("GET", path, limit=wire.MAX_OUTPUTS)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What the launcher tells of itself; ends when the link is lost.

        Raises LauncherUnreachable when there is none to begin with, LauncherError when it is not one.
        """
        stream, _ = await self._upgrade("/events", None)
        loop = asyncio.get_running_loop()
        reader = MessageReader(max_message=wire.MAX_BODY, masked=False)
        try:
            while True:
                stream.deadline = loop.time() + SILENCE
                try:
                    data = await stream.read()
                    for opcode, payload in reader.feed(data):
                        if opcode is Opcode.TEXT:
                            event = _event(payload)
                            if event.get("type") == "status":
                                self._agree(event.get("protocol"))
                            yield event
                        elif opcode is Opcode.PING:
                            await stream.send_all(_masked(Opcode.PONG, payload))
                        elif opcode is Opcode.CLOSE:
                            return
                except ProtocolError as error:
                    raise _nonsense(f"{error} on /events") from error
                except OSError:  # TimeoutError is one
                    return
                if not data:
                    return
        finally:
            stream.close()

    async def open_channels(self, kernel_id: str, *, query: Mapping[str, str], subprotocol: str | None) -> ChannelsLink:
        """The launcher's side of a kernel's channels, handshake done.

        ``query``: the protocol's ``session_id``, ``peer``, ``link``, ``after`` and ``skip``.
        """
        stream, head = await self._upgrade(f"{_path(kernel_id, 'channels')}?{urlencode(query)}", subprotocol)
        received = head.headers.get(wire.RECEIVED_HEADER.lower(), "0")
        return ChannelsLink(*stream.take(), int(received) if received.isdecimal() else 0)

    # -- underneath ------------------------------------------------------------------------------------------

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, limit: int = wire.MAX_BODY
    ) -> dict[str, Any]:
        try:
            return await self._call_once(method, path, body, limit)
        except LauncherError as error:
            if error.status != 426 or not self._fall_back(error):
                raise
        return await self._call_once(method, path, body, limit)

    async def _call_once(self, method: str, path: str, body: dict[str, Any] | None, limit: int) -> dict[str, Any]:
        payload = b"" if body is None else json.dumps(body).encode()
        if len(payload) > wire.MAX_BODY:
            raise LauncherError(f"A request of {len(payload)} bytes; the launcher takes {wire.MAX_BODY}.", status=413)
        headers = {"Connection": "close"}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        stream = await self._send(method, path, headers, payload)
        try:
            with self._in_words(method, path):
                head = await _read_head(stream)
                answer = await _read_body(stream, head, limit)
        finally:
            stream.close()
        return self._checked(head, answer, method, path)

    async def _upgrade(self, path: str, subprotocol: str | None) -> tuple[SocketStream, _Head]:
        """A WebSocket's handshake, once more in an older protocol where the launcher knows no other."""
        try:
            return await self._upgrade_once(path, subprotocol)
        except LauncherError as error:
            if error.status != 426 or not self._fall_back(error):
                raise
        return await self._upgrade_once(path, subprotocol)

    async def _upgrade_once(self, path: str, subprotocol: str | None) -> tuple[SocketStream, _Head]:
        key = base64.b64encode(os.urandom(16)).decode("ascii")
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        if subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = subprotocol
        stream = await self._send("GET", path, headers, b"")
        try:
            with self._in_words("GET", path):
                head = await _read_head(stream)
                if head.status != 101:
                    self._checked(head, await _read_body(stream, head), "GET", path)
                    raise _nonsense(f"{head.status} to a WebSocket handshake")
            if head.headers.get("sec-websocket-accept") != accept_key(key):
                raise _nonsense("a wrong Sec-WebSocket-Accept")
            if head.headers.get("sec-websocket-protocol") != subprotocol:
                raise _nonsense("another sub-protocol than was asked for")
        except BaseException:
            stream.close()
            raise
        stream.deadline = None
        return stream, head

    async def _send(self, method: str, path: str, headers: dict[str, str], payload: bytes) -> SocketStream:
        """Connect and send a request."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        sock = await self._connected(method, path)
        stream = SocketStream(sock, deadline=deadline)
        headers = {
            "Host": "launcher",
            "Authorization": f"Bearer {self._token}",
            wire.PROTOCOL_HEADER: str(self._protocol),
            **headers,
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        try:
            with self._in_words(method, path):
                await stream.send_all("\r\n".join(lines).encode("latin-1") + payload)
        except LauncherUnreachable:
            return stream  # it may have answered before it closed: reading will tell
        except BaseException:
            stream.close()
            raise
        return stream

    async def _connected(self, method: str, path: str) -> socket.socket:
        task = asyncio.ensure_future(self._connect())
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        except asyncio.CancelledError:
            _abandon(task)
            raise
        if not task.done():
            _abandon(task)
            raise LauncherUnreachable(f"No connection to the launcher within {self._timeout:g} s.", reason="timeout")
        with self._in_words(method, path):
            return task.result()

    @contextlib.contextmanager
    def _in_words(self, method: str, path: str) -> Any:
        what = f"{method} {path.partition('?')[0]}"
        try:
            yield
        except TimeoutError as error:
            raise LauncherUnreachable(
                f"The launcher did not answer {what} within {self._timeout:g} s.", reason="timeout"
            ) from error
        except EOFError as error:
            raise LauncherUnreachable(f"The launcher closed the connection before it answered {what}.") from error
        except OSError as error:
            raise LauncherUnreachable(f"The launcher cannot be reached ({what}): {error}.") from error
        except ValueError as error:
            raise _nonsense(f"{error}, to {what}") from error

    def _checked(self, head: _Head, answer: dict[str, Any], method: str, path: str) -> dict[str, Any]:
        if head.status < 300:
            return answer
        words = answer.get("message")
        if head.status == 426:
            spoken = answer.get("protocol")
            words = f"The launcher speaks the launcher protocol {spoken}; this gateway speaks {_spoken()}."
        elif not isinstance(words, str) or not words:
            words = f"The launcher answered {method} {path.partition('?')[0]} with status {head.status}."
        reason = answer.get("reason")
        raise LauncherError(
            words,
            status=head.status,
            reason=reason if isinstance(reason, str) else None,
            spoken=answer.get("protocol"),
        )

    def _agree(self, protocol: Any) -> None:
        if protocol not in wire.SUPPORTED_PROTOCOLS:
            raise LauncherError(
                f"The launcher speaks the launcher protocol {protocol!r}; this gateway speaks {_spoken()}. "
                "Start its kernels anew.",
                status=426,
            )
        self._protocol = min(self._protocol, protocol)

    def _fall_back(self, error: LauncherError) -> bool:
        """Whether to try once more, with the newest protocol both sides speak."""
        spoken = error.spoken if isinstance(error.spoken, list) else []
        common = [n for n in wire.SUPPORTED_PROTOCOLS if n in spoken]
        if not common or max(common) == self._protocol:
            return False
        self._protocol = max(common)
        return True


# -- pure helpers -----------------------------------------------------------------------------------------------


def _path(kernel_id: str, call: str) -> str:
    return f"/kernels/{quote(kernel_id, safe='')}/{call}"


def _spoken() -> str:
    return " and ".join(map(str, wire.SUPPORTED_PROTOCOLS))


def _nonsense(what: str) -> LauncherError:
    return LauncherError(f"The launcher answered with {what}: that is not the launcher protocol.", status=502)


def _masked(opcode: Opcode, payload: bytes) -> bytes:
    mask = os.urandom(4)
    return frame_header(opcode, len(payload), mask=mask) + apply_mask(mask, payload)


def _abandon(task: asyncio.Future[socket.socket]) -> None:
    """Nobody waits for this connection any more: close it if it comes about nevertheless."""

    def close(done: asyncio.Future[socket.socket]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().close()

    task.cancel()
    task.add_done_callback(close)


def _event(payload: bytes) -> dict[str, Any]:
    return _json_object(payload, "an event")


def _json_object(payload: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise _nonsense(f"{what} that is not JSON") from None
    if not isinstance(value, dict):
        raise _nonsense(f"{what} that is not a JSON object")
    return value


async def _read_head(stream: SocketStream) -> _Head:
    try:
        raw = await stream.read_until(b"\r\n\r\n", wire.MAX_HEAD)
    except ValueError:
        raise ValueError(f"a head of more than {wire.MAX_HEAD} bytes") from None
    lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or not code.isdigit() or len(code) != 3:
        raise ValueError("something that is not HTTP")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return _Head(int(code), headers)


async def _read_body(stream: SocketStream, head: _Head, limit: int = wire.MAX_BODY) -> dict[str, Any]:
    if head.status == 204:
        return {}
    length = head.headers.get("content-length", "")
    if not length.isdigit():
        raise ValueError("no Content-Length")
    if int(length) > limit:
        raise ValueError(f"a body of {length} bytes (at most {limit})")
    body = await stream.read_exactly(int(length))
    try:
        return _json_object(body, "a body")
    except LauncherError:
        if head.status < 300:
            raise
        return {}  # the status says enough
