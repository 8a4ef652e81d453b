"""A kernel's sockets: whatever a kernel sends, each message that makes sense arrives, once, whole and in order."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator

import pytest
import zmq

from eg_launcher.relay import CHANNELS, DELIMITER, Relay, make_context
from eg_launcher.signing import Signer, make_message


class PretendedKernel:
    """Four bound sockets, a relay that is connected to them, and what that relay has received."""

    def __init__(self, key: bytes = b"key") -> None:
        self.context = make_context()
        self.signer = Signer(key)
        self.received: list[tuple[str, list[bytes]]] = []
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        urls = {}
        for channel in CHANNELS:
            socket = self.sockets[channel] = self.context.socket(zmq.XPUB if channel == "iopub" else zmq.ROUTER)
            urls[channel] = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.relay = Relay(
            self.context,
            urls,
            self.signer,
            identity=b"us",
            patient=False,
            received=self._on_received,
            flush=lambda: None,
            writable=lambda _: None,
        )
        assert self.sockets["iopub"].recv() == b"\1"  # subscribed

    def _on_received(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None:
        assert header["msg_type"] == "stream"
        self.received.append((channel, parts))

    def message(self, text: str, *buffers: bytes) -> list[bytes]:
        """From the delimiter on."""
        parts = make_message("stream", {"name": "stdout", "text": text}, session="s")
        return [DELIMITER, self.signer.sign(parts), *parts, *buffers]

    def publish(self, *frames: bytes) -> None:
        self.sockets["iopub"].send_multipart(frames)

    async def all_come(self, *expected: list[bytes], dropped: int = 0) -> None:
        async def come() -> None:
            while len(self.received) < len(expected) or self.relay.dropped < dropped:
                await asyncio.sleep(0.002)

        await asyncio.wait_for(come(), 10.0)
        assert [parts for _, parts in self.received] == [message[2:] for message in expected]
        assert self.relay.dropped == dropped

    def close(self) -> None:
        self.relay.close()
        self.context.destroy(linger=0)


@pytest.fixture(params=[b"key", b""], ids=["signed", "unsigned"])
async def kernel(request: pytest.FixtureRequest) -> AsyncIterator[PretendedKernel]:
    made = PretendedKernel(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("topics", [[], [b"stream"], [b"a", b"b", b"c"]])
async def test_any_number_of_topics_and_buffers(kernel: PretendedKernel, topics: list[bytes]) -> None:
    sent = [kernel.message("one"), kernel.message("two", b"buffer", b""), kernel.message("three", DELIMITER, b"x")]
    for message in sent:
        kernel.publish(*topics, *message)
    await kernel.all_come(*sent)


@pytest.mark.parametrize("length", range(1, 6))
@pytest.mark.parametrize("topics", [[], [b"stream"]])
async def test_a_message_too_short_takes_nothing_with_it(
    kernel: PretendedKernel, topics: list[bytes], length: int
) -> None:
    before, after, last = kernel.message("before"), kernel.message("after", b"buffer"), kernel.message("last")
    kernel.publish(*topics, *before)
    kernel.publish(*topics, *kernel.message("short")[:length])
    kernel.publish(*topics, *after)
    kernel.publish(*topics, *last)
    await kernel.all_come(before, after, last, dropped=1)


async def test_short_messages_in_a_row_and_at_the_end(kernel: PretendedKernel) -> None:
    good = kernel.message("good")
    kernel.publish(b"stream")
    kernel.publish(b"stream", *kernel.message("short")[:4])
    kernel.publish(b"stream", *good)
    kernel.publish(b"stream", *kernel.message("short")[:3])
    await kernel.all_come(good, dropped=2 if kernel.signer.signs else 3)  # two short ones may count as one


async def test_a_wrong_signature_is_dropped(kernel: PretendedKernel) -> None:
    good, forged = kernel.message("good"), kernel.message("forged")
    kernel.publish(b"stream", DELIMITER, b"0" * 64, *forged[2:])
    kernel.publish(b"stream", *good)
    if kernel.signer.signs:
        await kernel.all_come(good, dropped=1)
    else:
        await kernel.all_come(forged, good)


@pytest.mark.parametrize("channel", ["shell", "control", "stdin"])
async def test_replies_beside_short_ones(kernel: PretendedKernel, channel: str) -> None:
    good = kernel.message("reply")
    assert kernel.relay.send(channel, good[2:])
    socket = kernel.sockets[channel]
    assert socket.poll(5000)
    assert socket.recv_multipart()[0] == b"us"
    socket.send_multipart([b"us", *kernel.message("short")[:3]])
    socket.send_multipart([b"us", *good])
    await kernel.all_come(good, dropped=1)


@pytest.mark.parametrize(("before", "after"), [(b" \n", b""), (b"", b"\r\n"), (b"\t", b" ")])
async def test_space_around_a_header_is_allowed(kernel: PretendedKernel, before: bytes, after: bytes) -> None:
    header, *others = kernel.message("spacious")[2:]
    parts = [before + header + after, *others]
    message = [DELIMITER, kernel.signer.sign(parts), *parts]
    kernel.publish(*message)
    await kernel.all_come(message)


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"null", b"{} {}", b'{"msg_type": "stream"}x', b"\xff"])
async def test_a_header_that_is_no_object_is_dropped(kernel: PretendedKernel, header: bytes) -> None:
    parts = [header, *kernel.message("bad")[3:]]
    good = kernel.message("good")
    kernel.publish(b"stream", DELIMITER, kernel.signer.sign(parts), *parts)
    kernel.publish(b"stream", *good)
    await kernel.all_come(good, dropped=1)
