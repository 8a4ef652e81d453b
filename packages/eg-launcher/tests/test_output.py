"""The ring of a kernel's own output: offsets into all of it, characters whole, bounded."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eg_launcher.output import OutputRing


def test_empty() -> None:
    ring = OutputRing()
    assert ring.read(0) == {"first": 0, "next": 0, "text": ""}
    assert ring.last_lines() == []
    assert (ring.first, ring.next) == (0, 0)


def test_a_reader_goes_on_where_it_was() -> None:
    ring = OutputRing()
    ring.feed(b"one\n")
    answer = ring.read(0)
    assert answer == {"first": 0, "next": 4, "text": "one\n"}
    assert ring.read(answer["next"]) == {"first": 4, "next": 4, "text": ""}
    ring.feed(b"two\n")
    assert ring.read(answer["next"]) == {"first": 4, "next": 8, "text": "two\n"}
    assert ring.read(99) == {"first": 8, "next": 8, "text": ""}
    assert ring.read(-5)["first"] == 0


def test_the_oldest_goes_first_and_the_gap_shows() -> None:
    ring = OutputRing(limit=10)
    for number in range(10):
        ring.feed(b"%d234" % number)
    assert (ring.first, ring.next) == (30, 40)
    assert ring.read(5) == {"first": 30, "next": 40, "text": "34" + "8234" + "9234"}
    ring.feed(b"x" * 1000)
    assert ring.read(0) == {"first": 1030, "next": 1040, "text": "x" * 10}


def test_a_character_that_has_not_come_whole_waits() -> None:
    ring = OutputRing()
    ring.feed(b"a\xe2\x82")
    assert ring.read(0) == {"first": 0, "next": 1, "text": "a"}
    ring.feed(b"\xac!")
    assert ring.read(1) == {"first": 1, "next": 5, "text": "€!"}


def test_a_character_cut_by_the_start_is_left_out() -> None:
    ring = OutputRing(limit=4)
    ring.feed("€€".encode())
    assert ring.read(0) == {"first": 3, "next": 6, "text": "€"}


def test_what_is_no_utf8_is_shown_as_such() -> None:
    ring = OutputRing()
    ring.feed(b"\xff\x80ok\x80")
    assert ring.read(0)["text"] == "\ufffd\ufffdok\ufffd"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # its first text takes long on a busy machine
@given(st.text(), st.lists(st.integers(1, 9)), st.integers(16, 64))
def test_a_reader_that_keeps_up_gets_everything(text: str, sizes: list[int], limit: int) -> None:
    data, ring, got, at = text.encode(), OutputRing(limit), "", 0
    for size in [*sizes, *[4] * len(data)]:
        ring.feed(data[:size])
        data = data[size:]
        answer = ring.read(at)
        assert answer["first"] == at
        got, at = got + answer["text"], answer["next"]
    assert got == text


def test_last_lines_are_what_a_terminal_would_show() -> None:
    ring = OutputRing()
    ring.feed(b"first\r\n\x1b[31mred\x1b[0m\n 10%\r 50%\r100%\n\n   \n\x1b]0;title\x07last")
    assert ring.last_lines() == ["first", "red", "100%", "last"]
    assert ring.last_lines(2) == ["100%", "last"]
    assert ring.last_lines(0) == []


def test_last_lines_are_bounded() -> None:
    ring = OutputRing()
    ring.feed(b"x" * 500_000 + b"\n" + b"y" * 5000)
    assert [len(line) for line in ring.last_lines()] == [1000, 1000]
