"""What a session that comes back is sent, on a page that shows it as JupyterLab would, over all kinds of cuts."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eg_launcher.conversation import NotResumable
from eg_launcher.journal import JournalLimits
from eg_launcher.wire import PEER_EXACT, PEER_STRONG, PEER_WEAK
from launcher_kernel_host import until
from launcher_page import Clock, Page, SilentKernel


def cell_of(page, request):
    return page.cells[json.loads(request)["msg_id"]]


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def kernel():
    return SilentKernel()


def lines(kernel, request, numbers):
    for number in numbers:
        kernel.prints(f"{number}\n", request)


def wanted(*numbers):
    return [f"{number}\n" for number in numbers]


async def acknowledged(page):
    """Read on until the page's network has answered for everything."""

    def done():
        page.read()
        return page.channel.session.acked == page.kernel.journal.next - 1

    await until(done, "everything to be acknowledged")


async def test_what_came_while_nobody_was_there_comes_then(kernel):
    page = Page(kernel)
    request = page.asks()
    lines(kernel, request, range(3))
    page.read()
    page.cut()
    lines(kernel, request, range(3, 6))
    kernel.says("execute_reply", {"status": "ok"}, parent=request, channel="shell")
    page.connect()
    page.read()
    assert cell_of(page, request) == wanted(*range(6))
    assert page.seen[-1].type == "execute_reply"


async def test_first_the_truth_under_the_kernels_own_session(kernel):
    page = Page(kernel)
    request = page.asks()
    lines(kernel, request, range(3))
    page.read()
    page.cut()
    page.seen.clear()
    page.connect()
    page.read()
    assert page.seen[0].type == "status"
    assert page.seen[0].parent == {}
    assert {message.header["session"] for message in page.seen} == {"kernel-session"}


async def test_a_frozen_page_whose_network_answers_gets_its_cell_written_again(kernel, clock):
    page = Page(kernel)
    request = page.asks()
    lines(kernel, request, range(3))
    page.read()
    clock.pass_by(60)
    page.awake = False
    lines(kernel, request, range(3, 8))
    page.read()
    await acknowledged(page)
    page.cut()
    page.awake = True
    lines(kernel, request, range(8, 10))
    page.connect()
    page.read()
    assert cell_of(page, request) == wanted(*range(10))


async def test_only_what_is_in_doubt_is_written_again(kernel, clock):
    page = Page(kernel)
    old = page.asks()
    lines(kernel, old, range(3))
    page.read()
    clock.pass_by(10)
    await acknowledged(page)
    clock.pass_by(10)
    new = page.asks()  # a page that speaks is alive
    lines(kernel, new, range(3))
    page.read()
    page.cut()
    page.seen.clear()
    page.connect()
    page.read()
    assert [m.parent["msg_id"] for m in page.seen if m.type == "clear_output"] == [json.loads(new)["msg_id"]]
    assert cell_of(page, old) == wanted(0, 1, 2)
    assert cell_of(page, new) == wanted(0, 1, 2)


async def test_a_second_cut_in_the_middle_of_a_replay_loses_nothing(kernel, clock):
    page = Page(kernel)
    request = page.asks()
    lines(kernel, request, range(20))
    page.awake = False
    page.read()
    page.awake = True
    for most in (5, None):
        page.cut()
        page.connect()
        page.asks("kernel_info_request")
        clock.pass_by(8)
        page.asks("kernel_info_request")
        page.read(most)
    assert cell_of(page, request) == wanted(*range(20))


async def test_output_of_others_comes_again_only_when_it_was_not_acknowledged(kernel):
    page, other = Page(kernel), Page(kernel, session_id="other")
    theirs = other.asks()
    page.cells[json.loads(theirs)["msg_id"]] = []
    lines(kernel, theirs, range(3))
    await acknowledged(page)
    await acknowledged(page)
    page.answers = False
    lines(kernel, theirs, range(3, 5))
    page.awake = False
    page.read()
    page.awake = True
    page.cut()
    page.connect()
    page.read()
    assert cell_of(page, theirs) == wanted(*range(5))


async def test_a_strong_peer_gets_what_it_has_not_acknowledged(kernel):
    page = Page(kernel, PEER_STRONG)
    request = page.asks()
    lines(kernel, request, range(3))
    page.read()
    await acknowledged(page)
    assert page.channel.session.acked == kernel.journal.next - 1
    lines(kernel, request, range(3, 6))
    page.cut()  # none of it arrived
    page.connect()
    page.read()
    assert cell_of(page, request) == wanted(*range(6))
    assert not [m for m in page.seen if m.type == "clear_output"]


async def test_an_exact_peer_goes_on_behind_the_frame_it_names(kernel):
    page = Page(kernel, PEER_EXACT)
    page.read()
    request = page.asks()
    lines(kernel, request, range(10))
    page.read(4)
    page.cut()
    lines(kernel, request, range(10, 12))
    page.resume()
    page.read()
    assert cell_of(page, request) == wanted(*range(12))


async def test_an_exact_peer_goes_on_while_its_last_socket_is_still_there(kernel):
    """Half-open: the place is right though messages were made for that socket alone, and that one goes on, too."""
    page = Page(kernel, PEER_EXACT)
    page.read()
    request = page.asks()
    lines(kernel, request, range(3))
    page.read()
    page.resume()
    page.read()  # its state, which is no entry of the journal
    forsaken = page.channel, page.connection
    page.resume()
    lines(kernel, request, range(3, 5))
    page.read()
    assert cell_of(page, request) == wanted(*range(5))
    page.channel.on_close()
    page.channel, page.connection = forsaken
    page.read()
    assert cell_of(page, request)[5:] == wanted(3, 4)


async def test_an_exact_peer_of_an_earlier_launcher_gets_all_there_is(kernel):
    page = Page(kernel, PEER_EXACT)
    page.read()
    page.ping = ("0" * 12, 700, 1, 0)
    request = page.asks()
    lines(kernel, request, range(3))
    page.cut()
    page.resume()
    page.read()
    assert cell_of(page, request) == wanted(0, 1, 2)


async def test_messages_for_others_and_made_here_count_right_on_a_link(kernel):
    page, other = Page(kernel), Page(kernel, session_id="other")
    page.read()
    request = page.asks()
    theirs = other.asks()
    for number in range(6):
        kernel.prints(f"{number}\n", request)
        kernel.says("execute_reply", {}, parent=theirs, channel="shell")
        page.channel.say_notice(f"notice {number}", request)
    for read in (1, 2, 3, 1, 5, None):
        page.read(read)
        page.connection.sent.clear()  # what was on its way is gone
        page.relink()
    page.read()
    shown = cell_of(page, request)
    assert [text for text in shown if "notice" not in text] == wanted(*range(6))
    assert sorted(text for text in shown if "notice" in text) == [f"notice {n}" for n in range(6)]


async def test_a_link_counts_what_has_come_from_the_client(kernel):
    page = Page(kernel)
    page.read()
    for _ in range(3):
        page.asks()
    opening = kernel.opening(session_id="page", link=page.channel.link, after=None)
    assert opening.left is None  # nothing goes on
    page.relink()
    assert page.channel.received == 3
    page.asks()
    page.relink()
    assert page.channel.received == 4


async def test_a_link_that_cannot_go_on_exactly_is_refused(kernel):
    page = Page(kernel)
    page.read()
    page.ping = (kernel.journal.epoch, 1, 77, 0)
    with pytest.raises(NotResumable):
        page.relink()


async def test_an_unanswered_prompt_stands_there_once(kernel):
    page = Page(kernel)
    request = page.asks()
    kernel.prints("who?\n", request)
    kernel.says("input_request", {"prompt": "?"}, parent=request, channel="stdin")
    page.read()
    for _ in range(2):
        page.cut()
        page.connect()
        page.read()
    assert cell_of(page, request) == ["who?\n", "?"]
    page.asks("input_reply", channel="stdin")
    page.cut()
    page.seen.clear()
    page.connect()
    page.read()
    assert not [m for m in page.seen if m.type == "input_request"]


async def test_after_a_restart_nothing_old_comes_again(kernel):
    page = Page(kernel)
    request = page.asks()
    lines(kernel, request, range(3))
    page.read()
    kernel.talk.begin_anew()
    page.cut()
    page.seen.clear()
    page.connect()
    page.read()
    assert [message.type for message in page.seen] == ["status"]


async def test_without_a_session_there_is_no_past(kernel):
    page = Page(kernel, session_id=None)
    request = page.asks()
    lines(kernel, request, range(3))
    page.cut()
    page.connect()
    page.read()
    assert cell_of(page, request) == []


async def test_replay_can_be_switched_off():
    kernel = SilentKernel(JournalLimits(replay=False))
    page = Page(kernel)
    request = page.asks()
    page.cut()
    lines(kernel, request, range(3))
    page.connect()
    lines(kernel, request, range(3, 5))
    page.read()
    assert cell_of(page, request) == wanted(3, 4)


async def test_a_beginning_that_is_gone_is_said():
    kernel = SilentKernel(JournalLimits(memory=100_000, disk=0))
    page = Page(kernel)
    request = page.asks()
    for number in range(20):
        kernel.prints(f"{number}" * 10_000, request)
        page.read()
    page.cut()
    page.connect()
    page.read()
    notices = [m for m in page.seen if m.type == "stream" and m.content["name"] == "stderr"]
    assert "beginning" in notices[0].content["text"]
    assert notices[0].parent == json.loads(request)


async def test_older_sockets_of_a_session_stay_open(kernel):
    page = Page(kernel)
    first = page.channel
    page.connect()
    request = page.asks()
    lines(kernel, request, range(2))
    assert not first.closed
    page.cut()
    assert first.session.newest is first


@pytest.mark.parametrize("peer", [PEER_STRONG, PEER_EXACT])
async def test_cuts_of_any_cause_leave_nothing_out(kernel, peer):
    """Where what is suspect comes one by one, each cut meets one of them on its way: which it is, is chance."""
    page = Page(kernel, peer)
    page.read()
    request = page.asks()
    lines(kernel, request, range(9))
    for had in (0, 0, 3, 5):
        page.read(had)
        page.cut()
        page.resume() if peer == PEER_EXACT else page.connect()
    await until(lambda: page.read() or len(set(cell_of(page, request))) == 9, "all lines")
    assert not [text for text in cell_of(page, request) if "left out" in text]
    if peer == PEER_EXACT:
        assert cell_of(page, request) == wanted(*range(9))


async def test_sockets_that_end_together_are_one_cut(kernel):
    """A gateway is killed: with the newest socket go older ones, half-open, and an entry was on its way on all."""
    page = Page(kernel, PEER_STRONG)
    sockets = [page.channel]
    request = page.asks()
    page.read()
    for _ in range(2):
        page.connect()
        page.read()
        sockets.append(page.channel)
    page.awake = page.answers = False
    lines(kernel, request, range(1))
    page.read()
    for channel in reversed(sockets):
        channel.on_close()
    page.awake = page.answers = True
    page.connect()
    page.read()
    assert cell_of(page, request) == wanted(0)


@pytest.mark.parametrize("peer", [PEER_WEAK, PEER_STRONG])
async def test_what_breaks_its_receiver_three_times_is_left_out(kernel, peer):
    page = Page(kernel, peer)
    page.read()
    request = page.asks()
    cuts, page.breaks_on = 0, "POISON"
    lines(kernel, request, ["a", "b", "POISON", "c", "d"])
    while cuts < 10:
        try:
            page.read()
            break
        except ConnectionResetError:
            cuts += 1
            page.cut()
            page.connect()
    shown = cell_of(page, request)
    assert cuts == 4  # two to find it among the others, two of its own
    assert [text for text in shown if "left out" in text and "broke" in text]
    told = [text for text in shown if "left out" not in text]
    assert (set(told) if peer == PEER_STRONG else told) == (set if peer == PEER_STRONG else list)(wanted(*"abcd"))


actions = st.lists(
    st.one_of(
        st.tuples(st.just("print"), st.integers(1, 5)),
        st.tuples(st.just("read"), st.integers(0, 8)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("half-open"), st.booleans()),
        st.tuples(st.just("pass"), st.sampled_from([0.3, 2.0, 6.0, 40.0])),
        st.tuples(st.just("ask"), st.just(0)),
        st.tuples(st.just("speak"), st.just(0)),
        st.tuples(st.just("tick"), st.just(0)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("peer", [PEER_WEAK, PEER_STRONG, PEER_EXACT])
@settings(max_examples=150, deadline=None)
@given(steps=actions)
def test_every_line_once_and_in_order_whatever_happens(peer, steps):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("eg_launcher.sessions.POISON_AFTER", 10_000)
        asyncio.run(live_through(peer, steps, Clock(monkeypatch)))


async def live_through(peer, steps, clock):  # noqa: PLR0912 - one for each step
    kernel = SilentKernel()
    page = Page(kernel, peer)
    page.read()
    printed = {}
    request = None

    def reconnect():
        page.cut()
        page.awake = True
        if peer == PEER_EXACT:
            page.resume()
        else:
            page.connect()
            page.asks("kernel_info_request")

    for what, value in steps:
        if what == "print" and request is not None:
            for _ in range(value):
                printed[request].append(f"{len(printed[request])}\n")
                kernel.prints(printed[request][-1], request)
        elif what == "read":
            page.read(value)
        elif what == "cut":
            reconnect()
        elif what == "half-open" and peer == PEER_WEAK:
            page.awake = False
            page.answers = value
            page.read()
        elif what == "pass":
            clock.pass_by(value)
        elif what == "ask" and page.awake:
            request = page.asks()
            printed[request] = []
        elif what == "speak" and page.awake:
            page.asks("kernel_info_request")
        elif what == "tick":
            await asyncio.sleep(0)
            kernel.talk.pump()
    reconnect()
    page.answers = True
    page.read()
    await asyncio.sleep(0)
    page.read()
    for request, texts in printed.items():
        shown = cell_of(page, request)
        if peer == PEER_STRONG:
            assert set(texts) <= set(shown)
        else:
            assert shown == texts
