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
from eg_launcher.journal import BLOCK, UNWRITTEN, Journal, JournalLimits
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
    for _ in range(30_000):
        add(journal)
    assert journal.bytes + sum(block.length for block in journal._spill.blocks) < UNWRITTEN + 4 * BLOCK
    assert journal.first > 1
    assert journal.lost(1, 0)[0] == journal.first - 1


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
