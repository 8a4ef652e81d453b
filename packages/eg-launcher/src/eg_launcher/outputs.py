"""What one request has put out, as nbformat's outputs: for a page that was reloaded and has no place for the messages.

Pure. The rules are a notebook's: streams of one name that follow each other are one output, ``clear_output`` clears
(at once, or before the next output), ``update_display_data`` changes what carries its ``display_id``.
"""

from __future__ import annotations

from typing import Any, Iterable

from eg_launcher.executions import parse_object
from eg_launcher.journal import Entry

MOST = 8 * 1024 * 1024
"""Bytes of messages that are gone through; what follows is left out, and that is said."""
_SHOWN = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"})


def outputs_of(entries: Iterable[Entry], parent: str) -> dict[str, Any]:
    """``{"outputs": [...], "execution_count": n|null, "status": "ok"|"error"|null, "truncated": bool}``.

    ``status`` is null while the request runs.
    """
    outputs: list[dict[str, Any]] = []
    displays: dict[str, list[dict[str, Any]]] = {}
    told: dict[str, Any] = {"outputs": outputs, "execution_count": None, "status": None, "truncated": False}
    clear, size = False, 0
    for entry in entries:
        if entry.parent != parent:
            continue
        size += entry.size
        if size > MOST:
            told["truncated"] = True
            break
        content = parse_object(entry.parts[3])
        if entry.msg_type in ("execute_input", "execute_reply", "execute_result"):
            told["execution_count"] = content.get("execution_count", told["execution_count"])
        if entry.msg_type == "execute_reply":
            told["status"] = content.get("status")
        if entry.channel != "iopub" or entry.msg_type not in _SHOWN:
            continue
        if entry.msg_type == "clear_output":
            clear = bool(content.get("wait"))
            if not clear:
                outputs.clear()
            continue
        if clear and entry.msg_type != "update_display_data":
            outputs.clear()
            clear = False
        _show(outputs, displays, entry.msg_type, content)
    return told


def _show(
    outputs: list[dict[str, Any]], displays: dict[str, list[dict[str, Any]]], kind: str, content: dict[str, Any]
) -> None:
    if kind == "stream":
        last = outputs[-1] if outputs else {}
        if last.get("output_type") == "stream" and last.get("name") == content.get("name"):
            last["text"] += str(content.get("text", ""))
        else:
            outputs.append({"output_type": "stream", "name": content.get("name"), "text": str(content.get("text", ""))})
        return
    if kind == "error":
        fields = {name: content.get(name) for name in ("ename", "evalue", "traceback")}
        outputs.append({"output_type": "error", **fields})
        return
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    shown = {"data": content.get("data", {}), "metadata": content.get("metadata", {})}
    if kind == "update_display_data":
        for displayed in displays.get(str(display_id), ()):
            displayed.update(shown)
        return
    output: dict[str, Any] = {"output_type": kind, **shown}
    if kind == "execute_result":
        output["execution_count"] = content.get("execution_count")
    if display_id is not None:
        displays.setdefault(str(display_id), []).append(output)
    outputs.append(output)
