"""The part of a journal on disk: everything comes back, limits hold, files have no names, a full disk is a loss."""

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eg_launcher import spill as spill_module
from eg_launcher.journal import BLOCK, Journal, JournalLimits
from eg_launcher.spill import Room, spill_folder

KILO = b"x" * 1000


@pytest.fixture
def room(tmp_path):
    room = Room(tmp_path)
    yield room
    room.close()


def add(journal, text=KILO, msg_type="stream", target=None):
    parts = [b'{"msg_id":"m"}', b'{"msg_id":"p"}', b"{}", b'{"text":"' + text + b'"}', b"\x00buffer"]
    return journal.add("iopub" if target is None else "shell", "m", msg_type, parts, target, "p")


def written(room):
    """Wait until the writer has done all that it was told."""
    done = threading.Event()
    segment = spill_module.Segment()
    room.do(segment)

    def look():
        if not room._work:
            done.set()
        else:
            threading.Timer(0.005, look).start()

    look()
    assert done.wait(10)
    room.close()


def test_everything_comes_back_as_it_was(room):
    journal = Journal(JournalLimits(memory=300_000), room)
    for number in range(3000):
        add(journal, b"%d" % number + KILO, target="ann" if number % 7 == 0 else None)
    written(room)
    assert journal.bytes <= 300_000
    assert journal.on_disk > 2_000_000
    assert journal.first == 1
    entries = list(journal.entries(1, journal.next))
    assert [entry.number for entry in entries] == list(range(1, 3001))
    assert all(entry.parts[3].startswith(b'{"text":"%dx' % (entry.number - 1)) for entry in entries)
    assert {(entry.channel, entry.target, entry.parent) for entry in entries} == {
        ("iopub", None, "p"),
        ("shell", "ann", "p"),
    }
    assert entries[-1].total == journal.total
    assert [entry.total - entry.size for entry in entries[1:]] == [entry.total for entry in entries[:-1]]


def test_what_has_not_been_written_yet_can_be_read(tmp_path):
    room = Room(tmp_path)
    room.do = lambda work: None  # a disk that takes for ever
    journal = Journal(JournalLimits(memory=2 * BLOCK), room)
    for _ in range(800):
        add(journal)
    assert [entry.number for entry in journal.entries(1, journal.next)] == list(range(1, 801))


def test_what_a_disk_has_no_time_for_is_a_hole_and_memory_is_bounded(room, monkeypatch):
    """What is on the disk already stays, and what comes later is held: only what would not fit is lost."""
    monkeypatch.setattr(spill_module, "UNWRITTEN", 2_000_000)
    journal = Journal(JournalLimits(memory=300_000), room)
    for _ in range(1500):
        add(journal)
    written(room)
    early = journal.next - 1
    room.do, do = (lambda work: None), room.do  # it stalls …
    for _ in range(6000):
        add(journal)
    assert sum(len(block.data or b"") for block in journal._spill.blocks) <= 2_000_000
    room.do = do  # … and goes on
    for _ in range(500):
        add(journal, b"late")
    numbers = [entry.number for entry in journal.entries(1, journal.next)]
    assert journal.first == 1
    assert numbers[:1200] == list(range(1, 1201))
    assert numbers[-500:] == list(range(journal.next - 500, journal.next))
    missing = sorted(set(range(1, journal.next)) - set(numbers))
    assert missing == list(range(missing[0], missing[-1] + 1))
    assert missing[0] > 1200
    assert early < missing[-1]
    entry = next(entry for entry in journal.entries(missing[0] - 1, journal.next))
    assert journal.lost(missing[0], entry.total)[0] == len(missing)
    after = journal.next_entry(missing[0])
    assert journal.lost(missing[0], entry.total)[1] == after.total - after.size - entry.total
    assert journal.held_from(missing[0]) == missing[-1] + 1
    assert not journal.whole(1, journal.next)
    assert journal.whole(1, missing[0])
    assert journal.whole(missing[-1] + 1, journal.next)


def test_all_that_waits_for_the_disk_is_bounded_for_all(tmp_path):
    room = Room(tmp_path, memory=3_000_000)
    room.do = lambda work: None
    journals = [Journal(JournalLimits(memory=300_000), room) for _ in range(8)]
    for _ in range(2000):
        for journal in journals:
            add(journal)
    assert room.waiting == sum(journal._spill.waiting for journal in journals)
    assert room.waiting <= 3_000_000
    assert sum(len(b.data or b"") for journal in journals for b in journal._spill.blocks) <= 3_000_000


def test_the_file_has_no_name_and_ends_with_the_journal(room, tmp_path):
    journal = Journal(JournalLimits(memory=100_000), room)
    for _ in range(2000):
        add(journal)
    written(room)
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path)
    journal.close()
    written(room)
    assert room.used == 0
    assert room.on_disk == 0
    assert not open_files(tmp_path)


def open_files(folder):
    """Those of this process in a folder, deleted or not."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(str(folder))]


def test_the_disk_is_bounded_for_one_and_for_all(tmp_path):
    room = Room(tmp_path, disk=6_000_000)
    journals = [Journal(JournalLimits(memory=300_000, disk=4_000_000), room) for _ in range(3)]
    for _ in range(8000):
        for journal in journals:
            add(journal)
    assert max(journal.on_disk for journal in journals) <= 4_000_000
    assert room.on_disk <= 6_000_000
    for journal in journals:
        numbers = [entry.number for entry in journal.entries(journal.first, journal.next)]
        assert numbers == list(range(journal.first, journal.next))
    room.close()


def test_memory_is_bounded_for_all(tmp_path):
    room = Room(tmp_path, memory=2_000_000)
    journals = [Journal(JournalLimits(), room) for _ in range(20)]
    for _ in range(500):
        for journal in journals:
            add(journal)
    assert room.used == sum(journal.bytes for journal in journals)
    assert room.used <= 2_000_000
    room.close()


def test_a_full_disk_is_a_loss_and_goes_on_when_there_is_room_again(tmp_path, monkeypatch, caplog):
    room = Room(tmp_path)
    full = True
    real = os.pwritev

    def pwritev(fd, buffers, offset):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    journal = Journal(JournalLimits(memory=300_000), room)
    for _ in range(2000):
        add(journal)
    written(room)
    assert journal.next_entry(1).number > 1
    assert journal.first > 1
    assert "No space left" in caplog.text
    full = False
    first = journal.first
    for _ in range(2000):
        add(journal)
    written(room)
    assert journal.first == first
    assert [entry.number for entry in journal.entries(first, journal.next)] == list(range(first, journal.next))
    room.close()


def test_a_disk_that_fails_when_it_is_read_is_a_loss(room, monkeypatch):
    journal = Journal(JournalLimits(memory=300_000), room)
    for _ in range(2000):
        add(journal)
    written(room)
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    assert journal.next_entry(1).number == journal.first > 1


def test_what_is_too_old_goes(room):
    journal = Journal(JournalLimits(memory=300_000, age=100.0), room)
    now = 1000.0
    for _ in range(10):
        for _ in range(50):
            add(journal)
        journal.expire(now)
        now += 61
    assert journal.first > 1
    journal.expire(now + 1000)
    assert journal.first == journal.next


def test_what_ends_a_cell_is_kept_longer_than_output(tmp_path):
    room = Room(tmp_path)
    journal = Journal(JournalLimits(memory=300_000, disk=2_000_000), room)
    add(journal, b"", "execute_reply", target="ann")
    for _ in range(10_000):
        add(journal)
    assert journal.first > 1
    assert journal.next_entry(1).number == 1
    assert journal.next_entry(2).number == journal.first
    room.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=60))
def test_sizes_of_all_kinds(tmp_path_factory, sizes):
    room = Room(tmp_path_factory.mktemp("spill"))
    journal = Journal(JournalLimits(memory=400_000), room)
    for size in sizes:
        add(journal, b"y" * size)
    assert [len(entry.parts[3]) - 11 for entry in journal.entries(1, journal.next)] == sizes
    room.close()


def test_a_folder_in_memory_is_passed_over(tmp_path):
    assert spill_folder(["/dev/shm", str(tmp_path / "absent"), str(tmp_path)]) in (tmp_path, None)
    assert spill_folder(["/dev/shm"]) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_reader_and_what_it_is_told_it_lost_make_up_everything(tmp_path_factory, data):
    room = Room(tmp_path_factory.mktemp("spill"))
    journal = Journal(JournalLimits(memory=300_000), room)
    kinds = st.sampled_from(["stream", "stream", "stream", "status"])
    entries = [add(journal, msg_type=data.draw(kinds)) for _ in range(40)]
    entries += [add(journal) for _ in range(2000)]
    blocks = list(journal._spill.blocks)
    for index in data.draw(st.sets(st.integers(0, len(blocks) - 1))):
        journal._spill.lose(blocks[index])
    cursor = begin = data.draw(st.integers(1, journal.next - 1))
    total, told, count, size = entries[cursor - 1].total - entries[cursor - 1].size, 0, 0, 0
    seen = []
    while cursor < journal.next:  # as a channel does
        entry = journal.next_entry(cursor)
        if entry.number > cursor and journal.held_from(cursor) > told:
            more = journal.lost(cursor, total)
            told, count, size = journal.held_from(cursor), count + more[0], size + more[1]
        seen.append(entry.number)
        cursor, total = entry.number + 1, max(total, entry.total)
    missing = set(range(begin, journal.next)) - set(seen)
    assert count == len(missing)
    assert size == sum(entry.size for entry in entries if entry.number in missing)
    room.close()
