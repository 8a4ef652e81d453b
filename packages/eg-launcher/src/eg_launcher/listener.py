"""Where the launcher listens: a Unix socket only its user can reach, or TCP with TLS. Blocking and short; used once."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import ssl
import stat
import tempfile
from pathlib import Path
from typing import Any

BACKLOG = 1024
MAX_UNIX_PATH = 107


class ListenError(Exception):
    """Why it cannot listen, in words."""


def listen_unix(path: str) -> socket.socket:
    """Listen on a Unix socket (0600) in a folder of 0700, which is made if it is missing.

    What a launcher that is gone left under this name is replaced; one that answers there is an error.
    """
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise ListenError(f"The socket's path is longer than {MAX_UNIX_PATH} bytes: {path}")
    folder = Path(path).absolute().parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError as error:
        raise ListenError(f"The folder {folder} cannot be made: {error.strerror}") from None
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise ListenError(f"The folder {folder} must belong to this user alone: chmod 700 it.")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of two launchers with one path, one looks while the other binds
        return _bind_unix(path)
    finally:
        os.close(descriptor)


def _bind_unix(path: str) -> socket.socket:
    if os.path.lexists(path):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ListenError(f"{path} exists and is not a socket.")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2.0)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
            except OSError as error:
                raise ListenError(f"{path} is in use: {error}") from None
            else:
                raise ListenError(f"Another launcher listens on {path}.")
    listener = socket.socket(socket.AF_UNIX)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"Cannot listen on {path}: {error.strerror}") from None
    return listener


def listen_tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except OSError as error:
        raise ListenError(f"The address {host} is unknown: {error.strerror}") from None
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"Cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def withdraw(listener: socket.socket) -> None:
    """Close it; a Unix socket's name goes too."""
    name = listener.getsockname() if listener.fileno() >= 0 else ""
    listener.close()
    if isinstance(name, str) and name:
        Path(name).unlink(missing_ok=True)


def endpoint_of(listener: socket.socket) -> dict[str, Any]:
    """The *endpoint* of the ready line."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return {"path": name}
    return {"host": name[0], "port": name[1]}


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """A server's context. The standard library takes files only: they live in memory where the system can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # nobody comes back to resume
    try:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("eg-launcher", os.MFD_CLOEXEC)
            with os.fdopen(descriptor, "w") as file:
                file.write(certificate.rstrip() + "\n" + key)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
        else:
            with tempfile.NamedTemporaryFile("w") as file:  # 0600
                file.write(certificate.rstrip() + "\n" + key)
                file.flush()
                context.load_cert_chain(file.name, password=_no_password)
    except (ssl.SSLError, OSError, ValueError):
        raise ListenError("The credentials' certificate and key are not a pair in PEM.") from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # instead of asking on the terminal
