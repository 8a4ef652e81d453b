"""A kernel's four ZMQ sockets on the event loop: raw messages in, raw messages out.

Plain ``zmq.Socket``s, their FD watched by the loop. The FD is edge-triggered, so a wake-up drains until there is
nothing left or a budget is used up (then it goes on in the next turn, and others get theirs), and EVENTS is looked at
again after every send. The SUB socket has no high-water mark and is always drained: a kernel drops what is
queued beyond its own. Signatures are verified here, and the header is parsed here, once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import repeat
from typing import Any, Callable, Mapping, Sequence

import zmq

from eg_launcher.signing import Signer

DELIMITER = b"<IDS|MSG>"
CHANNELS = ("iopub", "shell", "control", "stdin")
CLIENT_CHANNELS = ("shell", "control", "stdin")
_BARE_FRAMES = 6
"""The least that a message can have: delimiter, signature, four parts; anything before the delimiter comes on top."""
BUDGET_MESSAGES = 64
BUDGET_BYTES = 1024 * 1024
_SEND_HWM = 1000
_DONTWAIT = int(zmq.DONTWAIT)
_DECODER = json.JSONDecoder()
_MAX_SOCKETS = 16_384

logger = logging.getLogger(__name__)

Received = Callable[[str, "dict[str, Any]", "list[bytes]"], None]


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context with room for thousands of kernels (libzmq's own limit is 1023 sockets)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, min(_MAX_SOCKETS, int(context.get(zmq.SOCKET_LIMIT))))
    return context


class Relay:
    """``received(channel, header, parts)`` for each message; ``flush()`` once after each wake-up's worth.

    ``writable(channel)`` is called when a channel whose ``send`` said False takes messages again.
    ``patient``: reconnect calmly (a kernel that runs elsewhere), not every few milliseconds (one that starts now).
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        urls: Mapping[str, str],
        signer: Signer,
        *,
        identity: bytes,
        patient: bool,
        received: Received,
        flush: Callable[[], None],
        writable: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._signer = signer
        self._received = received
        self._flush = flush
        self._writable = writable
        self._blocked: set[str] = set()
        self._scheduled: set[str] = set()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self.dropped = 0
        try:
            for channel in CHANNELS:
                self._open(context, channel, urls[channel], identity, patient)
        except BaseException:
            self.close()
            raise

    def _open(
        self, context: zmq.Context[zmq.Socket[bytes]], channel: str, url: str, identity: bytes, patient: bool
    ) -> None:
        socket = context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
        self._sockets[channel] = socket
        socket.linger = 0
        socket.rcvhwm = 0
        socket.sndhwm = _SEND_HWM
        socket.setsockopt(zmq.RECONNECT_IVL, 100 if patient else 2)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000 if patient else 16)
        if channel == "iopub":
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            socket.setsockopt(zmq.ROUTING_ID, identity)  # input_request comes to the identity that asked on shell
        socket.ipv6 = "[" in url
        socket.connect(url)
        self._loop.add_reader(socket.FD, self._drain, channel)
        self._later(channel)

    def send(self, channel: str, parts: Sequence[bytes]) -> bool:
        """Sign and send. False when the channel takes no more now."""
        socket = self._sockets.get(channel)
        if socket is None:
            return True  # closed: nobody is there to receive it, and whoever waits has been told so
        try:
            socket.send_multipart([DELIMITER, self._signer.sign(parts), *parts], zmq.DONTWAIT)
        except zmq.Again:
            self._blocked.add(channel)
            return False
        finally:
            if _events(socket) & zmq.POLLIN:
                self._later(channel)
        return True

    def drain(self) -> int:
        """Take what is there now, a wake-up's worth of each channel; how many messages that was."""
        taken = sum(self._take(channel)[0] for channel in CHANNELS if channel in self._sockets)
        self._flush()
        return taken

    def close(self) -> None:
        sockets, self._sockets = self._sockets, {}
        for socket in sockets.values():
            try:
                self._loop.remove_reader(socket.FD)
            except (zmq.ZMQError, ValueError):
                pass  # it never got that far
            socket.close(linger=0)

    def _later(self, channel: str) -> None:
        if channel not in self._scheduled:
            self._scheduled.add(channel)
            self._loop.call_soon(self._again, channel)

    def _again(self, channel: str) -> None:
        self._scheduled.discard(channel)
        self._drain(channel)

    def _drain(self, channel: str) -> None:
        if channel not in self._sockets:
            return
        count, more = self._take(channel)
        if more:
            self._later(channel)
        if count:
            self._flush()
        socket = self._sockets.get(channel)
        if channel in self._blocked and socket is not None and _events(socket) & zmq.POLLOUT:
            self._blocked.discard(channel)
            self._writable(channel)

    def _take(self, channel: str) -> tuple[int, bool]:
        """Receive up to the budget: how many, and whether there may be more."""
        at_least = _BARE_FRAMES if self._signer.signs else 1
        size = 0
        for count in range(BUDGET_MESSAGES):
            frames: list[bytes] = []
            try:
                _receive(self._sockets[channel], frames, at_least=at_least)
            except zmq.Again:
                if frames:  # too short to be a message
                    self._one(channel, frames)
                return count, False
            except zmq.ZMQError as error:  # the context was terminated under us
                logger.debug("reading %s: %s", channel, error)
                return count, False
            size += self._one(channel, frames)
            if size > BUDGET_BYTES or channel not in self._sockets:
                return count + 1, channel in self._sockets
        return BUDGET_MESSAGES, True

    def _one(self, channel: str, frames: list[bytes]) -> int:
        try:
            header, parts = self._open_message(frames)
        except (ValueError, RecursionError) as error:
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                logger.warning("dropped a message on %s (%d so far): %s", channel, self.dropped, error)
            following = _behind_delimiter(frames)
            return self._one(channel, following) if DELIMITER in following else 0
        self._received(channel, header, parts)
        return sum(map(len, parts))

    def _open_message(self, frames: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Header and parts. ValueError says what is wrong with them."""
        at = frames.index(DELIMITER)
        parts = frames[at + 2 :]
        if len(parts) < 4 or not self._signer.verify(frames[at + 1], parts):
            raise ValueError("its signature is wrong, or parts are missing")
        header = _parse(str(parts[0], "utf-8"))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        return header, parts


def _receive(socket: zmq.Socket[bytes], frames: list[bytes], *, at_least: int) -> None:
    """Append one message's frames, which are ``at_least`` so many, and what stands before a delimiter.

    Only a ``zmq.Frame`` knows whether more follow, and it costs four times what plain bytes do; so it is asked for
    where a message may end, not before. A shorter message comes in one list with the next; the signature tells, and
    ``_one`` then looks for the next one behind it.
    """
    receive = socket.recv
    if at_least > 1:
        first = receive(_DONTWAIT)
        frames.append(first)
        rest = at_least - 2 if first == DELIMITER else at_least - 1
        frames.extend(map(receive, repeat(_DONTWAIT, rest)))  # what was there is kept when there is no more
    more = True
    while more:
        frame = receive(_DONTWAIT, False)
        frames.append(frame.bytes)
        more = frame.more


def _parse(text: str) -> Any:
    """``json.loads``, but for its looking for whitespace around the value, which costs as much as a header itself."""
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        end = -1
    return value if end == len(text) else _DECODER.decode(text)


def _behind_delimiter(frames: list[bytes]) -> list[bytes]:
    return frames[frames.index(DELIMITER) + 1 :] if DELIMITER in frames else []


def _events(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.EVENTS))
