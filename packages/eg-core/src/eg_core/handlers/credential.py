"""The token of a request: where it may stand, and whether it is the right one. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs


def given_token(query: str, headers: Mapping[str, str]) -> str:
    """What ``?token=`` says, else the ``Authorization`` header; empty without either."""
    try:
        values = parse_qs(query, max_num_fields=100).get("token")
    except ValueError:  # more fields than anybody sends
        values = None
    if values and values[-1].strip():
        return values[-1].strip()
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() in ("token", "bearer") else ""


def is_right(given: str, token: str) -> bool:
    """In constant time. Without a token set, whoever reaches the port is right."""
    return not token or hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
