"""What a session that comes back is sent first: what may not have arrived, so that nothing is missing or stands twice.

A *strong* peer gets what it has not acknowledged, as it was. A *weak* one (a browser, or a server in front of one) may
have had all of it or nothing. So each of its cells with output in the window of doubt is written again: a
``clear_output`` under the request's header, then its output from the first on. Whatever else is in the window and not
acknowledged is sent as it was. What a widget took for itself goes to the widget again (``taken``).
"""

from __future__ import annotations

from typing import Iterator, Tuple, Union

from eg_launcher.journal import Entry, Journal
from eg_launcher.sessions import Asked, Session
from eg_launcher.signing import make_message
from eg_launcher.taken import Taken, nothing_more, taken_of

Item = Union[Entry, Tuple[str, "list[bytes]"]]
"""An entry of the journal, or a channel and a message that is made here."""

_WRITTEN_AGAIN = frozenset(
    {
        "stream",
        "display_data",
        "update_display_data",
        "execute_result",
        "error",
        "clear_output",
        "execute_input",
        "status",
        "execute_reply",
    }
)


def replay(journal: Journal, session: Session, *, strong: bool, kernel_session: str) -> Iterator[Item]:
    """Everything up to ``session.sent`` that this session is to have again. What it was never sent follows live."""
    safe, sent = session.window(strong=strong)
    if sent <= safe:
        return iter(())
    acked = max(safe, session.acked)
    doubtful = [] if strong else [asked for asked in session.asked.values() if _in_doubt(asked, safe, sent)]
    whole = {asked.msg_id: asked for asked in doubtful if journal.whole(asked.first, asked.last + 1)}
    return _items(journal, session, whole, [one for one in doubtful if one.msg_id not in whole and _is_cell(one)],
                  acked=acked, sent=sent, strong=strong, kernel_session=kernel_session)  # fmt: skip


def _items(
    journal: Journal,
    session: Session,
    whole: dict[str, Asked],
    cut: list[Asked],
    *,
    acked: int,
    sent: int,
    strong: bool,
    kernel_session: str,
) -> Iterator[Item]:
    prompt = 0 if strong else session.prompt
    taken = {
        asked.msg_id: taken_of(journal.entries(asked.first, min(asked.last, sent) + 1), asked.msg_id)
        for asked in whole.values()
        if asked.comms
    }
    for asked in whole.values():
        if not _is_cell(asked):
            continue
        for comm in taken[asked.msg_id].comms if asked.comms else ():
            # A page that was cut while the widget took output would give it the whole cell.
            content_ = nothing_more(comm)
            yield "iopub", make_message("comm_msg", content_, session=kernel_session, parent_header=asked.header)
        # A prompt must go at once: it is what would stand there twice.
        content = {"wait": not (prompt and session.prompt_parent == asked.msg_id)}
        yield "iopub", make_message("clear_output", content, session=kernel_session, parent_header=asked.header)
    for asked in cut:
        text = "[the beginning of this output is not kept any more; some of it may be missing here]\n"
        notice = {"name": "stderr", "text": text}
        yield "iopub", make_message("stream", notice, session=kernel_session, parent_header=asked.header)
    begin = min([acked + 1, *[asked.first for asked in whole.values()]])
    for entry in journal.entries(begin, sent + 1):
        if (entry.target is not None and entry.target != session.target) or entry.number == prompt:
            continue
        again = entry.parent in whole and _comes_again(entry, whole[entry.parent], taken.get(entry.parent))
        if entry.number > acked or again:
            yield entry
    if prompt and prompt <= sent:
        entry_ = journal.next_entry(prompt)
        if entry_ is not None and entry_.number == prompt:
            yield entry_


def _in_doubt(asked: Asked, safe: int, sent: int) -> bool:
    return (_is_cell(asked) or asked.comms) and safe < asked.last and 0 < asked.first <= sent


def _is_cell(asked: Asked) -> bool:
    return asked.msg_type == "execute_request"


def _comes_again(entry: Entry, asked: Asked, taken: Taken | None) -> bool:
    """Of a request in doubt: what a cell shows, and what a widget took."""
    if taken is not None:
        if entry.number in taken.switches or entry.number in taken.renewed:
            return True
        if entry.number in taken.kept:
            return False
    return _is_cell(asked) and entry.msg_type in _WRITTEN_AGAIN
