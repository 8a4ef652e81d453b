"""What the gateway says in a launcher's place."""

import json

import pytest

from eg_core.handlers import hold
from eg_launcher import frames
from eg_launcher.websocket import FrameReader, Opcode
from eg_launcher.wire import V1_SUBPROTOCOL

WAITING = [
    {"msg_id": "a", "msg_type": "execute_request", "channel": "shell", "client": "mine"},
    {"msg_id": "b", "msg_type": "execute_request", "channel": "shell", "client": "another's"},
    {"msg_id": "c", "msg_type": "debug_request", "channel": "control", "client": "mine"},
]


def said(words, subprotocol):
    found = []
    for frame in FrameReader(max_message=1 << 20, masked=False).feed(words):
        message = frames.decode(frame.opcode, frame.payload, subprotocol)
        parent = json.loads(message.parts[1]).get("msg_id")
        content = json.loads(message.parts[3])
        found.append((parent, message.channel, message.header["msg_type"], content.get("execution_state")))
    return found


@pytest.mark.parametrize("subprotocol", [None, V1_SUBPROTOCOL])
def test_each_of_a_client_s_requests_ends_once_and_then_the_kernel_is_dead(subprotocol):
    asked = [*hold.waiting(WAITING, "mine"), *hold.waiting(WAITING[:1], "mine")]
    words = hold.obituary(asked, "KernelDied", "Its launcher is gone.", session="k", subprotocol=subprotocol)
    assert said(words, subprotocol) == [
        ("a", "iopub", "error", None),
        ("a", "shell", "execute_reply", None),
        ("a", "iopub", "status", "idle"),
        ("c", "control", "debug_reply", None),
        ("c", "iopub", "status", "idle"),
        (None, "iopub", "status", "dead"),
    ]


def test_requests_among_raw_frames_are_found_and_what_is_no_message_is_not():
    header = {"msg_id": "x", "msg_type": "execute_request", "session": "s"}
    message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": {}}
    raw = b"".join(masked(json.dumps(one).encode()) for one in (message, ["no message"], {}))
    found = list(hold.asked_in([raw, masked(b"cut short")[:7]], None))
    assert [(one.msg_id, one.channel) for one in found] == [("x", "shell")]


@pytest.mark.parametrize("described", [None, {}, [], "x"])
def test_an_older_launcher_tells_nothing(described):
    assert list(hold.waiting(described, "mine")) == []


def masked(payload):
    assert len(payload) < 65536
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0xFE]) + len(payload).to_bytes(2, "big")
    return bytes([0x80 | Opcode.TEXT]) + size + bytes(4) + payload
