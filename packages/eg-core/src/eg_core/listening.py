"""The listening socket, and the lock that keeps two gateways from one store file. Used by ``app`` only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import random
import re
import resource
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from eg_core.errors import GatewayError

NEAR = 5
"""Ports tried one after the other before random ones near by."""
FIRST_INHERITED = 3
MAX_INHERITED = 16


def inherited(environ: Mapping[str, str]) -> tuple[socket.socket, ...]:
    """Sockets that systemd, or whoever does as it does (``sd_listen_fds(3)``), listens on for this process: clients
    wait in them while there is no gateway. Raises GatewayError for what is no TCP socket that listens."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return ()
    count = environ.get("LISTEN_FDS", "")
    if not re.fullmatch(r"[0-9]{1,2}", count, re.ASCII) or not 1 <= int(count) <= MAX_INHERITED:
        raise GatewayError(f"LISTEN_FDS is {count[:20]!r}; it must be a number from 1 to {MAX_INHERITED}.")
    return tuple(_inherit(fd) for fd in range(FIRST_INHERITED, FIRST_INHERITED + int(count)))


def _inherit(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise GatewayError(f"LISTEN_FDS names descriptor {fd}, which is no socket: {error.strerror}.") from error
    listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        raise GatewayError(f"The socket that was handed over (descriptor {fd}) is no TCP socket that listens.")
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def bind(ip: str, port: int, retries: int) -> list[socket.socket]:
    """Listen on ``port`` or one near it, or on any if it is 0. Raises GatewayError in words."""
    candidates = [port + i for i in range(min(NEAR, retries) + 1)] if port else [0]
    candidates += [max(1, port + random.randint(-2 * retries, 2 * retries)) for _ in range(retries - NEAR)]  # noqa: S311
    for candidate in candidates:
        try:
            return [_listen(ip, candidate)]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise GatewayError(f"Cannot listen on {ip}:{candidate}: {error.strerror}.") from error
    raise GatewayError(f"Port {port} and {len(candidates) - 1} others are in use; choose another with --port.")


def _listen(ip: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(ip or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.create_server(address[:2], family=family, backlog=1024)
    sock.setblocking(False)
    return sock


def raise_file_limit() -> None:
    """A client is one descriptor or two: use as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def is_loopback(ip: str) -> bool:
    if ip == "localhost":
        return True
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False


class DataDirLock:
    """Held while a gateway uses a data folder with a SQLite store. Raises GatewayError if another one does."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "gateway.lock"
        self._fd = -1

    def __enter__(self) -> DataDirLock:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise GatewayError(
                f"Another gateway uses {self._path.parent}. Give this one a folder of its own with --data-dir, or "
                "let both share a PostgreSQL store (EnterpriseGatewayApp.store_url)."
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._fd)
