"""The ring: numbers, the cap, what is kept longer, what is told of a loss, and frames built once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eg_launcher.journal import Journal, JournalLimits
from eg_launcher.websocket import Opcode
from eg_launcher.wire import V1_SUBPROTOCOL


def ring(memory):
    return Journal(JournalLimits(memory=memory, disk=0))


def add(journal, msg_type="stream", size=1000, target=None):
    parts = [b'{"msg_id":"m"}', b"{}", b"{}", b'{"text":"' + b"x" * size + b'"}']
    return journal.add("iopub" if target is None else "shell", "m", msg_type, parts, target)


def walk(journal, number=1):
    numbers = []
    while (entry := journal.next_entry(number)) is not None:
        numbers.append(entry.number)
        number = entry.number + 1
    return numbers


def test_numbers_count_up_and_epochs_differ():
    journal = Journal()
    assert [add(journal).number for _ in range(3)] == [1, 2, 3]
    assert (journal.first, journal.next) == (1, 4)
    assert walk(journal, 2) == [2, 3]
    assert journal.next_entry(4) is None
    assert journal.epoch != Journal().epoch


def test_bulk_goes_first_and_what_ends_a_cell_stays():
    journal = ring(200_000)
    add(journal, "status", 10)
    for _ in range(1000):
        add(journal)
    add(journal, "execute_reply", 10, target="a")
    for _ in range(1000):
        add(journal)
    assert journal.bytes <= 200_000
    assert walk(journal)[:2] == [1, 1002]
    assert walk(journal)[2] == journal.first
    messages, size = journal.lost(1, 0)
    assert messages == journal.first - 1 - 2
    assert size > messages * 1000
    assert journal.lost(journal.first, 0) == (0, 0)


def test_what_is_kept_longer_is_bounded_too():
    journal = ring(200_000)
    for _ in range(5000):
        add(journal, "status", 10)
    assert len(walk(journal)) < 500
    assert walk(journal)[-1] == 5000


def test_a_message_larger_than_the_ring_stays_for_a_while():
    journal = ring(100_000)
    big = add(journal, size=1_000_000)
    add(journal, "status", 10)
    assert walk(journal) == [1, 2]
    for _ in range(50):
        add(journal)
    assert big.number not in walk(journal)
    assert journal.bytes <= 100_000


@given(st.lists(st.tuples(st.sampled_from(["stream", "status"]), st.integers(0, 3000)), max_size=300), st.data())
def test_a_reader_and_what_it_is_told_it_lost_make_up_everything(messages, data):
    journal = ring(60_000)
    entries = [add(journal, msg_type, size) for msg_type, size in messages]
    cursor = data.draw(st.integers(1, len(entries) + 1))
    had = sum(entry.size for entry in entries[: cursor - 1])
    seen = walk(journal, cursor)
    assert seen == sorted(set(seen))
    lost, size = journal.lost(cursor, had)
    assert lost + len(seen) == len(entries) - cursor + 1
    assert size == sum(entry.size for entry in entries[cursor - 1 :] if entry.number not in seen)


def test_frames_are_built_once_per_protocol_and_let_go_when_all_have_passed():
    journal = Journal()
    entry = add(journal)
    frame = entry.frame(V1_SUBPROTOCOL, keep=True)
    assert frame[0] is Opcode.BINARY
    assert entry.frame(V1_SUBPROTOCOL, keep=True) is frame
    assert entry.frame(None, keep=True)[0] is Opcode.TEXT
    journal.release_frames(1)
    assert entry.frame(V1_SUBPROTOCOL, keep=False) is frame
    journal.release_frames(2)
    assert entry.frames is None
    assert entry.frame(V1_SUBPROTOCOL, keep=False) is not frame
    assert entry.frames is None


def test_a_reader_far_behind_holds_no_frames():
    journal = Journal()
    for _ in range(200):
        add(journal).frame(None, keep=True)
        journal.release_frames(1)
    held = [number for number in range(1, 201) if journal.next_entry(number).frames]
    assert len(held) <= 65


@pytest.mark.parametrize("bad", [b"[]", b'{"text":"\xff"}'])
def test_what_the_default_protocol_cannot_carry_is_a_value_error(bad):
    journal = Journal()
    entry = journal.add("iopub", "m", "stream", [b"{}", b"{}", b"{}", bad])
    with pytest.raises(ValueError, match="content"):
        entry.frame(None, keep=True)
    assert entry.frame(V1_SUBPROTOCOL, keep=True)
