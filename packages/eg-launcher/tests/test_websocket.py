"""The codec against the RFC's examples, itself in odd pieces, and what a peer can get wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eg_launcher import websocket as ws
from eg_launcher.websocket import FrameReader, MessageReader, Opcode, ProtocolError


def frame(opcode, payload, *, mask=None, fin=True):
    body = payload if mask is None else ws.apply_mask(mask, payload)
    return ws.frame_header(opcode, len(payload), mask=mask, fin=fin) + body


def test_the_examples_of_the_rfc():
    assert ws.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert frame(Opcode.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert frame(Opcode.TEXT, b"Hello", mask=bytes.fromhex("37fa213d")) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert frame(Opcode.BINARY, b"x" * 256)[:4] == bytes.fromhex("827e0100")
    assert frame(Opcode.BINARY, b"x" * 65536)[:10] == bytes.fromhex("827f0000000000010000")


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_masking_twice_gives_the_data_back(mask, data):
    expected = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert ws.apply_mask(mask, data) == expected
    assert ws.apply_mask(mask, expected) == data


def test_masking_of_long_data_goes_on_across_its_chunks():
    data = bytes(range(251)) * 1000
    masked = ws.apply_mask(b"\x01\x02\x03\x04", data)
    assert masked == bytes(byte ^ (i % 4 + 1) for i, byte in enumerate(data))


@given(
    st.lists(
        st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.PING]), st.binary(max_size=200)), max_size=8
    ),
    st.booleans(),
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
)
def test_frames_come_out_however_the_stream_is_cut(messages, masked, sizes):
    messages = [(opcode, payload[:125] if opcode == Opcode.PING else payload) for opcode, payload in messages]
    raw = [frame(opcode, payload, mask=b"abcd" if masked else None) for opcode, payload in messages]
    stream = b"".join(raw)
    reader = FrameReader(max_message=1000, masked=masked, keep_raw=True)
    got, at, turn = [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        got += reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert [(f.opcode, f.payload) for f in got] == messages
    assert [f.raw for f in got] == raw
    assert reader.pending == b""


def test_the_unfinished_tail_can_be_handed_on():
    reader = FrameReader(max_message=100, masked=False)
    assert reader.feed(frame(Opcode.TEXT, b"one") + b"\x81\x05He")[0].payload == b"one"
    assert reader.pending == b"\x81\x05He"


def test_fragments_are_joined_around_a_control_frame():
    reader = MessageReader(max_message=100, masked=True)
    stream = (
        frame(Opcode.TEXT, b"He", mask=b"abcd", fin=False)
        + frame(Opcode.PING, b"!", mask=b"abcd")
        + frame(Opcode.CONTINUATION, b"l", mask=b"wxyz", fin=False)
        + frame(Opcode.CONTINUATION, b"lo", mask=b"abcd")
        + frame(Opcode.BINARY, b"", mask=b"abcd")
    )
    assert reader.feed(stream) == [(Opcode.PING, b"!"), (Opcode.TEXT, b"Hello"), (Opcode.BINARY, b"")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x80abcd", 1002),  # RSV1
        (b"\x83\x80abcd", 1002),  # opcode 3
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x09\x80abcd", 1002),  # fragmented ping
        (b"\x89\xfe\x00\x7eabcd", 1002),  # long ping
        (b"\x80\x80abcd", 1002),  # continuation of nothing
        (b"\x01\x80abcd\x81\x80abcd", 1002),  # message within a message
        (b"\x82\xfe\x00\xc9abcd", 1009),  # 201 bytes, refused from the header on
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
    ],
)
def test_a_broken_peer_is_told_so(data, code):
    reader = FrameReader(max_message=200, masked=True)
    with pytest.raises(ProtocolError) as caught:
        reader.feed(data + b"abcd")
    assert caught.value.code == code


def test_a_message_too_long_in_fragments_is_refused():
    reader = MessageReader(max_message=200, masked=False)
    reader.feed(frame(Opcode.TEXT, b"x" * 150, fin=False))
    with pytest.raises(ProtocolError) as caught:
        reader.feed(frame(Opcode.CONTINUATION, b"x" * 51))
    assert caught.value.code == 1009


def test_empty_fragments_do_not_pile_up_for_ever():
    reader = MessageReader(max_message=1024, masked=False)
    reader.feed(frame(Opcode.TEXT, b"", fin=False))
    with pytest.raises(ProtocolError):
        reader.feed(frame(Opcode.CONTINUATION, b"", fin=False) * 5000)


def test_a_close_reason_is_cut_at_a_character():
    payload = ws.close_payload(4001, "ü" * 100)
    assert len(payload) <= 125
    assert ws.parse_close(payload) == (4001, "ü" * 61)
    assert ws.parse_close(b"") == (1005, "")
    with pytest.raises(ProtocolError):
        ws.parse_close(b"x")


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_a_close_code_that_nobody_may_send_is_an_error(code):
    with pytest.raises(ProtocolError) as caught:
        ws.parse_close(code.to_bytes(2, "big"))
    assert caught.value.code == 1002


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_a_close_code_that_may_be_sent(code):
    assert ws.parse_close(code.to_bytes(2, "big") + b"why") == (code, "why")


def test_a_close_reason_must_be_utf8():
    with pytest.raises(ProtocolError) as caught:
        ws.parse_close(b"\x03\xe8\xff")
    assert caught.value.code == 1007


def test_a_large_message_in_small_reads_is_linear():
    stream = frame(Opcode.BINARY, b"x" * 8_000_000, mask=b"abcd")
    reader = MessageReader(max_message=10_000_000, masked=True)
    got = []
    for at in range(0, len(stream), 4096):
        got += reader.feed(stream[at : at + 4096])
    assert [(opcode, len(payload)) for opcode, payload in got] == [(Opcode.BINARY, 8_000_000)]
