"""What a kernel is started with: argv, environment, working directory. Pure, but for looking whether a file is there.

``check_start`` is the door: what passes it can be given to exec, so that everything behind it needs no checks.
"""

from __future__ import annotations

import errno
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from eg_launcher.journal import JournalLimits, check_journal
from eg_launcher.limits import Limits, check_limits

MAX_ARGV = 256
MAX_ENV = 4096
MAX_STRING = 128 * 1024 - 1
"""Linux takes 128 KiB for one string of argv or env, its end included."""
MAX_PATH = 4096
MAX_NAME = 255
MAX_READY_TIMEOUT = 7 * 24 * 3600.0
INTERRUPT_MODES = ("signal", "message")

BASE_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR")

_BARE_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_PYTHON_PATH = re.compile(r"python[\d.]*")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_IPYKERNEL_MODULES = ("ipykernel_launcher", "ipykernel")
_OPTIONS_WITH_VALUE = ("-X", "-W")
_NETWORK_OPTION = re.compile(r"--?(\w+\.)?(ip|transport)(=|$)")
_FLAGS = re.compile(r"-(?:[bBdEiIOPqsSuvx]+|X.+|W.+)")


@dataclass
class StartRequest:
    """The body of ``POST /kernels/{id}/start``, checked."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict, repr=False)
    cwd: Optional[str] = None
    interrupt_mode: str = "signal"
    name: str = ""
    ready_timeout: float = 3600.0
    limits: Limits = field(default_factory=Limits)
    journal: JournalLimits = field(default_factory=JournalLimits)


def check_start(body: dict[str, Any]) -> StartRequest:
    """The request, or a ValueError that names field and limit. Fields it does not know are passed over."""
    cwd = body.get("cwd")
    if cwd is not None:
        _check_string("cwd", cwd, MAX_PATH)
    name = _check_string("name", body.get("name", ""), MAX_NAME)
    mode = body.get("interrupt_mode", "signal")
    if mode not in INTERRUPT_MODES:
        raise ValueError(f"'interrupt_mode' must be one of {', '.join(INTERRUPT_MODES)}")
    return StartRequest(
        argv=_check_argv(body.get("argv")),
        env=_check_env(body.get("env", {})),
        cwd=cwd,
        interrupt_mode=mode,
        name=name,
        ready_timeout=_check_timeout(body.get("ready_timeout", 3600.0)),
        limits=check_limits(body.get("limits", {})),
        journal=check_journal(body.get("journal", {})),
    )


def _check_argv(argv: Any) -> list[str]:
    if not isinstance(argv, list) or not argv:
        raise ValueError("'argv' must be a list of at least one string")
    if len(argv) > MAX_ARGV:
        raise ValueError(f"'argv' has {len(argv)} items; the limit is {MAX_ARGV}")
    for position, item in enumerate(argv):
        _check_string(f"argv[{position}]", item, MAX_STRING)
    if not argv[0]:
        raise ValueError("'argv[0]', the program, must not be empty")
    return list(argv)


def _check_env(env: Any) -> dict[str, str]:
    if not isinstance(env, dict):
        raise ValueError("'env' must be an object of strings")
    if len(env) > MAX_ENV:
        raise ValueError(f"'env' has {len(env)} entries; the limit is {MAX_ENV}")
    for name, value in env.items():
        _check_string("a name in env", name, MAX_STRING)
        if not name or "=" in name:
            raise ValueError(f"'env' has the name {name[:80]!r}; a name must not be empty or hold '='")
        # A value may be a secret: it is never in the message.
        _check_string(f"env[{name[:80]}]", value, MAX_STRING - len(os.fsencode(name)) - 1)
    return dict(env)


def _check_timeout(value: Any) -> float:
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or not 0 < value <= MAX_READY_TIMEOUT:
        raise ValueError(f"'ready_timeout' must be a number of seconds above 0 and at most {MAX_READY_TIMEOUT:.0f}")
    return float(value)


def _check_string(where: str, value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise ValueError(f"'{where}' must be a string")
    if "\0" in value:
        raise ValueError(f"'{where}' must not hold a NUL character")
    try:
        size = len(os.fsencode(value))
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ValueError(f"'{where}' holds a character that cannot be encoded in {encoding}") from None
    if size > limit:
        raise ValueError(f"'{where}' is {size} bytes long; the limit is {limit}")
    return value


def resolve_argv(argv: list[str], *, connection_file: str, interpreter: str = sys.executable) -> list[str]:
    """The argv to execute here: a bare ``python`` is ``interpreter``, placeholders are filled in.

    Placeholders that nobody knows stay as they are, as in jupyter_client.
    """
    values = {"connection_file": connection_file, "prefix": str(Path(interpreter).parent.parent)}

    def fill(match: re.Match[str]) -> str:
        if match[1] == "resource_dir":
            raise ValueError(
                "the kernelspec's argv uses {resource_dir}, but its folder is not brought to the kernel's host: "
                "install the file there and name it by its path"
            )
        return values.get(match[1], match[0])

    resolved = [_PLACEHOLDER.sub(fill, item) for item in argv]
    if _BARE_PYTHON.fullmatch(resolved[0]):
        resolved[0] = interpreter
    return resolved


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a kernel gets of the launcher's own environment: the user's, nothing else."""
    return {name: value for name, value in environ.items() if name in BASE_VARIABLES or name.startswith("LC_")}


def kernel_environment(base: Mapping[str, str], request_env: Mapping[str, str]) -> dict[str, str]:
    return {**base, **request_env}


def resolve_cwd(cwd: Optional[str], home: str) -> str:
    """``cwd`` if it is a folder here, else ``home``, else the root: a client's path need not exist on this host."""
    for folder in (cwd, home):
        if folder and Path(folder).is_absolute() and Path(folder).is_dir():
            return folder
    return "/"


def speaks_ipc(argv: list[str]) -> bool:
    """Whether ``argv`` is ipykernel run directly by a Python here, so that it understands the ``ipc`` transport.

    Anything in front of it (a shell, sudo, a container) may run it as another user or behind another file
    system, where a socket's path means nothing.
    """
    if not argv or not _PYTHON_PATH.fullmatch(Path(argv[0]).name):
        return False
    rest = iter(argv[1:])
    for option in rest:
        if option == "-m":
            module = next(rest, "")
            return module in _IPYKERNEL_MODULES and not any(map(_NETWORK_OPTION.match, rest))
        if option in _OPTIONS_WITH_VALUE:
            next(rest, "")
        elif not _FLAGS.fullmatch(option):
            return False
    return False


def explain_failure(
    stage: str, number: Optional[int], detail: str, *, argv: list[str], env: Mapping[str, str], cwd: Optional[str]
) -> str:
    """One sentence on why a process was not made, naming the file. ``number`` is an errno."""
    why = os.strerror(number) if number is not None else detail
    if stage == "exec":
        return _explain_exec(number, why, argv, env)
    return {
        "fork": f"No process could be made for the kernel: {why}.",
        "cwd": f"The kernel's working directory {cwd!r} cannot be entered: {why}.",
    }.get(stage, f"The kernel's process could not be prepared: {detail}.")


def _explain_exec(number: Optional[int], why: str, argv: list[str], env: Mapping[str, str]) -> str:
    program = argv[0]
    if number == errno.E2BIG:
        size = sum(len(item) + 1 for item in argv) + sum(len(name) + len(value) + 2 for name, value in env.items())
        return f"The kernel's argv and env are too long for this system: {size} characters in all."
    if number == errno.ENOENT and "/" not in program:
        return f"The kernel's program {program!r} was not found on PATH ({env.get('PATH', os.defpath)})."
    if number == errno.ENOENT and Path(program).exists():
        why = "the interpreter it names does not exist"
    elif number == errno.EACCES:
        why = "it is a folder" if Path(program).is_dir() else "this user may not execute it"
    elif number == errno.ENOEXEC:
        why = "it is neither a program for this machine nor a script with a #! line"
    return f"The kernel's program {program!r} cannot be executed: {why}."
