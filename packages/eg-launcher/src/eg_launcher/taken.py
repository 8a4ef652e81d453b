"""Output that a widget on the page takes for itself (ipywidgets' ``Output``, and with it ``interact``). Pure.

A comm message sets the widget's ``msg_id`` to a request's: from there on the page gives that request's output to the
widget instead of the cell, until another comm message sets it to nothing. Whoever writes a request again has to say
both again, and must not put into the cell what was the widget's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Iterable

from eg_launcher.journal import Entry

_OUTPUT = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"})
_LARGEST_SWITCH = 64 * 1024


@dataclass
class Taken:
    """Of one request, by number: ``switches`` are the comm messages; ``renewed`` is output behind a ``clear_output``
    that the widget took, too, so that it can be written again; ``kept`` is output that would stand there twice."""

    comms: list[str] = field(default_factory=list)
    switches: set[int] = field(default_factory=set)
    renewed: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)


def taken_of(entries: Iterable[Entry], msg_id: str) -> Taken:
    """``entries``: from the request's first on."""
    taken = Taken()
    taking: set[str] = set()
    numbers = taken.kept
    fresh = False
    for entry in entries:
        if entry.parent != msg_id or entry.channel != "iopub":
            continue
        if entry.msg_type == "comm_msg":
            comm, target = _switch(entry)
            if comm:
                taken.switches.add(entry.number)
                if comm not in taken.comms:
                    taken.comms.append(comm)
                (taking.add if target == msg_id else taking.discard)(comm)
                fresh = True
        elif taking and entry.msg_type in _OUTPUT:
            if fresh:
                numbers = taken.renewed if entry.msg_type == "clear_output" else taken.kept
                fresh = False
            numbers.add(entry.number)
    return taken


def nothing_more(comm: str) -> dict[str, object]:
    """The content of a comm message that tells a widget to take no more."""
    return {"comm_id": comm, "data": {"method": "update", "state": {"msg_id": ""}, "buffer_paths": []}}


def _switch(entry: Entry) -> tuple[str, str]:
    """The widget and the request it takes from now on; nothing if it is any other comm message."""
    content = entry.parts[3]
    if b'"msg_id"' not in content or len(content) > _LARGEST_SWITCH:
        return "", ""
    try:
        said = json.loads(content)
        comm, data = said["comm_id"], said["data"]
        target = data["state"]["msg_id"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return "", ""
    wanted = data.get("method") == "update" and isinstance(comm, str) and isinstance(target, str)
    return (comm, target) if wanted else ("", "")
