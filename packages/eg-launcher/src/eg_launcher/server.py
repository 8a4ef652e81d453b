"""HTTP/1.1 and upgrades to WebSocket on accepted sockets. Knows sockets, limits and deadlines; nothing of kernels.

Everything is bounded before anything is trusted: connections in all, connections that have shown no token yet (the
oldest makes room, so silent peers cannot lock a gateway out), heads, bodies, and the time for either. The
service checks a request when its head is there, before a byte of its body is kept. Requests of one connection are
answered one after the other, however they are pipelined. There is no timer per connection: the app calls ``tick``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
import traceback
from dataclasses import dataclass, field
from typing import Callable, Mapping, Protocol, Union

from eg_launcher import wire
from eg_launcher.doorway import Doorway
from eg_launcher.handshake import switching_protocols
from eg_launcher.http1 import Head, HttpError, Response, parse_head
from eg_launcher.sockets import Receiver, WebSocket

MAX_CONNECTIONS = 10_000
MAX_UNAUTHENTICATED = 100
TURN = 0.25  # seconds in which nobody has to make room for others, who wait in the backlog
REQUEST_TIMEOUT = 30.0
LINGER = 2.0
_ACCEPTS_A_TURN = 64
_MAX_EVENT_MESSAGE = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upgrade:
    """The answer that turns a connection into a WebSocket; ``open`` is called once the 101 is written."""

    open: Callable[[WebSocket], Receiver]
    subprotocol: str | None = None
    max_message: int = _MAX_EVENT_MESSAGE
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Union[Response, Upgrade]


class Service(Protocol):
    """What the server asks for each request."""

    def check(self, head: Head) -> None:
        """Raise HttpError when this request is not to be served; called before its body is read."""

    async def respond(self, head: Head, body: bytes) -> Answer:
        """Answer it. An HttpError is told to the client; anything else becomes a 500 without details."""


class Server:
    def __init__(self, service: Service, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self.service = service
        self.loop = asyncio.get_running_loop()
        self._ssl = ssl_context
        self._doorway = Doorway(self.loop, self._accept)
        self.called_at = 0.0
        """When somebody connected last, whoever it was; the loop's clock."""
        self._closed: asyncio.Future[None] | None = None
        self._unauthenticated: dict[HttpConnection, None] = {}
        self._authenticated: set[HttpConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many peers that have shown a token are connected."""
        return len(self._authenticated)

    def listen(self, listener: socket.socket) -> None:
        """Serve a bound, listening socket. It stays its maker's."""
        self._doorway.add(listener)

    def stop_listening(self) -> None:
        """Accept nobody any more; who is connected stays."""
        self._doorway.close()

    def tick(self) -> None:
        """End what is over its deadline. To be called every second or so."""
        now = self.loop.time()
        for connection in [*self._unauthenticated, *self._authenticated]:
            connection.tick(now)
        self._doorway.go_on()

    async def close(self, grace: float = 1.0) -> None:
        """Stop accepting, let what is being written go out for ``grace`` seconds, then cut."""
        self.stop_listening()
        for connection in [*self._unauthenticated, *self._authenticated]:
            connection.leave()
        self._closed = self.loop.create_future()
        self._tell_closed()
        await asyncio.wait([self._closed], timeout=grace)
        for connection in [*self._unauthenticated, *self._authenticated]:
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- for connections ------------------------------------------------------------------------------------

    def authenticated(self, connection: HttpConnection) -> None:
        if connection in self._unauthenticated:
            del self._unauthenticated[connection]
            self._authenticated.add(connection)

    def knows(self, connection: HttpConnection) -> bool:
        return connection in self._unauthenticated or connection in self._authenticated

    def forget(self, connection: HttpConnection) -> None:
        self._unauthenticated.pop(connection, None)
        self._authenticated.discard(connection)
        self._tell_closed()

    def _tell_closed(self) -> None:
        waits = self._closed is not None and not self._closed.done()
        if waits and self._closed is not None and not self._unauthenticated and not self._authenticated:
            self._closed.set_result(None)

    def run(self, connection: HttpConnection, head: Head, body: bytes) -> None:
        """Have a request answered. It goes on when its client leaves: half a start would be worse than a whole."""
        self._keep(self.loop.create_task(self._answer(connection, head, body)))

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, connection: HttpConnection, head: Head, body: bytes) -> None:
        try:
            answer = await self.service.respond(head, body)
        except HttpError as error:
            answer = error.response()
        except Exception:
            log.exception("%s /%s failed", head.method, "/".join(head.path))
            answer = HttpError(500, "internal", "The launcher failed; its log has the details.").response()
        connection.answer(head, answer)

    # -- accepting ------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if self._crowded():
                self._doorway.rest()
                self.loop.call_later(0.01, self._doorway.go_on)
                return
            try:
                sock, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors, most likely: epoll would only spin
                log.warning("cannot accept a connection: %s", error)
                self._doorway.rest()
                return
            sock.setblocking(False)
            self.called_at = self.loop.time()
            if len(self._unauthenticated) + len(self._authenticated) >= MAX_CONNECTIONS:
                sock.close()
                continue
            if len(self._unauthenticated) >= MAX_UNAUTHENTICATED:
                next(iter(self._unauthenticated)).abort()
            connection = HttpConnection(self)
            self._unauthenticated[connection] = None
            connection.task = self._keep(self.loop.create_task(self._adopt(connection, sock)))
            connection.task.add_done_callback(functools.partial(_disown, connection, sock))

    def _crowded(self) -> bool:
        oldest = next(iter(self._unauthenticated), None)
        young = oldest is not None and self.loop.time() - oldest.since < TURN
        return young and len(self._unauthenticated) >= MAX_UNAUTHENTICATED

    async def _adopt(self, connection: HttpConnection, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.adopted = True  # from here on asyncio owns the socket
        timeout = REQUEST_TIMEOUT if self._ssl is not None else None
        try:
            await self.loop.connect_accepted_socket(
                lambda: connection, sock, ssl=self._ssl, ssl_handshake_timeout=timeout
            )
        except (OSError, asyncio.TimeoutError) as error:  # ssl.SSLError is an OSError
            log.debug("a connection ended in its handshake: %s", error)
            traceback.clear_frames(error.__traceback__)  # they and the error hold each other, and the handshake
            self.forget(connection)


class HttpConnection(asyncio.Protocol):
    """One accepted connection: requests one after the other, until one of them is an upgrade."""

    def __init__(self, server: Server) -> None:
        self.task: asyncio.Task[None] | None = None  # while it is being accepted
        self.adopted = False
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._scanned = 0
        self._head: Head | None = None
        self._websocket: WebSocket | None = None
        self._busy = False  # a request is being answered
        self._blocked = False  # the answer before does not go out
        self._ending = False  # nothing more is read
        self.since = server.loop.time()
        self._deadline: float | None = self.since + REQUEST_TIMEOUT

    # -- asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.task = None
        if not self._server.knows(self):  # it had to make room meanwhile
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._websocket.data_received(data)
        elif not self._ending:
            self._buffer += data
            self._advance()

    def eof_received(self) -> bool:
        """Keep a half-closed plain connection until its request is answered; a WebSocket's end is its end."""
        assert self._transport is not None
        if self._websocket is None and self._busy and self._transport.can_write_eof():
            self._ending = True
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending = True
        self._buffer.clear()
        self._server.forget(self)
        if self._transport is not None:
            self._transport.close()  # Python 3.9 complains of a TLS transport that only its peer has closed
        if self._websocket is not None:
            self._websocket.lost()

    def pause_writing(self) -> None:
        self._blocked = True
        if self._websocket is not None:
            self._websocket.pause_writing()

    def resume_writing(self) -> None:
        self._blocked = False
        if self._websocket is not None:
            self._websocket.resume_writing()
        else:
            self._advance()

    # -- the server -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        if self._websocket is not None:
            if self._websocket.deadline is not None and now > self._websocket.deadline:
                self.abort()
        elif self._deadline is None or now <= self._deadline:
            return
        elif self._ending or self._blocked or not (self._buffer or self._head):
            self.abort()  # it lingered, does not read its answer, or is idle
        else:
            self._refuse(HttpError(408, "too_slow", f"A request must arrive within {REQUEST_TIMEOUT:.0f} s."))

    def leave(self) -> None:
        """End soon: say goodbye on a WebSocket, finish an answer, drop what is idle."""
        if self._websocket is not None:
            self._websocket.close(1001, "The launcher ends.")
        elif self._busy:
            self._ending = True
        elif self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._server.forget(self)
        if self._transport is not None:
            self._transport.abort()
        elif self.task is not None:
            task, self.task = self.task, None  # its traceback holds half a handshake, and would be held by it
            task.cancel()

    def answer(self, head: Head, answer: Answer) -> None:
        """The service's answer to the request that was handed to it."""
        assert self._transport is not None
        self._busy = False
        if self._transport.is_closing():
            if isinstance(answer, Upgrade):
                log.debug("a client left before its upgrade")
            return
        if isinstance(answer, Upgrade):
            self._upgrade(head, answer)
            return
        keep_alive = head.keep_alive and not self._ending
        self._deadline = self._server.loop.time() + REQUEST_TIMEOUT
        self._transport.write(answer.encode(keep_alive=keep_alive))
        if keep_alive:
            self._transport.resume_reading()
            self._advance()
        else:
            self._ending = True
            self._transport.close()  # once all is written

    # -- inside ---------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Hand over the next request if it is complete. Called whenever one of its conditions may have changed."""
        try:
            while not (self._busy or self._blocked or self._ending or self._websocket is not None):
                if not self._next_request():
                    return
        except HttpError as error:
            self._refuse(error)
            return
        if self._busy and len(self._buffer) > wire.MAX_HEAD and self._transport is not None:
            self._transport.pause_reading()  # pipelined requests wait in the peer

    def _next_request(self) -> bool:
        if self._head is None and not self._read_head():
            return False
        head = self._head
        assert head is not None
        if len(self._buffer) < head.length:
            return False
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        self._head = None
        self._busy = True
        self._deadline = None
        self._server.run(self, head, body)
        return True

    def _read_head(self) -> bool:
        buffer = self._buffer
        while buffer[:2] == b"\r\n":  # clients of old send one behind a body
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end > wire.MAX_HEAD or (end < 0 and len(buffer) > wire.MAX_HEAD):
            raise HttpError(431, "head_too_large", f"Request line and headers are longer than {wire.MAX_HEAD} bytes.")
        if end < 0:
            self._scanned = len(buffer)
            return False
        head = parse_head(bytes(buffer[:end]))
        del buffer[: end + 4]
        self._scanned = 0
        self._server.service.check(head)
        self._server.authenticated(self)
        self._head = head
        self._deadline = self._server.loop.time() + REQUEST_TIMEOUT
        if head.length and head.headers.get("expect", "").lower() == "100-continue":
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _refuse(self, error: HttpError) -> None:
        assert self._transport is not None
        self._transport.write(error.response().encode(keep_alive=False))
        self._linger()

    def _linger(self) -> None:
        """End the connection, but let the peer read its answer first: closing at once, with bytes unread, would reset
        it."""
        assert self._transport is not None
        self._ending = True
        self._head = None
        self._buffer.clear()
        self._deadline = self._server.loop.time() + LINGER
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _upgrade(self, head: Head, upgrade: Upgrade) -> None:
        assert self._transport is not None
        self._transport.write(switching_protocols(head, upgrade.subprotocol, upgrade.headers))
        self._deadline = None
        self._websocket = websocket = WebSocket(
            self._transport,
            self._server.loop,
            subprotocol=upgrade.subprotocol,
            max_message=upgrade.max_message,
        )
        data = bytes(self._buffer)
        self._buffer.clear()
        self._transport.resume_reading()
        try:
            websocket.start(upgrade.open(websocket), data)
        except Exception:
            log.exception("a WebSocket could not be opened")
            websocket.close(1011, "The launcher failed; its log has the details.")


def _disown(connection: HttpConnection, sock: socket.socket, task: asyncio.Task[None]) -> None:
    if not connection.adopted:  # it had to make room before its task began
        sock.close()
