"""Records to rows and back. Pure: bounds, JSON and encryption.

A value that is too large is refused by field name; words for people (a message, the lines of a dead kernel's stderr)
are cut instead, because a kernel's end must never fail to be recorded for being told at length.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from eg_core.errors import InvalidRequest
from eg_core.store.cipher import Cipher
from eg_core.store.errors import StoreError
from eg_core.store.records import KernelRecord, LauncherRecord, SessionRecord
from eg_core.store.schema import NAME_LENGTH, PATH_LENGTH
from eg_core.types import KernelHandle, KernelStart, ProcessInfo

# In bytes of JSON.
LIMITS = {
    "options": 1024 * 1024,
    "labels": 64 * 1024,
    "start": 16 * 1024 * 1024,
    "handle": 256 * 1024,
    "process": 4 * 1024,
    "exit": 64 * 1024,
}
MESSAGE_LENGTH = 8 * 1024
MAX_SECRET = 64 * 1024

_NAMES = ("kernel_id", "kernelspec", "backend", "owner", "run_as", "state", "reason")
_OPTIONAL = ("run_as", "reason", "message", "handle", "process", "exit")
_TIMES = ("created_at", "updated_at")
KERNEL_FIELDS = tuple(field.name for field in dataclasses.fields(KernelRecord))


def kernel_values(record: KernelRecord, cipher: Cipher) -> dict[str, Any]:
    return changed_values(record.kernel_id, {name: getattr(record, name) for name in KERNEL_FIELDS}, cipher)


def changed_values(kernel_id: str, fields: Mapping[str, Any], cipher: Cipher) -> dict[str, Any]:
    """The columns' values for some of a kernel's fields."""
    return {name: _to_column(kernel_id, name, value, cipher) for name, value in fields.items()}


def _to_column(kernel_id: str, name: str, value: Any, cipher: Cipher) -> Any:
    if value is None and name in _OPTIONAL:
        return None
    if name in _NAMES:
        return check_name(name, value)
    if name in _TIMES:
        return float(value)
    if name == "message":
        return _clean(str(value), MESSAGE_LENGTH)
    if name in ("start", "handle", "process"):
        value = dataclasses.asdict(value)
    if name == "exit":
        value = _shorten_exit(value)
    text = _dump(name, value)
    return cipher.seal(text.encode(), place(kernel_id, name)) if name in ("start", "options") else text


def kernel_record(row: Mapping[str, Any], cipher: Cipher) -> KernelRecord:
    kernel_id = row["kernel_id"]
    try:
        values = {name: row[name] for name in (*_NAMES, *_TIMES, "message")}
        values["labels"] = json.loads(row["labels"])
        for name in ("options", "start"):
            values[name] = json.loads(cipher.unseal(row[name], place(kernel_id, name)))
        values["start"] = KernelStart(**values["start"])
        for name, build in (("handle", KernelHandle), ("process", ProcessInfo), ("exit", dict)):
            values[name] = None if row[name] is None else build(**json.loads(row[name]))
    except (ValueError, TypeError) as error:
        raise StoreError(f"The store's row of kernel {kernel_id} is damaged.", detail=repr(error)) from error
    return KernelRecord(**values)


def launcher_values(record: LauncherRecord, cipher: Cipher) -> dict[str, Any]:
    launcher_id = check_name("launcher_id", record.launcher_id)
    return {
        "launcher_id": launcher_id,
        "backend": check_name("backend", record.backend),
        "token": cipher.seal(check_name("token", record.token).encode(), f"launchers/{launcher_id}/token"),
        "created_at": float(record.created_at),
    }


def launcher_record(row: Mapping[str, Any], cipher: Cipher) -> LauncherRecord:
    token = cipher.unseal(row["token"], f"launchers/{row['launcher_id']}/token").decode()
    return LauncherRecord(row["launcher_id"], row["backend"], token, row["created_at"])


def session_values(record: SessionRecord) -> dict[str, Any]:
    values = dataclasses.asdict(record)
    for name in ("session_id", "kernel_id", "owner", "type"):
        check_name(name, values[name])
    for name in ("path", "name"):
        if "\0" in values[name] or len(values[name]) > PATH_LENGTH:
            raise InvalidRequest(f"{name} must have at most {PATH_LENGTH} characters and no NUL byte.")
        values[name] = _clean(values[name], PATH_LENGTH)
    return values


def place(kernel_id: str, name: str) -> str:
    return f"kernels/{kernel_id}/{name}"


def check_name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{field} must be a string that is not empty.")
    if len(value) > NAME_LENGTH:
        raise InvalidRequest(f"{field} has {len(value)} characters; at most {NAME_LENGTH} are allowed.")
    if "\0" in value or not value.isprintable():
        raise InvalidRequest(f"{field} holds characters that cannot be printed.")
    return value


def _dump(name: str, value: Any) -> str:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object.")
    try:
        text = json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{name} cannot be written as JSON: {error}.") from error
    if len(text) > LIMITS[name]:
        raise InvalidRequest(f"{name} takes {len(text)} bytes as JSON; at most {LIMITS[name]} are allowed.")
    return text


def _shorten_exit(value: dict[str, Any]) -> dict[str, Any]:
    """Keeps the last lines of stderr, and the end of each string, as far as the limit allows."""
    share = LIMITS["exit"] // 64
    short = {k: _clean(v, MESSAGE_LENGTH // 2) if isinstance(v, str) else v for k, v in value.items()}
    if isinstance(value.get("stderr"), list):
        lines = short["stderr"] = [_clean(str(line), share, keep_end=True) for line in value["stderr"][-40:]]
        while lines and len(json.dumps(short, separators=(",", ":"))) > LIMITS["exit"]:
            del lines[0]
    return short


def _clean(text: str, length: int, *, keep_end: bool = False) -> str:
    """Text that every database takes: no NUL, no lone surrogates, not too long."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    if len(text) <= length:
        return text
    return "…" + text[1 - length :] if keep_end else text[: length - 1] + "…"
