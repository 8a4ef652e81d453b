"""A page on a kernel that is not there: cells with outputs, a socket that can be cut, a clock that can be moved on."""

import json
import time
import uuid
from collections import deque

from eg_launcher.channels import Channel
from eg_launcher.conversation import After, Conversation
from eg_launcher.frames import ClientMessage
from eg_launcher.journal import JournalLimits
from eg_launcher.limits import Limits
from eg_launcher.signing import make_message
from eg_launcher.wire import parse_ping
from launcher_kernel_host import ListConnection


class Wire(ListConnection):
    """What has been sent, messages and pings in order."""

    def __init__(self):
        super().__init__()
        self.sent = deque()

    def send(self, opcode, buffers):
        super().send(opcode, buffers)
        self.sent.append(self.messages.pop())

    def ping(self, payload):
        self.sent.append(payload)


class SilentKernel:
    """What channels see of a kernel; ``says`` is the kernel's part, played by the test."""

    own_session = "kernel-session"

    def __init__(self, limits=None, room=None):
        self.limits = Limits()
        self.talk = Conversation(limits=limits or JournalLimits(disk=0), room=room)
        self.talk.session = self.own_session
        self.journal = self.talk.journal
        self.channels = self.talk.channels
        self.opening = self.talk.opening

    def on_attached(self, channel, *, anew):
        if anew:
            channel.say("iopub", self.talk.status("idle"))

    def on_detached(self, channel):
        self.channels.discard(channel)

    def submit(self, channel, message):
        self.talk.accept(channel, message)

    def says(self, msg_type, content, *, parent=b"{}", channel="iopub"):
        parts = make_message(msg_type, content, session=self.own_session, parent_header=parent)
        self.talk.take(channel, {"msg_id": uuid.uuid4().hex, "msg_type": msg_type}, parts)
        self.talk.pump()

    def prints(self, text, parent):
        self.says("stream", {"name": "stdout", "text": text}, parent=parent)


class Page:
    """``cells``: request id → what its output area shows, as JupyterLab would."""

    def __init__(self, kernel, peer="weak", session_id="page"):
        self.kernel = kernel
        self.peer = peer
        self.session_id = session_id
        self.cells = {}
        self.seen = []
        self.clear_next = set()
        self.answers = True  # its network stack answers pings
        self.awake = True  # and its page reads
        self.breaks_on = None
        self.ping = None
        self.frames = 0  # behind that ping
        self.connect()

    def connect(self, *, link=None, after=None):
        self.connection = Wire()
        opening = self.kernel.opening(session_id=self.session_id, link=link, after=after)
        self.channel = Channel(self.kernel, self.connection, peer=self.peer, opening=opening)

    def resume(self):
        """As an exact peer does."""
        epoch, number, serial, _ = self.ping
        self.connect(after=After(epoch, number, serial, self.frames))

    def relink(self):
        """As a gateway does for a client that notices nothing."""
        link = self.channel.link
        epoch, number, serial, _ = self.ping
        self.connect(link=link, after=After(epoch, number, serial, self.frames))

    def cut(self):
        self.channel.on_close()

    def read(self, most=None):
        """Take what has arrived, or the next ``most`` of it."""
        sent = self.connection.sent
        while sent and most != 0:
            item = sent.popleft()
            if isinstance(item, bytes):
                if parse_ping(item)[2] and self.awake:
                    self.ping, self.frames = parse_ping(item), 0
                if self.answers:
                    self.channel.on_pong(item)
                continue
            most = None if most is None else most - 1
            if self.breaks_on is not None and self.breaks_on in str(item.content):
                raise ConnectionResetError
            if self.awake:
                self.frames += 1
                self.show(item)

    def show(self, message):
        cell = self.cells.get(message.parent_id)
        self.seen.append(message)
        if cell is None:
            return
        if message.type == "clear_output":
            if message.content["wait"]:
                self.clear_next.add(message.parent_id)
            else:
                cell.clear()
            return
        if message.type not in ("stream", "input_request"):
            return
        text = message.content.get("text", "?")
        if message.parent_id in self.clear_next:
            self.clear_next.discard(message.parent_id)
            cell.clear()
        cell.append(text)

    def asks(self, msg_type="execute_request", *, channel="shell", cell=None):
        """Send a request; its header, the parent of what answers it."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": msg_type, "session": self.session_id, "version": "5.3"}
        raw = json.dumps(header).encode()
        if msg_type == "execute_request":
            self.cells[header["msg_id"]] = []
        metadata = json.dumps({"cellId": cell} if cell else {}).encode()
        self.kernel.submit(self.channel, ClientMessage(channel, header, [raw, b"{}", metadata, b"{}"]))
        self.connection.received += 1
        return raw


class Clock:
    """``time.monotonic``, which asyncio's loops use too, with hours to spare."""

    def __init__(self, monkeypatch):
        self.offset = 0.0
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + self.offset)

    def pass_by(self, seconds):
        self.offset += seconds
