"""One accepted WebSocket: what ``channels`` and ``events`` write to. Knows frames and transports, nothing of kernels.

Whole frames wait in a short queue of its own and reach the transport once per turn of the loop, at most 1 MiB a turn:
a large part travels as slices of a memoryview, so that a 50 MB image neither blocks the loop nor is copied into the
transport's buffer at once. ``paused`` covers queue and transport; who respects it holds about 2 MiB here at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Deque, Optional, Protocol, Sequence, Union

from eg_launcher.websocket import (
    MessageReader,
    Opcode,
    ProtocolError,
    close_payload,
    frame_header,
    parse_close,
)

Buffer = Union[bytes, memoryview]

TURN = 1024 * 1024
LARGE = 64 * 1024
QUEUE_HIGH = 1024 * 1024
QUEUE_LOW = 256 * 1024
TRANSPORT_HIGH = 512 * 1024
TRANSPORT_LOW = 128 * 1024
CLOSE_TIMEOUT = 10.0
_NO_CODE = 1005

log = logging.getLogger(__name__)


class Receiver(Protocol):
    """Who reads a WebSocket. ``on_close`` is called once, last, and never from within a call of its own."""

    def on_message(self, opcode: Opcode, payload: bytes) -> None: ...

    def on_pong(self, payload: bytes) -> None: ...

    def on_drain(self) -> None: ...

    def on_close(self) -> None: ...


class WebSocket:
    """``channels.Connection`` over an asyncio transport.

    The HTTP connection that answered the upgrade feeds it (``data_received`` and friends) and looks at ``deadline``.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        subprotocol: str | None,
        max_message: int,
    ) -> None:
        self.subprotocol = subprotocol
        self.deadline: float | None = None
        self._transport = transport
        self._loop = loop
        self._reader = MessageReader(max_message=max_message, masked=True)
        self._receiver: Receiver | None = None
        self._frames: Deque[Union[bytes, Sequence[Buffer]]] = deque()
        self._rest: Deque[Buffer] = deque()
        self._queued = 0
        self._pong: Optional[bytes] = None
        self._scheduled = False
        self._blocked = False
        self._was_paused = False
        self._closing = False  # a Close frame was sent or received: nothing more goes out behind it
        self._peer_closed = False
        self._gone = False
        transport.set_write_buffer_limits(high=TRANSPORT_HIGH, low=TRANSPORT_LOW)

    def start(self, receiver: Receiver, data: bytes) -> None:
        """``data``: what the client sent behind its upgrade request."""
        self._receiver = receiver
        if data:
            self.data_received(data)

    # -- for the receiver -----------------------------------------------------------------------------------

    @property
    def received(self) -> int:
        return self._reader.received

    @property
    def paused(self) -> bool:
        return self._blocked or self._queued >= QUEUE_HIGH

    def send(self, opcode: Opcode, buffers: Sequence[Buffer]) -> None:
        """Queue one message. What is sent after a close is dropped."""
        if not self._closing:
            self._queue(opcode, buffers)

    def ping(self, payload: bytes) -> None:
        self.send(Opcode.PING, (payload,))

    def close(self, code: int, reason: str) -> None:
        """Send what is queued and a Close frame; the transport ends when the peer has answered, or by a deadline."""
        if self._closing:
            return
        self._queue(Opcode.CLOSE, (close_payload(code, reason),))
        self._closing = True
        self.deadline = self._loop.time() + CLOSE_TIMEOUT
        self._transport.resume_reading()
        self._loop.call_soon(self._leave)

    def abort(self) -> None:
        self._closing = self._peer_closed = True
        self._transport.abort()

    def pause_reading(self) -> None:
        if not self._closing:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # -- for the HTTP connection ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._peer_closed:
            return
        try:
            for opcode, payload in self._reader.feed(data):
                self._received(opcode, payload)
        except ProtocolError as error:
            self.close(error.code, str(error))
            self._peer_closed = True  # what follows cannot be read, so no answer is awaited
            self._flush_soon()
        except Exception:
            log.exception("a WebSocket's receiver failed")
            self.close(1011, "The launcher failed; its log has the details.")

    def pause_writing(self) -> None:
        self._blocked = self._was_paused = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._flush_soon()

    def lost(self) -> None:
        """The transport is gone."""
        self._closing = self._gone = True
        self._frames.clear()
        self._rest.clear()
        self._queued = 0
        self._loop.call_soon(self._leave)

    # -- inside ---------------------------------------------------------------------------------------------

    def _received(self, opcode: Opcode, payload: bytes) -> None:
        if opcode is Opcode.CLOSE:
            self._on_close_frame(payload)
        elif opcode is Opcode.PING:
            self._pong = payload  # only the newest needs an answer (RFC 6455, 5.5.3), so a flood of pings costs nothing
            self._flush_soon()
        elif self._receiver is None:
            pass
        elif opcode is Opcode.PONG:
            self._receiver.on_pong(payload)
        elif not self._closing:
            self._receiver.on_message(opcode, payload)

    def _on_close_frame(self, payload: bytes) -> None:
        self._peer_closed = True
        if not self._closing:
            code, _reason = parse_close(payload)
            self._frames.clear()  # who has said goodbye reads no more; a frame half handed over is completed
            self._queued = sum([len(buffer) for buffer in self._rest])
            self._queue(Opcode.CLOSE, (b"" if code == _NO_CODE else close_payload(code, ""),))
            self._closing = True
            self.deadline = self._loop.time() + CLOSE_TIMEOUT
            self._loop.call_soon(self._leave)
        self._flush_soon()

    def _leave(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_close()

    def _queue(self, opcode: Opcode, buffers: Sequence[Buffer]) -> None:
        size = sum([len(buffer) for buffer in buffers])
        header = frame_header(opcode, size)
        if size < LARGE:
            self._frames.append(b"".join((header, *buffers)))
        else:
            self._frames.append((header, *buffers))
        self._queued += size + len(header)
        if self._queued >= QUEUE_HIGH:
            self._was_paused = True
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._scheduled and not self._gone:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._gone or self._transport.is_closing():
            return
        budget = TURN
        small: list[Buffer] = []
        while budget > 0 and not self._blocked:
            buffer = self._next(budget)
            if buffer is None:
                break
            budget -= len(buffer)
            if len(buffer) < LARGE:
                small.append(buffer)
                continue
            if small:
                self._transport.write(b"".join(small))
                small = []
            self._transport.write(buffer)
        if small:
            self._transport.write(b"".join(small))
        self._after_flush()

    def _next(self, budget: int) -> Buffer | None:
        """The next piece to hand over, at most ``budget`` bytes of it. A pong goes between two frames."""
        if not self._rest:
            if self._pong is not None and not self._peer_closed:
                pong, self._pong = self._pong, None
                return frame_header(Opcode.PONG, len(pong)) + pong
            if not self._frames:
                return None
            frame = self._frames.popleft()
            if isinstance(frame, bytes):
                self._queued -= len(frame)
                return frame
            self._rest.extend(frame)
        buffer = self._rest.popleft()
        if len(buffer) > budget:
            view = memoryview(buffer)
            self._rest.appendleft(view[budget:])
            buffer = view[:budget]
        self._queued -= len(buffer)
        return buffer

    def _after_flush(self) -> None:
        if self._frames or self._rest:
            if not self._blocked:
                self._flush_soon()
        elif self._closing and self._peer_closed:
            self._transport.close()
        if self._was_paused and not self._blocked and self._queued <= QUEUE_LOW:
            self._was_paused = False
            if self._receiver is not None and not self._closing:
                self._receiver.on_drain()
