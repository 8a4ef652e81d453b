"""Connection info: made for a kernel we start, checked for one we are given, and turned into URLs.

ipc needs a short path (the kernel's limit for a Unix socket's is 107 bytes) in a private folder; where that fails it
is loopback TCP, with ports that were free a moment ago.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections import deque
from pathlib import Path
from typing import Any, Mapping

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
_MAX_UNIX_PATH = 107
_FIRST_PORT = 10_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL = 32_768
_given: deque[int] = deque(maxlen=2048)


def make_connection_info(folder: Path, *, name: str, ipc: bool) -> dict[str, Any]:
    """Fresh addresses and a fresh key."""
    prefix = str(folder / secrets.token_hex(4))
    if ipc and len(os.fsencode(prefix)) + 2 <= _MAX_UNIX_PATH:
        info: dict[str, Any] = {"transport": "ipc", "ip": prefix}
        info.update((port, number) for number, port in enumerate(PORTS, 1))
    else:
        info = {"transport": "tcp", "ip": "127.0.0.1", **dict(zip(PORTS, _free_ports(len(PORTS))))}
    info.update(key=secrets.token_hex(32), signature_scheme="hmac-sha256", kernel_name=name)
    return info


def check_connection_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """A connection file's content, checked. ValueError names the field."""
    checked = {"transport": "tcp", "ip": "127.0.0.1", "key": "", "signature_scheme": "hmac-sha256", **info}
    for field in ("transport", "ip", "key", "signature_scheme"):
        if not isinstance(checked[field], str):
            raise ValueError(f"the connection file's {field} is not a string")
    if checked["transport"] not in ("tcp", "ipc"):
        raise ValueError(f"the connection file's transport is {checked['transport']!r}; tcp and ipc are known")
    if checked.get("public_key") or checked.get("curve_publickey"):
        raise ValueError("the connection file asks for CurveZMQ, which is not supported yet")
    for field in PORTS[:4]:
        port = checked.get(field)
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(f"the connection file's {field} is not a port: {port!r}")
    if checked["ip"] in ("", "*", "0.0.0.0"):  # noqa: S104 - what a kernel that listens everywhere writes
        checked["ip"] = "127.0.0.1"
    return checked


def urls(info: Mapping[str, Any]) -> dict[str, str]:
    """Where to connect, by channel."""
    ip = info["ip"]
    if info["transport"] == "ipc":
        return {port[: -len("_port")]: f"ipc://{ip}-{info[port]}" for port in PORTS if port in info}
    host = f"[{ip}]" if ":" in ip else ip
    return {port[: -len("_port")]: f"tcp://{host}:{info[port]}" for port in PORTS if port in info}


def write_connection_file(path: Path, info: Mapping[str, Any]) -> None:
    """Make it, readable by its owner only; one that is there is replaced as a whole."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(info, file, indent=1)
        fresh.replace(path)
    except BaseException:
        fresh.unlink()
        raise


def remove_leftovers(path: Path, info: Mapping[str, Any]) -> None:
    """The file, and the Unix sockets a killed kernel leaves behind."""
    leftovers = [path]
    if info["transport"] == "ipc":
        leftovers += [Path(f"{info['ip']}-{info[port]}") for port in PORTS]
    for leftover in leftovers:
        try:
            leftover.unlink()
        except OSError:
            pass  # it is not there; or the folder went first


def _free_ports(count: int) -> list[int]:
    """Free now, and most likely still when the kernel binds them: not of those that the system gives to outgoing
    connections at any moment, nor of those that another kernel was given lately."""
    candidates = range(_FIRST_PORT, _first_ephemeral_port())
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            if len(found) == count:
                break
            sock = stack.enter_context(socket.socket())
            try:
                sock.bind(("127.0.0.1", secrets.choice(candidates) if candidates else 0))
            except OSError:
                continue  # somebody has it
            port = sock.getsockname()[1]
            if port not in _given:
                found.append(port)
    if len(found) < count:
        raise OSError(f"there are no {count} free ports on 127.0.0.1 for a kernel")
    _given.extend(found)
    return found


def _first_ephemeral_port() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL_EPHEMERAL
