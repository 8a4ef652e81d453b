"""The table of calls, as data, and their thin handlers: from a request to a method of ``app.Launcher`` and back.

Contract: ``docs/developers/launcher-protocol.md``. A handler reads and checks fields and says the answer's status; what
happens is the launcher's business.
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Mapping

from eg_launcher import __version__, wire
from eg_launcher.channels import Channel
from eg_launcher.command import check_start
from eg_launcher.conversation import After, NotResumable
from eg_launcher.handshake import check_upgrade
from eg_launcher.http1 import Head, HttpError, Response
from eg_launcher.kernels import KernelError
from eg_launcher.server import Answer, Upgrade
from eg_launcher.spawner import SpawnError

if TYPE_CHECKING:
    from eg_launcher.app import Launcher

DEFAULT_GRACE = 5.0
MAX_GRACE = 3600.0
MAX_WHY = 1000
_KERNEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LINK = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_MAX_SESSION_ID = 256
_MAX_OFFSET = 2**63


@dataclass(frozen=True)
class Call:
    """One checked request."""

    launcher: Launcher
    kernel_id: str
    query: dict[str, str] = field(repr=False)
    body: dict[str, Any] = field(repr=False)
    head: Head = field(repr=False)


@dataclass(frozen=True)
class Route:
    method: str
    path: tuple[str, ...]
    handler: Callable[[Call], Awaitable[Answer]]
    websocket: bool = False

    def match(self, path: tuple[str, ...]) -> bool:
        return len(path) == len(self.path) and all(want in ("*", have) for want, have in zip(self.path, path))


async def index(call: Call) -> Answer:
    return Response.of_text(
        f"eg-launcher {__version__}: runs beside a Jupyter kernel and serves its channels.\n"
        f"Kernels are at /kernels, a kernel's WebSocket is at /kernels/ID/channels (also below /api).\n"
    )


async def status(call: Call) -> Answer:
    return Response.of_json(call.launcher.status(told=True))


async def models(call: Call) -> Answer:
    return Response.of_json([kernel.model() for kernel in call.launcher.kernels.values()])


async def model(call: Call) -> Answer:
    return Response.of_json(call.launcher.kernel(call.kernel_id).model())


async def start(call: Call) -> Answer:
    if not _KERNEL_ID.match(call.kernel_id):
        raise HttpError(400, "bad_request", "A kernel's id is made of at most 64 letters, digits, '-', '_' and '.'.")
    try:
        kernel, created = await call.launcher.start(call.kernel_id, check_start(call.body))
    except ValueError as error:
        raise HttpError(400, "bad_request", str(error)) from None
    return Response.of_json(kernel.describe(), 202 if created else 200)


async def interrupt(call: Call) -> Answer:
    await call.launcher.kernel(call.kernel_id).interrupt()
    return Response(204)


async def restart(call: Call) -> Answer:
    kernel = await call.launcher.restart(call.kernel_id)
    return Response.of_json(kernel.describe(), 202)


async def shutdown(call: Call) -> Answer:
    grace = call.body.get("grace", DEFAULT_GRACE)
    if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace <= MAX_GRACE:
        raise HttpError(400, "bad_request", f"grace must be a number of seconds from 0 to {MAX_GRACE:.0f}.")
    why = call.body.get("message")
    if why is not None and (not isinstance(why, str) or len(why) > MAX_WHY):
        raise HttpError(400, "bad_request", f"message must be text of at most {MAX_WHY} characters.")
    call.launcher.shutdown(call.kernel_id, float(grace), why or None)
    return Response.of_json({}, 202)


async def read_log(call: Call) -> Answer:
    after = call.query.get("after", "0")
    if not re.match(r"[0-9]{1,19}\Z", after) or int(after) >= _MAX_OFFSET:
        raise HttpError(400, "bad_request", "after must be an offset in bytes, as told in 'next'.")
    return Response.of_json(call.launcher.kernel(call.kernel_id).output.read(int(after)))


async def outputs(call: Call) -> Answer:
    parent, cell = call.query.get("parent"), call.query.get("cell")
    if bool(parent) is bool(cell):
        raise HttpError(400, "bad_request", "Name a request by 'parent', its msg_id, or a notebook's cell by 'cell'.")
    told = call.launcher.kernel(call.kernel_id).outputs(parent=parent, cell=cell)
    if told is None:
        raise HttpError(404, "no_such_request", "Nothing is known of such a request; it may be too long ago.")
    return Response.of_json(told)


async def events(call: Call) -> Answer:
    return Upgrade(call.launcher.feed.subscribe)


async def channels(call: Call) -> Answer:
    kernel = call.launcher.kernel(call.kernel_id)
    peer = call.query.get("peer", wire.PEER_WEAK)
    if peer not in wire.PEERS:
        raise HttpError(400, "bad_request", f"peer must be one of {', '.join(wire.PEERS)}.")
    session_id = call.query.get("session_id") or None
    if session_id is not None and len(session_id) > _MAX_SESSION_ID:
        raise HttpError(400, "bad_request", f"session_id is longer than {_MAX_SESSION_ID} characters.")
    link = call.query.get("link") or None
    if link is not None and not _LINK.match(link):
        raise HttpError(400, "bad_request", "link must be made of at most 64 letters, digits and '-'.")
    try:
        opening = kernel.opening(session_id=session_id, link=link, after=_after(call.query))
    except NotResumable as error:
        raise HttpError(409, "not_resumable", str(error)) from None
    offered = call.head.lists("sec-websocket-protocol")
    return Upgrade(
        lambda websocket: Channel(kernel, websocket, peer=peer, opening=opening),
        subprotocol=wire.V1_SUBPROTOCOL if wire.V1_SUBPROTOCOL in offered else None,
        max_message=wire.MAX_MESSAGE,
        headers={wire.RECEIVED_HEADER: str(opening.left.received if opening.left is not None else 0)},
    )


def _after(query: Mapping[str, str]) -> After | None:
    """``after=EPOCH.NUMBER[.SERIAL]&skip=FRAMES``."""
    said = query.get("after", "")
    if not said:
        return None
    found = wire.AFTER.match(said)
    skip = query.get("skip", "0")
    if found is None or not wire.SKIP.match(skip):
        raise HttpError(400, "bad_request", "after must be EPOCH.NUMBER or EPOCH.NUMBER.SERIAL, and skip a number.")
    epoch, number, serial = found.groups()
    return After(epoch, int(number), int(serial or 0), int(skip))


ROUTES = (
    Route("GET", (), index),
    Route("GET", ("status",), status),
    Route("GET", ("events",), events, websocket=True),
    Route("GET", ("kernels",), models),
    Route("GET", ("kernels", "*"), model),
    Route("POST", ("kernels", "*", "start"), start),
    Route("POST", ("kernels", "*", "interrupt"), interrupt),
    Route("POST", ("kernels", "*", "restart"), restart),
    Route("POST", ("kernels", "*", "shutdown"), shutdown),
    Route("GET", ("kernels", "*", "log"), read_log),
    Route("GET", ("kernels", "*", "outputs"), outputs),
    Route("GET", ("kernels", "*", "channels"), channels, websocket=True),
)


class Router:
    """The server's service: who may ask, what there is, and what a failure is called."""

    def __init__(self, launcher: Launcher, token: str) -> None:
        self._launcher = launcher
        self._token = token.encode()

    def check(self, head: Head) -> None:
        if not hmac.compare_digest(_token(head).encode("utf-8", "replace"), self._token):
            headers = {"WWW-Authenticate": "Bearer"}
            raise HttpError(401, "unauthorized", "The token is missing or wrong.", headers=headers)
        self._launcher.lease.renew()
        _check_protocol(head)
        route = _find(head)
        if route.websocket:
            check_upgrade(head)

    async def respond(self, head: Head, body: bytes) -> Answer:
        route = _find(head)
        path = _path(head)
        kernel_id = path[1] if len(path) > 1 else ""
        call = Call(self._launcher, kernel_id, head.query, _json_object(body), head)
        try:
            return await route.handler(call)
        except KernelError as error:
            raise HttpError(error.status, error.reason, str(error)) from None
        except SpawnError as error:
            raise HttpError(500, error.reason, str(error)) from None


def _token(head: Head) -> str:
    scheme, _, token = head.headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token"):
        return token.strip()
    return head.query.get("token", "")


def _check_protocol(head: Head) -> None:
    said = head.headers.get(wire.PROTOCOL_HEADER.lower(), "1")
    if said not in [str(version) for version in wire.SUPPORTED_PROTOCOLS]:
        spoken = " and ".join(str(version) for version in wire.SUPPORTED_PROTOCOLS)
        message = f"This launcher (version {__version__}) speaks protocol {spoken}, not {said[:20]}."
        raise HttpError(426, "protocol", message, more={"protocol": list(wire.SUPPORTED_PROTOCOLS)})


def _path(head: Head) -> tuple[str, ...]:
    return head.path[1:] if head.path[:1] == ("api",) else head.path


def _find(head: Head) -> Route:
    found = [route for route in ROUTES if route.match(_path(head))]
    for route in found:
        if route.method == head.method:
            return route
    if not found:
        raise HttpError(404, "not_found", "There is no such address here.")
    allowed = ", ".join(sorted({route.method for route in found}))
    raise HttpError(405, "method", f"Use {allowed} here.", headers={"Allow": allowed})


def _json_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise HttpError(400, "bad_request", "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise HttpError(400, "bad_request", "The body must be a JSON object.")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(name)
