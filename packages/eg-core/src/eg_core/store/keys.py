"""Where the store's key comes from: EG_STORE_KEY's value (given by the caller), or a file that is made once.

The file holds one line of base64, mode 0600, and appears whole or not at all, also when several gateways start
at once. Replicas share the key; the store refuses another one.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path

from eg_core.store.cipher import KEY_LENGTH
from eg_core.store.errors import StoreError

KEY_FILE = "store.key"
_MAX_FILE = 4096
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def load_key(data_dir: Path, environ_value: str | None) -> bytes:
    """The 32 bytes. Blocking. Raises StoreError in words."""
    if environ_value:
        return _decode(environ_value, "EG_STORE_KEY")
    path = data_dir / KEY_FILE
    try:
        return _read(path)
    except FileNotFoundError:
        _make(path)
        return _read(path)


def _decode(text: str, source: str) -> bytes:
    text = text.strip()
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_LENGTH:
        raise StoreError(
            f"{source} must be {KEY_LENGTH} random bytes as base64 or hexadecimal digits; make one with: "
            f'python3 -c "import secrets; print(secrets.token_hex({KEY_LENGTH}))"'
        )
    return key


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"The store's key cannot be read from {path}: {error.strerror}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path} is not a regular file.")
        if status.st_mode & 0o077:
            raise StoreError(f"{path} holds the store's key and others can read it; run: chmod 600 {path}")
        if status.st_uid not in (os.geteuid(), 0):
            raise StoreError(f"{path} holds the store's key but belongs to user id {status.st_uid}.")
        return _decode(os.read(descriptor, _MAX_FILE).decode("ascii", "replace"), str(path))
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    """Write a temporary file and link it to its name, which fails if another process was first: then theirs counts."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    except OSError as error:
        raise StoreError(f"The store's key cannot be written to {path}: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_LENGTH)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
        _sync_folder(path.parent)
    except FileExistsError:
        pass
    except OSError as error:
        hint = " Give the key in EG_STORE_KEY instead." if error.errno in _NO_LINKS else ""
        raise StoreError(f"The store's key cannot be written to {path}: {error.strerror}.{hint}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
