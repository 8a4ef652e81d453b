"""``/api/kernels/{id}/channels``: the upgrade, answered at once, and a client's way from held to spliced to closed.

The handler's part ends with the 101; from then on a ``ClientSocket`` owns the connection. It holds while the kernel has
no launcher to talk to, splices as soon as it has one, and says why in a Close frame when there is nothing to come back
to. Codes: 1012 where the client shall come back, 4xxx where it shall not, never 1000 or 1001 of a living kernel.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import socket
import uuid
from typing import TYPE_CHECKING, Any

from eg_core.errors import GatewayError, InvalidRequest, KernelGone
from eg_core.handlers import hold
from eg_core.handlers.base import GatewayHandler
from eg_core.handlers.hold import Hold
from eg_core.handlers.leg import Switchboard
from eg_core.handlers.splice import Splice, take_socket
from eg_core.kernels.states import KernelState
from eg_core.launchers.client import LauncherError
from eg_launcher import wire
from eg_launcher.websocket import accept_key

if TYPE_CHECKING:
    from tornado.httputil import HTTPHeaders

    from eg_core.kernels.kernel import Kernel
    from eg_core.launchers.client import ChannelsLink

MAX_SESSION_ID = 256
"""Characters; the launcher takes no more."""
RETRY_FIRST = 0.1
RETRY_MOST = 5.0
VERDICT_EVERY = 0.25
VERDICT_WITHIN = 3.0
"""Seconds in which the registry says whether a kernel whose launcher's leg was lost is dead."""

RELINK_WITHIN = 8.0
"""Seconds for which a client is kept while a leg to its living launcher is made again."""

_OVER = (KernelState.DEAD, KernelState.ENDING)


class ChannelsHandler(GatewayHandler):
    foreign_origin = 403

    async def get(self, kernel_id: str) -> None:
        kernel = self.registry.kernel(kernel_id.lower())
        session_id = self.get_query_argument("session_id", "")
        if len(session_id) > MAX_SESSION_ID:
            raise InvalidRequest(f"'session_id' has {len(session_id)} characters; the most are {MAX_SESSION_ID}.")
        if kernel.state in _OVER:
            raise KernelGone(kernel.failure)
        headers = self.request.headers
        if not self._is_upgrade(headers):
            return
        offered = _offered(headers)
        subprotocol = wire.V1_SUBPROTOCOL if wire.V1_SUBPROTOCOL in offered else None
        query = self._query(peer_class(headers, offered, says_after=bool(self.get_query_argument("after", ""))))
        client = ClientSocket(switchboard(self.settings), kernel, query=query, subprotocol=subprotocol, log=self.log)
        answer = _answer(headers["Sec-WebSocket-Key"], subprotocol)
        self.set_status(101)
        self.application.log_request(self)  # finish(), which does it for the others, never runs
        taken = take_socket(self.detach())
        if taken is not None:
            client.start(*taken, answer)

    def _query(self, peer: str) -> dict[str, str]:
        """What the launcher is told of this client. Raises InvalidRequest."""
        query = {"peer": peer, "link": uuid.uuid4().hex}
        query |= {name: said for name in ("session_id", "after", "skip") if (said := self.get_query_argument(name, ""))}
        if "after" in query and not wire.AFTER.match(query["after"]):
            raise InvalidRequest("after must be EPOCH.NUMBER or EPOCH.NUMBER.SERIAL, as a ping of this kernel told it.")
        if "skip" in query and not wire.SKIP.match(query["skip"]):
            raise InvalidRequest("skip must be a number of frames, of at most 6 digits.")
        return query

    def _is_upgrade(self, headers: HTTPHeaders) -> bool:
        """Whether the request is a WebSocket's; if not, it has been refused in words."""
        connection = {item.strip().lower() for item in headers.get("Connection", "").split(",")}
        if self.request.version != "HTTP/1.1":
            self._refuse(400, f"A WebSocket begins with HTTP/1.1, not with {self.request.version}.")
            return False
        if headers.get("Upgrade", "").strip().lower() != "websocket" or "upgrade" not in connection:
            self.set_header("Upgrade", "websocket")
            self._refuse(426, "This is a WebSocket: the request needs 'Connection: Upgrade' and 'Upgrade: websocket'.")
            return False
        version = headers.get("Sec-WebSocket-Version", "")
        if version != "13":
            self.set_header("Sec-WebSocket-Version", "13")
            self._refuse(426, f"Sec-WebSocket-Version is {version[:20]!r}; only 13 is spoken here.")
            return False
        key = headers.get("Sec-WebSocket-Key", "")
        try:
            valid = len(base64.b64decode(key, validate=True)) == 16
        except (binascii.Error, ValueError):
            valid = False
        if not valid:
            self._refuse(400, "Sec-WebSocket-Key must be 16 bytes in base64.")
        return valid

    def _refuse(self, code: int, words: str) -> None:
        self.write_json({"reason": "Not a WebSocket handshake", "message": words}, code)


def switchboard(settings: dict[str, Any]) -> Switchboard:
    """The application's, made with its first channels."""
    board = settings.get("switchboard")
    if not isinstance(board, Switchboard):
        board = settings["switchboard"] = Switchboard()
    return board


def peer_class(headers: HTTPHeaders, offered: list[str], *, says_after: bool) -> str:
    """Who reads what the launcher sends, and so what a pong proves (``eg_launcher.wire.PEERS``)."""
    if says_after:
        return wire.PEER_EXACT
    if "Origin" in headers:
        return wire.PEER_WEAK
    if not headers.get("User-Agent", "").startswith("Tornado/"):
        return wire.PEER_STRONG
    return wire.PEER_WEAK if offered else wire.PEER_GWCLIENT


def _offered(headers: HTTPHeaders) -> list[str]:
    return [item.strip() for item in headers.get("Sec-WebSocket-Protocol", "").split(",") if item.strip()]


def _answer(key: str, subprotocol: str | None) -> bytes:
    """The 101. No extension is ever agreed on, so their header is left out."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",  # tornado's client compares the whole value
        f"Sec-WebSocket-Accept: {accept_key(key)}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class ClientSocket:
    """One client's channels; the registry knows it as ``kernel.sockets``."""

    __slots__ = ("__weakref__", "_board", "_hold", "_kernel", "_linking", "_log", "_query",
                 "_splice", "_subprotocol", "_waited")  # fmt: skip

    def __init__(
        self,
        board: Switchboard,
        kernel: Kernel,
        *,
        query: dict[str, str],
        subprotocol: str | None,
        log: logging.Logger,
    ) -> None:
        self._board = board
        self._kernel = kernel
        self._query = query
        self._subprotocol = subprotocol
        self._log = log
        self._hold: Hold | None = None
        self._splice: Splice | None = None
        self._linking: asyncio.Task[None] | None = None
        self._waited = 0.0

    def start(self, sock: socket.socket, ahead: bytes, answer: bytes) -> None:
        """Take the socket, say the 101, and hold until there is a launcher."""
        self._hold = Hold(self._board, sock, self)
        self._kernel.sockets.add(self)
        words = answer
        if self._kernel.session is None and self._kernel.state is not KernelState.READY:
            words += hold.status("starting", session=self._session, subprotocol=self._subprotocol)
        self._linking = asyncio.create_task(self._link(), name=f"channels of kernel {self._kernel.id}")
        self._hold.start(ahead, words)

    @property
    def traffic(self) -> int:
        return self._splice.traffic if self._splice is not None else 0

    def close(self, code: int, reason: str) -> None:
        """The kernel is no more, or the gateway goes: tell the client, with what ends its requests."""
        if self._splice is not None:
            if self._waited:
                self._verdict(code, reason)
            else:
                # A launcher that lives says the last words itself, and they pass before the Close.
                self._splice.close(code, reason, self._last_words(reason) if code == wire.CLOSE_LAUNCHER_LOST else b"")
        elif self._hold is not None:
            words = b""
            if code >= wire.CLOSE_LAUNCH_FAILED:
                asked = hold.asked_in(self._hold.held(), self._subprotocol)
                words = hold.obituary(
                    asked, "KernelNotStarted", reason, session=self._session, subprotocol=self._subprotocol
                )
            self._hold.finish(words, code, reason)
            self.ended()

    def ended(self) -> None:
        """Called by hold and splice when there is no client any more."""
        linking, self._linking = self._linking, None
        if linking is not None and linking is not asyncio.current_task():
            linking.cancel()
        self._hold = self._splice = None
        self._kernel.sockets.discard(self)

    @property
    def _session(self) -> str:
        """The kernel's own, or one for all that is said in the name of a kernel that never spoke."""
        return self._kernel.session or self._kernel.id

    @property
    def _client(self) -> str:
        """Its name with the launcher."""
        return self._query.get("session_id") or f"link-{self._query['link']}"

    # -- from held to spliced --------------------------------------------------------------------------------

    async def _link(self) -> None:
        try:
            linked = await self._launcher_leg()
        except Exception:  # noqa: BLE001 - a client must not hang on a mistake of ours
            self._log.exception("channels of kernel %s", self._kernel.id)
            self.close(wire.CLOSE_RESTART, "Internal error; connect again.")
            return
        if linked is None:
            died = self._kernel.session is not None
            self.close(wire.CLOSE_KERNEL_DIED if died else wire.CLOSE_LAUNCH_FAILED, self._kernel.failure)
            return
        sock, ahead, _ = linked
        holding, self._hold, self._linking = self._hold, None, None
        if holding is None:  # the client left in this very moment
            sock.close()
            return
        self._splice = Splice(self._board, holding.release(), sock, self)
        self._splice.start(from_client=holding.held(), from_launcher=ahead)

    async def _launcher_leg(self) -> ChannelsLink | None:
        """Ask for the launcher's side until there is one; None when the kernel is no more."""
        delay = RETRY_FIRST
        while True:
            await self._kernel.settled()
            if self._kernel.state in _OVER:
                return None
            began = self._board.loop.time()
            try:
                link = await self._kernel.open_channels(query=self._query, subprotocol=self._subprotocol)
                self._board.metrics.linked("first", self._board.loop.time() - began)
                return link
            except (GatewayError, OSError) as error:
                self._log.info("channels of kernel %s, again in %.1f s: %s", self._kernel.id, delay, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)

    # -- a lost launcher -------------------------------------------------------------------------------------

    def launcher_lost(self) -> None:
        """Link again, exactly where it ended; meanwhile the registry may learn that there is nothing to link to."""
        self._log.info("channels of kernel %s: the launcher's side was lost", self._kernel.id)
        self._waited = VERDICT_EVERY
        self._board.timers.after(VERDICT_EVERY, self._await_verdict)
        if self._splice is not None and (at := self._splice.resume_at()) is not None:
            self._linking = asyncio.create_task(
                self._relink(self._splice, at), name=f"channels of kernel {self._kernel.id}, again"
            )

    async def _relink(self, splice: Splice, at: dict[str, str]) -> None:
        query = {name: said for name, said in self._query.items() if name not in ("after", "skip")} | at
        delay, began = RETRY_FIRST, self._board.loop.time()
        while self._splice is splice and self._kernel.state not in _OVER:
            try:
                link = await self._kernel.open_channels(query=query, subprotocol=self._subprotocol)
            except LauncherError as error:
                self._log.info("channels of kernel %s cannot go on: %s", self._kernel.id, error)
                break
            except (GatewayError, OSError) as error:
                self._log.debug("channels of kernel %s: %s", self._kernel.id, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)
                continue
            if splice.relink(*link):
                self._board.metrics.linked("again", self._board.loop.time() - began)
                self._log.info("channels of kernel %s go on", self._kernel.id)
                self._waited = 0.0
                self._linking = None
                return
            break
        self._linking = None

    def _await_verdict(self) -> None:
        if self._splice is None or not self._waited:
            return
        if self._kernel.state in _OVER:
            self._verdict(wire.CLOSE_KERNEL_DIED, self._kernel.failure)
        elif self._waited >= (RELINK_WITHIN if self._linking is not None else VERDICT_WITHIN):
            self._verdict(wire.CLOSE_RESTART, "The connection to the kernel was lost; connect again.")
        else:
            self._waited += VERDICT_EVERY
            self._board.timers.after(VERDICT_EVERY, self._await_verdict)

    def _verdict(self, code: int, reason: str) -> None:
        if self._splice is None:
            return
        words = self._last_words(reason) if code >= wire.CLOSE_LAUNCH_FAILED else b""
        self._splice.finish(code, reason, words=words)

    def _last_words(self, why: str) -> bytes:
        """What a launcher that is gone cannot say any more: the ends of this client's requests."""
        asked = [*hold.waiting(self._kernel.description.get("waiting"), self._client)]
        if self._splice is not None:
            asked += hold.asked_in([self._splice.unread], self._subprotocol)
        return hold.obituary(asked, "KernelDied", why, session=self._session, subprotocol=self._subprotocol)
