"""Pages of which origins may use the gateway from a browser, and what browsers are told about it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

ANY = "*"


_PORT = re.compile(r":[0-9]*\Z")


@dataclass(frozen=True)
class Cors:
    """The options of the same names. ``allow_origin``: ``*``, or one or more origins separated by commas."""

    allow_origin: str = ""
    allow_credentials: str = ""
    allow_headers: str = ""
    allow_methods: str = ""
    expose_headers: str = ""
    max_age: str = ""

    def allows(self, origin: str | None, host: str) -> bool:
        """No origin is no browser's page; a page of this very host always may."""
        if origin is None:
            return True
        if self.allow_origin == ANY or origin.lower() in self._origins():
            return True
        try:
            return urlsplit(origin).netloc.lower() == host.lower() != ""
        except ValueError:  # no URL at all
            return False

    def headers(self, origin: str | None) -> Iterator[tuple[str, str]]:
        """Only what is configured is said."""
        origins = self._origins()
        if len(origins) > 1:  # a browser takes one only
            yield "Vary", "Origin"
            if origin is not None and origin.lower() in origins:
                yield "Access-Control-Allow-Origin", origin
        elif self.allow_origin:
            yield "Access-Control-Allow-Origin", self.allow_origin
        for name, value in (
            ("Allow-Credentials", self.allow_credentials),
            ("Allow-Headers", self.allow_headers),
            ("Allow-Methods", self.allow_methods),
            ("Expose-Headers", self.expose_headers),
            ("Max-Age", self.max_age),
        ):
            if value:
                yield f"Access-Control-{name}", value

    def _origins(self) -> frozenset[str]:
        return frozenset(item.strip().lower().rstrip("/") for item in self.allow_origin.split(",") if item.strip())


def names_this_machine(host: str) -> bool:
    """Whether a ``Host`` header is an address or ``localhost``: nothing that a page's own DNS can have made up."""
    name = _PORT.sub("", host).strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
