"""Encryption at rest: AES-256-GCM, each value bound to its place, so that none can be put in another's row."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eg_core.store.errors import StoreError

KEY_LENGTH = 32
_VERSION = b"\x01"
_NONCE_LENGTH = 12


class Cipher:
    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_LENGTH:
            raise StoreError(f"The store's key must have {KEY_LENGTH} bytes, not {len(key)}.")
        self._aead = AESGCM(key)

    def seal(self, data: bytes, place: str) -> bytes:
        nonce = os.urandom(_NONCE_LENGTH)
        return _VERSION + nonce + self._aead.encrypt(nonce, data, place.encode())

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """Raises StoreError if ``sealed`` was not made for this place by this key."""
        head = len(_VERSION) + _NONCE_LENGTH
        if sealed[:1] == _VERSION:
            try:
                return self._aead.decrypt(sealed[1:head], sealed[head:], place.encode())
            except (InvalidTag, ValueError):
                pass
        raise StoreError(
            f"The store's value {place} cannot be decrypted: it was damaged, moved there, or written with another key."
        )
