"""What of an environment, an argv or a URL may be logged. Pure.

A value is shown only where its name is known to be harmless: a list of what is secret is never complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "…"

_SHOWN = re.compile(
    r"(PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_[A-Z]+|TZ|TMPDIR|PWD|KERNEL_(ID|NAME|LANGUAGE|USERNAME|PATH|WORKING_DIR))"
)
_QUERY = re.compile(r"(?i)([?&](?:token|access_token|password|key|signature)=)[^&#\s\"']+")
_HEADER = re.compile(r"(?i)\b(bearer|token|basic)\s+[A-Za-z0-9._~+/=-]{8,}")


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment with every value masked whose name is not known to be harmless."""
    return {name: value if _SHOWN.fullmatch(name) else MASK for name, value in sorted(env.items())}


def text(message: str, *secrets: str) -> str:
    """The text without these secrets, without tokens in URLs and without credentials of an Authorization header."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        message = message.replace(secret, MASK)
    message = _QUERY.sub(lambda match: match.group(1) + MASK, message)
    return _HEADER.sub(lambda match: f"{match.group(1)} {MASK}", message)
