"""Both protocols against jupyter_server's own encoders where they are installed, and bad input in words."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eg_launcher.frames import decode, encode
from eg_launcher.websocket import Opcode
from eg_launcher.wire import V1_SUBPROTOCOL

HEADER = {"msg_id": "m\u00fc-1", "msg_type": "stream", "session": "s", "username": "u", "version": "5.3", "date": "d"}
PARTS = [json.dumps(HEADER, ensure_ascii=False).encode(), b'{"msg_id":"p"}', b"{}", '{"text":"grün"}'.encode()]


def payload(frame):
    return b"".join(frame[1])


def test_the_default_protocol_is_the_raw_json_spliced():
    opcode, buffers = encode("iopub", PARTS, None)
    text = b"".join(buffers)
    assert opcode is Opcode.TEXT
    assert all(part in text for part in PARTS)
    message = json.loads(text)
    assert message == {
        "header": HEADER,
        "msg_id": "mü-1",
        "msg_type": "stream",
        "parent_header": {"msg_id": "p"},
        "metadata": {},
        "content": {"text": "grün"},
        "buffers": [],
        "channel": "iopub",
    }
    assert list(message)[-1] == "channel"


@pytest.mark.parametrize("subprotocol", [None, V1_SUBPROTOCOL])
@given(buffers=st.lists(st.binary(max_size=100), max_size=4))
def test_there_and_back(subprotocol, buffers):
    opcode, pieces = encode("shell", PARTS + buffers, subprotocol, header=HEADER)
    message = decode(opcode, b"".join(pieces), subprotocol)
    assert message.channel == "shell"
    assert message.header == HEADER
    assert [json.loads(part) for part in message.parts[:4]] == [json.loads(part) for part in PARTS]
    assert message.parts[4:] == buffers
    if subprotocol:
        assert message.parts[:4] == PARTS


def test_both_are_what_jupyter_server_speaks():
    base = pytest.importorskip("jupyter_server.services.kernels.connection.base")
    parts = [*PARTS, b"\x00\xff", b""]
    channel, received = base.deserialize_msg_from_ws_v1(payload(encode("iopub", parts, V1_SUBPROTOCOL)))
    assert (channel, received) == ("iopub", parts)
    message = base.deserialize_binary_message(payload(encode("iopub", parts, None)))
    assert [bytes(buffer) for buffer in message["buffers"]] == parts[4:]
    assert message["channel"] == "iopub"

    message.update(header={**HEADER}, buffers=[b"abc", b"d"])
    sent = decode(Opcode.BINARY, base.serialize_binary_message(message), None)
    assert (sent.channel, sent.header["msg_id"], sent.parts[4:]) == ("iopub", "mü-1", [b"abc", b"d"])


def test_large_parts_are_handed_on_without_a_copy():
    large = b"x" * 1_000_000
    for subprotocol in (None, V1_SUBPROTOCOL):
        frame = encode("iopub", [*PARTS, b"small", large, b"after"], subprotocol)
        assert any(piece is large for piece in frame[1])
        assert len(frame[1]) == 3
        assert decode(frame[0], payload(frame), subprotocol).parts[4:] == [b"small", large, b"after"]


@pytest.mark.parametrize(
    "bad", [b'{"text":"\xff"}', b"[]", b"", b'"text"', b'{"text":'], ids=["utf8", "list", "empty", "string", "cut"]
)
def test_what_is_not_json_in_utf8_never_becomes_a_text_frame(bad):
    with pytest.raises(ValueError, match="content"):
        encode("iopub", [*PARTS[:3], bad], None)
    assert decode(*as_one(encode("iopub", [*PARTS[:3], bad], V1_SUBPROTOCOL)), V1_SUBPROTOCOL).parts[3] == bad


def as_one(frame):
    return frame[0], payload(frame)


def test_whitespace_around_json_is_json():
    frame = encode("iopub", [b" " + PARTS[0] + b"\n", *PARTS[1:]], None)
    assert json.loads(payload(frame))["header"] == HEADER
    frame = encode("shell", [b" " + PARTS[0] + b"\n", *PARTS[1:]], V1_SUBPROTOCOL)
    assert decode(frame[0], payload(frame), V1_SUBPROTOCOL).parts[0] == PARTS[0]


def test_too_few_parts():
    with pytest.raises(ValueError, match="at least 4"):
        encode("iopub", PARTS[:3], None)


def test_missing_parts_of_a_clients_message_are_empty_objects():
    message = decode(
        Opcode.TEXT, b'{"channel":"shell","header":{"msg_id":"a","msg_type":"b"},"parent_header":null}', None
    )
    assert message.parts[1:] == [b"{}"] * 3


def test_a_message_without_channel_is_for_the_shell():
    """What jupyter_server's kernel client (nbclient's) sends."""
    message = decode(Opcode.TEXT, b'{"header":{"msg_id":"a","msg_type":"b"}}', None)
    assert message.channel == "shell"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "no header"),
        (b'{"header":{"msg_id":"a","msg_type":"b"},"channel":1}', "no channel"),
        (b'{"header":{"msg_id":"a"},"channel":"shell"}', "no msg_type"),
        (b'{"header":{"msg_id":1,"msg_type":"b"},"channel":"shell"}', "no msg_id"),
        (b'{"header":{"msg_id":"a","msg_type":"b"},"channel":"shell","content":[]}', "content is not an object"),
        (b'{"header":' * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_a_bad_text_message_is_refused_in_words(text, words):
    for subprotocol in (None, V1_SUBPROTOCOL):
        with pytest.raises(ValueError, match=words):
            decode(Opcode.TEXT, text, subprotocol)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x01", "too short"),
        (struct.pack("<Q", 1 << 40), "cannot be"),
        (struct.pack("<2Q", 2, 24), "cannot be"),
        (struct.pack("<3Q", 2, 24, 1000), "beyond its end"),
        (struct.pack("<3Q", 2, 8, 24), "ascending"),
        (struct.pack("<3Q", 2, 24, 24), "channel and four"),
    ],
)
def test_a_bad_v1_message_is_refused_in_words(data, words):
    with pytest.raises(ValueError, match=words):
        decode(Opcode.BINARY, data, V1_SUBPROTOCOL)


@given(st.binary(max_size=200), st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.sampled_from([None, V1_SUBPROTOCOL]))
def test_noise_is_a_value_error_and_nothing_else(data, opcode, subprotocol):
    with pytest.raises(ValueError, match=r"."):
        decode(opcode, data, subprotocol)
