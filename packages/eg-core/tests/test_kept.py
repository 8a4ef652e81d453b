"""What of a client is kept for a leg that breaks: whole frames, as many as are not confirmed, to the byte."""

import os
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from eg_core.handlers.kept import KEPT_MAX, Kept
from eg_launcher.websocket import apply_mask, frame_header

DATA, PING, CONTINUED = 0x1, 0x9, 0x0


def frame(size, opcode=DATA, *, fin=True):
    mask = os.urandom(4)
    return frame_header(opcode, size, mask=mask, fin=fin) + apply_mask(mask, b"x" * size)


def fed(stream, cuts=()):
    kept = Kept()
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in pairwise(places):
        kept.feed(stream[start:end])
    return kept


@given(st.lists(st.sampled_from([0, 1, 125, 126, 300, 65535, 65536]), max_size=8), st.lists(st.integers(0, 200_000)))
def test_what_is_not_confirmed_is_there_to_the_byte(sizes, cuts):
    frames = [frame(size) for size in sizes]
    for done in range(len(frames) + 1):
        kept = fed(b"".join(frames), cuts)
        assert kept.unconfirmed(done) == b"".join(frames[done:])


@given(st.integers(0, 400))
def test_a_frame_that_has_only_begun_is_kept_as_far_as_it_came(size):
    whole, begun = frame(10), frame(300)
    kept = fed(whole + begun[:size])
    assert kept.unconfirmed(1) == begun[:size]
    kept.feed(begun[size:])
    assert kept.unconfirmed(2) == b""


def test_control_frames_are_not_counted_and_not_kept_alone():
    kept = fed(frame(4, PING) * 1000)
    assert kept.unconfirmed(0) == b""
    both = frame(5, fin=False) + frame(4, PING) + frame(6, CONTINUED)
    kept.feed(both)
    assert kept.unconfirmed(0) == both
    assert kept.unconfirmed(2) == b""


def test_too_much_is_not_kept_and_then_it_is_again():
    kept = fed(frame(10))
    large = frame(3 * KEPT_MAX)
    for at in range(0, len(large), 1000):
        kept.feed(large[at : at + 1000])
        assert len(kept._data) <= KEPT_MAX + 1000
    assert not kept.resumable
    assert kept.unconfirmed(0) is None
    kept.confirm(2)
    assert kept.resumable
    small = frame(7)
    kept.feed(small)
    assert kept.unconfirmed(2) == small


def test_a_count_that_cannot_be_is_refused():
    assert fed(frame(1)).unconfirmed(2) is None
    kept = fed(frame(1) * 2)
    kept.confirm(2)
    assert kept.unconfirmed(1) is None
