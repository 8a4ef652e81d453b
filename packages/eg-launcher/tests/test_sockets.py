"""The WebSocket over a transport that records, for what cannot be forced over a real socket (``test_server`` has
those)."""

import asyncio

import pytest

from eg_launcher import sockets
from eg_launcher.sockets import WebSocket
from eg_launcher.websocket import FrameReader, Opcode, close_payload, frame_header, parse_close

MASK = b"\1\2\3\4"


class Transport:
    """Takes everything, and says that it is full when told to."""

    def __init__(self):
        self.writes = []
        self.closed = False
        self.reading = True

    def write(self, data):
        self.writes.append(bytes(data))

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def set_write_buffer_limits(self, high, low):
        pass

    def frames(self):
        reader = FrameReader(max_message=1 << 30, masked=False)
        return [(frame.opcode, frame.payload) for frame in reader.feed(b"".join(self.writes))]


class Receiver:
    def __init__(self):
        self.events = []

    def on_message(self, opcode, payload):
        if payload == b"explode":
            raise RuntimeError("a bug")
        self.events.append((opcode, payload))

    def on_pong(self, payload):
        self.events.append(("pong", payload))

    def on_drain(self):
        self.events.append("drain")

    def on_close(self):
        self.events.append("close")


def client_frame(opcode, payload):
    from eg_launcher.websocket import apply_mask

    return frame_header(opcode, len(payload), mask=MASK) + apply_mask(MASK, payload)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def made():
    transport, receiver = Transport(), Receiver()
    websocket = WebSocket(transport, asyncio.get_running_loop(), subprotocol=None, max_message=1 << 20)
    websocket.start(receiver, b"")
    return websocket, transport, receiver


async def test_many_messages_of_one_turn_are_one_write(made):
    websocket, transport, _ = made
    for i in range(100):
        websocket.send(Opcode.TEXT, [b"a" * 100, b"%d" % i])
    assert transport.writes == []
    await turns()
    assert len(transport.writes) == 1
    assert [payload[100:] for _, payload in transport.frames()] == [b"%d" % i for i in range(100)]


async def test_a_large_message_is_handed_over_in_slices_and_never_joined(made):
    websocket, transport, _ = made
    data = memoryview(bytes(range(256)) * (5 * 4096))  # 5 MiB
    websocket.send(Opcode.TEXT, [b"before"])
    websocket.send(Opcode.BINARY, [b"head", data])
    websocket.send(Opcode.TEXT, [b"behind"])
    assert websocket.paused
    await turns(1)
    assert sum(map(len, transport.writes)) <= sockets.TURN
    await turns(20)
    assert max(map(len, transport.writes)) <= sockets.TURN
    assert [payload for _, payload in transport.frames()] == [b"before", b"head" + bytes(data), b"behind"]
    assert not websocket.paused


async def test_nothing_is_handed_over_while_the_transport_is_full(made):
    websocket, transport, receiver = made
    websocket.pause_writing()
    assert websocket.paused
    websocket.send(Opcode.TEXT, [b"x"])
    await turns()
    assert transport.writes == []
    websocket.resume_writing()
    await turns()
    assert transport.frames() == [(Opcode.TEXT, b"x")]
    assert receiver.events == ["drain"]


async def test_drain_is_said_once_and_only_after_a_pause(made):
    websocket, _, receiver = made
    websocket.send(Opcode.TEXT, [b"x"])
    await turns()
    assert receiver.events == []
    websocket.send(Opcode.BINARY, [bytes(2 << 20)])
    await turns(10)
    assert receiver.events == ["drain"]


async def test_pings_are_answered_between_frames_the_newest_only(made):
    websocket, transport, _ = made
    websocket.pause_writing()
    websocket.send(Opcode.BINARY, [bytes(3 << 20)])
    websocket.send(Opcode.TEXT, [b"next"])
    for i in range(1000):
        websocket.data_received(client_frame(Opcode.PING, b"%d" % i))
    websocket.resume_writing()
    await turns(20)
    opcodes = [opcode for opcode, _ in transport.frames()]
    assert sorted(opcodes) == sorted([Opcode.BINARY, Opcode.TEXT, Opcode.PONG])
    assert (Opcode.PONG, b"999") in transport.frames()


async def test_messages_and_pongs_reach_the_receiver(made):
    websocket, _, receiver = made
    data = client_frame(Opcode.TEXT, b"hi") + client_frame(Opcode.PONG, b"12") + client_frame(Opcode.BINARY, b"\0")
    for i in range(len(data)):
        websocket.data_received(data[i : i + 1])
    assert receiver.events == [(Opcode.TEXT, b"hi"), ("pong", b"12"), (Opcode.BINARY, b"\0")]


async def test_close_sends_what_is_queued_then_waits_for_the_answer(made):
    websocket, transport, receiver = made
    websocket.send(Opcode.TEXT, [b"last"])
    websocket.close(4002, "ended")
    websocket.send(Opcode.TEXT, [b"dropped"])
    websocket.close(1000, "again")
    await turns()
    frames = transport.frames()
    assert frames[0] == (Opcode.TEXT, b"last")
    assert parse_close(frames[1][1]) == (4002, "ended")
    assert len(frames) == 2
    assert receiver.events == ["close"]
    assert not transport.closed
    assert websocket.deadline is not None
    websocket.data_received(client_frame(Opcode.TEXT, b"late") + client_frame(Opcode.CLOSE, close_payload(4002, "")))
    await turns()
    assert transport.closed
    assert receiver.events == ["close"]


async def test_a_close_is_echoed_and_what_was_queued_is_dropped(made):
    websocket, transport, receiver = made
    websocket.pause_writing()
    websocket.send(Opcode.TEXT, [b"nobody reads this"])
    websocket.data_received(client_frame(Opcode.CLOSE, close_payload(1000, "bye")))
    websocket.resume_writing()
    await turns()
    assert transport.frames() == [(Opcode.CLOSE, close_payload(1000, ""))]
    assert transport.closed
    assert receiver.events == ["close"]


async def test_a_peer_that_breaks_the_protocol_is_told(made):
    websocket, transport, receiver = made
    websocket.data_received(client_frame(Opcode.TEXT, b"ok"))
    websocket.data_received(frame_header(Opcode.TEXT, 2) + b"no")  # not masked
    websocket.data_received(client_frame(Opcode.TEXT, b"ignored"))
    await turns()
    assert parse_close(transport.frames()[0][1])[0] == 1002
    assert transport.closed
    assert receiver.events == [(Opcode.TEXT, b"ok"), "close"]


async def test_a_message_that_is_too_long_is_refused_by_its_header(made):
    websocket, transport, _ = made
    websocket.data_received(frame_header(Opcode.BINARY, (1 << 20) + 1, mask=MASK))
    await turns()
    assert parse_close(transport.frames()[0][1])[0] == 1009


async def test_a_receivers_failure_closes_its_socket_only(made, caplog):
    websocket, transport, receiver = made
    websocket.data_received(client_frame(Opcode.TEXT, b"explode"))
    await turns()
    assert parse_close(transport.frames()[0][1])[0] == 1011
    assert receiver.events == ["close"]
    assert "a bug" in caplog.text


async def test_lost_is_a_close(made):
    websocket, transport, receiver = made
    websocket.send(Opcode.TEXT, [b"x"])
    websocket.lost()
    websocket.lost()
    websocket.send(Opcode.TEXT, [b"y"])
    await turns()
    assert receiver.events == ["close"]
    assert transport.writes == []


async def test_reading_is_paused_when_told_but_never_while_closing(made):
    websocket, transport, _ = made
    websocket.pause_reading()
    assert not transport.reading
    websocket.close(1012, "")
    assert transport.reading
    websocket.pause_reading()
    assert transport.reading
