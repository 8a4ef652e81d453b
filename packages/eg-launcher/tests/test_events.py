"""The feed with sockets that are lists: what is told, how often, and to whom it is not."""

import asyncio
import json

import pytest

from eg_launcher import wire
from eg_launcher.events import PING_INTERVAL, SILENCE, EventFeed
from eg_launcher.lease import Lease
from eg_launcher.websocket import Opcode


class ListSocket:
    def __init__(self):
        self.events = []
        self.pings = 0
        self.paused = False
        self.closed = None

    def send(self, opcode, buffers):
        assert opcode is Opcode.TEXT
        self.events.append(json.loads(b"".join(buffers)))

    def ping(self, payload):
        self.pings += 1

    def close(self, code, reason):
        self.closed = code


class FakeKernel:
    def __init__(self, kernel_id):
        self.id = kernel_id
        self.essence = 0
        self.described = 0

    def describe(self):
        self.described += 1
        return {"id": self.id, "state": self.essence}


@pytest.fixture
async def kernels():
    return {name: FakeKernel(name) for name in ("a", "b")}


@pytest.fixture
async def feed(kernels):
    return EventFeed(kernels, lambda: {"kernels": {}}, Lease(10))


@pytest.fixture
async def watcher(feed):
    websocket = ListSocket()
    subscriber = feed.subscribe(websocket)
    return websocket, subscriber


async def test_first_the_status_then_what_changes_once_per_turn(feed, kernels, watcher):
    websocket, _ = watcher
    assert websocket.events == [{"type": "status", "kernels": {}}]
    for i in range(100):
        kernels["a"].essence = i
        feed.changed(kernels["a"])
    feed.changed(kernels["b"])
    await asyncio.sleep(0)
    told = [(event["kernel"]["id"], event["kernel"]["state"]) for event in websocket.events[1:]]
    assert sorted(told) == [("a", 99), ("b", 0)]


async def test_activity_is_told_once_a_second(feed, kernels, watcher):
    websocket, _ = watcher
    feed.changed(kernels["a"])
    await asyncio.sleep(0)
    for _ in range(1000):
        feed.changed(kernels["a"])
        await asyncio.sleep(0)
    assert len(websocket.events) == 2
    assert kernels["a"].described == 1
    feed.tick()
    feed.tick()
    assert len(websocket.events) == 3


async def test_a_slow_watcher_gets_the_newest_of_each_and_holds_nothing(feed, kernels, watcher):
    websocket, subscriber = watcher
    websocket.paused = True
    for i in range(1000):
        for kernel in kernels.values():
            kernel.essence = i
            feed.changed(kernel)
        await asyncio.sleep(0)
    assert len(websocket.events) == 1
    assert subscriber.stale == {"a", "b"}
    websocket.paused = False
    subscriber.on_drain()
    assert [event["kernel"]["state"] for event in websocket.events[1:]] == [999, 999]


async def test_gone_is_told_last_and_somebody_must_know(feed, kernels, watcher):
    websocket, subscriber = watcher
    websocket.paused = True
    feed.changed(kernels["a"])
    await asyncio.sleep(0)
    del kernels["a"]
    feed.gone("a", {"reason": "shutdown"})
    assert feed.untold
    websocket.paused = False
    subscriber.on_drain()
    assert websocket.events[1:] == [{"type": "gone", "id": "a", "exit": {"reason": "shutdown"}}]
    assert not feed.untold


async def test_who_comes_later_knows_by_the_status(feed, kernels):
    feed.gone("a", None)
    assert feed.untold
    feed.subscribe(ListSocket())
    assert not feed.untold


async def test_it_holds_the_lease_until_it_has_left(feed, watcher):
    _, subscriber = watcher
    second = feed.subscribe(ListSocket())
    assert feed.lease.held
    subscriber.on_close()
    subscriber.on_close()
    assert feed.lease.held
    second.on_close()
    assert not feed.lease.held


async def test_pings_and_silence(feed, watcher):
    websocket, subscriber = watcher
    now = feed.loop.time()
    subscriber.tick(now + PING_INTERVAL - 1)
    assert websocket.pings == 0
    for step in range(1, 3):
        subscriber.tick(now + step * PING_INTERVAL)
    assert (websocket.pings, websocket.closed) == (2, None)
    subscriber.tick(now + SILENCE + 1)
    assert websocket.closed == wire.CLOSE_SILENT


@pytest.mark.parametrize("sign", ["pong", "message"])
async def test_any_sign_of_life_counts(feed, watcher, monkeypatch, sign):
    websocket, subscriber = watcher
    now = feed.loop.time()
    monkeypatch.setattr(feed.loop, "time", lambda: now + SILENCE)
    if sign == "pong":
        subscriber.on_pong(b"")
    else:
        subscriber.on_message(Opcode.TEXT, b"whatever")
    subscriber.tick(now + SILENCE + 10)
    assert websocket.closed is None
