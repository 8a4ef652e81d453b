"""A client's cursor without a kernel behind it: pausing, handing over in turns, losses, pings and silence."""

import asyncio
import json
import uuid

import pytest

from eg_launcher.channels import CONFIRM, HANDED_PER_TURN, SILENCE_LIMIT, Channel
from eg_launcher.conversation import Conversation
from eg_launcher.journal import JournalLimits
from eg_launcher.limits import Limits
from eg_launcher.signing import make_message
from eg_launcher.websocket import Opcode
from eg_launcher.wire import CLOSE_SILENT, V1_SUBPROTOCOL, parse_ping
from launcher_kernel_host import ListConnection, until


class JournalOnly:
    """What a channel sees of a kernel, without one."""

    own_session = "kernel-session"

    def __init__(self, limit=1 << 20, limits=Limits()):  # noqa: B008 - frozen
        self.limits = limits
        self.talk = Conversation(limits=JournalLimits(memory=limit, disk=0))
        self.journal = self.talk.journal
        self.channels = self.talk.channels
        self.opening = self.talk.opening
        self.submitted = []

    def on_attached(self, channel, *, anew):
        pass

    def on_detached(self, channel):
        self.channels.discard(channel)

    def submit(self, channel, message):
        self.submitted.append(message)

    def say(self, text="x", msg_type="stream", *, target=None, parent=b'{"msg_id":"p"}', raw=None):
        parts = make_message(msg_type, {"name": "stdout", "text": text}, session="kernel-session", parent_header=parent)
        if raw is not None:
            parts[3] = raw
        self.journal.add("iopub", uuid.uuid4().hex, msg_type, parts, target)
        for channel in tuple(self.channels):
            channel.pump()


def attach(kernel, subprotocol=None, *, session_id=None, peer="weak"):
    connection = ListConnection(subprotocol)
    opening = kernel.opening(session_id=session_id, link=None, after=None)
    channel = Channel(kernel, connection, peer=peer, opening=opening)
    return channel, connection


def texts(connection):
    return [message.content["text"] for message in connection.messages]


async def test_it_begins_with_what_is_live():
    kernel = JournalOnly()
    kernel.say("before")
    _, connection = attach(kernel)
    kernel.say("after")
    assert texts(connection) == ["after"]


async def test_a_paused_client_gets_the_rest_when_it_reads_again():
    kernel = JournalOnly()
    channel, connection = attach(kernel)
    kernel.say("1")
    connection.paused = True
    kernel.say("2")
    kernel.say("3")
    assert texts(connection) == ["1"]
    connection.paused = False
    channel.on_drain()
    assert texts(connection) == ["1", "2", "3"]


async def test_what_is_for_others_is_passed_over():
    kernel = JournalOnly()
    _, one = attach(kernel, session_id="one")
    _, again = attach(kernel, session_id="one")
    _, anonymous = attach(kernel)
    kernel.say("for one", "execute_reply", target="one")
    kernel.say("for all")
    assert texts(one) == texts(again) == ["for one", "for all"]
    assert texts(anonymous) == ["for all"]


async def test_at_most_a_mebibyte_is_handed_over_in_a_turn():
    kernel = JournalOnly(limit=64 << 20)
    channel, connection = attach(kernel)
    connection.paused = True
    for _ in range(30):
        kernel.say("x" * 300_000)
    connection.paused = False
    channel.on_drain()
    assert connection.bytes < HANDED_PER_TURN + 400_000
    sizes = []
    while len(connection.messages) < 30:
        before = connection.bytes
        await asyncio.sleep(0)
        sizes.append(connection.bytes - before)
    assert max(sizes) < HANDED_PER_TURN + 400_000
    kernel.say("last")
    await until(lambda: texts(connection)[-1] == "last")


async def test_one_that_fell_behind_is_told_once_what_it_lost():
    kernel = JournalOnly(limit=100_000)
    channel, connection = attach(kernel)
    kernel.say("seen")
    connection.paused = True
    for _ in range(100):
        kernel.say("x" * 10_000)
    kernel.say("", "execute_reply", target=channel.target)
    for n in range(100):
        kernel.say(str(n) + "y" * 10_000, parent=b'{"msg_id":"later"}')
    connection.paused = False
    channel.on_drain()
    notices = [m for m in connection.messages if m.type == "stream" and "lost" in m.content["text"]]
    assert len(notices) == 1
    assert notices[0].content["name"] == "stderr"
    assert notices[0].header["session"] == "kernel-session"
    assert "MiB" in notices[0].content["text"]
    kinds = [m.type for m in connection.messages]
    assert kinds.index("execute_reply") == 2  # seen, notice, reply, what is left
    left = texts(connection)[3:]
    assert left[-1].startswith("99y")
    lost = int(notices[0].content["text"].split()[0].lstrip("["))
    assert 1 + lost + 1 + len(left) == 202 - 0


@pytest.mark.parametrize("subprotocol", [None, V1_SUBPROTOCOL])
async def test_what_is_not_json_is_left_out_of_text_only(subprotocol):
    kernel = JournalOnly()
    _, connection = attach(kernel, subprotocol)
    bad = b'{"name":"stdout","text":"\xff"}'
    if subprotocol is None:
        kernel.say(raw=bad)
        assert "left out" in texts(connection)[0]
        assert connection.messages[0].parent_id == "p"
    else:
        connection.count_only = True
        kernel.say(raw=bad)
        assert connection.frames == 1


async def test_messages_reach_the_kernel_and_nonsense_does_not():
    kernel = JournalOnly()
    channel, connection = attach(kernel)
    channel.on_message(Opcode.TEXT, b"nonsense")
    text = {"channel": "shell", "header": {"msg_id": "a", "msg_type": "execute_request"}}
    channel.on_message(Opcode.TEXT, json.dumps(text).encode())
    assert [message.header["msg_id"] for message in kernel.submitted] == ["a"]
    assert connection.closed is None
    (said,) = texts(connection)
    assert said.startswith("[a message of 8 bytes was dropped: the message is not JSON")


async def test_text_that_is_no_utf8_closes():
    kernel = JournalOnly()
    channel, connection = attach(kernel)
    channel.on_message(Opcode.TEXT, b'{"header": "\xff"}')
    assert connection.closed[0] == 1007
    assert kernel.submitted == []


async def test_mended_who_does_not_read_what_it_is_told_is_not_read():
    """Else a client that sends nonsense and never reads could fill the launcher's memory."""
    channel, connection = attach(JournalOnly())
    connection.paused = True
    for _ in range(1000):  # what had been received already
        channel.on_message(Opcode.TEXT, b"nonsense")
    assert len(connection.messages) == 1
    assert not connection.reading
    channel.hold(1)
    channel.hold(-1)
    assert not connection.reading
    connection.paused = False
    channel.on_drain()
    assert connection.reading


async def test_reading_pauses_beyond_a_mebibyte_held():
    channel, connection = attach(JournalOnly())
    channel.hold(1 << 20)
    assert connection.reading
    channel.hold(1)
    assert not connection.reading
    channel.hold(-1000)
    assert not connection.reading
    channel.hold(-(1 << 19))
    assert connection.reading


def beat_for(channel, start, seconds, step=5.0):
    now = start
    while now < start + seconds:
        now += step
        channel.beat(now)
    return now


def said(connection):
    """Number and frames received, of each ping."""
    return [(number, received) for _, number, _, received in map(parse_ping, connection.pings)]


def answer(channel, connection):
    channel.on_pong(connection.pings[-1])


async def test_the_first_ping_says_where_it_begins():
    kernel = JournalOnly()
    kernel.say("before")
    _, connection = attach(kernel)
    assert said(connection) == [(1, 0)]
    assert parse_ping(connection.pings[0])[0] == kernel.journal.epoch


async def test_pings_carry_the_number_and_only_one_is_in_flight():
    kernel = JournalOnly()
    channel, connection = attach(kernel)
    kernel.say("1")
    channel.on_pong(b"somebody else's")
    other, _ = attach(kernel)  # its pings come when they are due, so this one's would have come, too
    other.on_pong(other._ping)
    kernel.say("2")
    await until(lambda: other._ping is not None, "a ping behind it")
    assert said(connection) == [(0, 0)]
    answer(channel, connection)
    await until(lambda: len(connection.pings) == 2, "a ping behind the pong")
    assert said(connection) == [(0, 0), (2, 0)]
    assert channel.session.acked == 0
    answer(channel, connection)
    assert channel.session.acked == 2
    assert not channel._ping_due  # there is nothing to acknowledge


async def test_what_a_client_sends_is_confirmed():
    kernel = JournalOnly()
    channel, connection = attach(kernel)
    answer(channel, connection)
    connection.received = 3
    text = {"channel": "shell", "header": {"msg_id": "a", "msg_type": "x_request"}, "content": {"x": "x" * CONFIRM}}
    channel.on_message(Opcode.TEXT, json.dumps(text).encode())
    await until(lambda: said(connection) == [(0, 0), (0, 3)])


async def test_the_interval_of_pings_is_the_sites():
    for interval in (5, 60):
        channel, connection = attach(JournalOnly(limits=Limits(ws_ping_interval=interval)))
        answer(channel, connection)
        now = beat_for(channel, asyncio.get_running_loop().time(), interval - 5)
        assert len(connection.pings) == 1
        now = beat_for(channel, now, 2 * interval - 5)
        assert len(connection.pings) == 2
        assert connection.closed is None  # silence is three pings long


async def test_without_pings_silence_is_no_reason():
    channel, connection = attach(JournalOnly(limits=Limits(ws_ping_interval=0)))
    beat_for(channel, asyncio.get_running_loop().time(), 3 * SILENCE_LIMIT)
    assert len(connection.pings) == 1
    assert connection.closed is None


async def test_silence_ends_it_and_a_sign_of_life_does_not():
    kernel = JournalOnly()
    channel, connection = attach(kernel)
    now = asyncio.get_running_loop().time()
    now = beat_for(channel, now, SILENCE_LIMIT - 10)
    channel.on_pong(b"anything")
    now = beat_for(channel, now, SILENCE_LIMIT - 10)
    assert connection.closed is None
    beat_for(channel, now, 20)
    assert connection.closed[0] == CLOSE_SILENT
    assert kernel.channels == set()
    channel.on_close()  # the server says so, too


async def test_a_launcher_that_was_stopped_blames_nobody():
    channel, connection = attach(JournalOnly())
    now = beat_for(channel, asyncio.get_running_loop().time(), Limits.ws_ping_interval + 5)
    channel.beat(now + 3600)
    assert connection.closed is None


async def test_nothing_is_sent_after_the_end():
    kernel = JournalOnly()
    channel, connection = attach(kernel)
    channel.close(4002, "over")
    channel.pump()
    channel.say("iopub", make_message("status", {}, session="s"))
    channel.close(4002, "again")
    assert connection.messages == []
    assert connection.closed == (4002, "over")
