"""TLS of the gateway's own port. Used by ``app`` and by the handlers that look at a client's certificate."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from eg_core.errors import GatewayError

_ANY_VERSION = frozenset({int(ssl.PROTOCOL_TLS), int(ssl.PROTOCOL_TLS_CLIENT), int(ssl.PROTOCOL_TLS_SERVER)})
_TLS_1_2 = 5  # ssl.PROTOCOL_TLSv1_2, which Python has deprecated and configuration files name


def server_context(
    *, certfile: str | None, keyfile: str | None, client_ca: str | None, ssl_version: int | None
) -> ssl.SSLContext | None:
    """None without a certificate. Raises GatewayError in words."""
    if not certfile:
        for name, value in (("keyfile", keyfile), ("client_ca", client_ca)):
            if value:
                raise GatewayError(f"{name} is set and certfile is not: without a certificate there is no TLS.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ssl_version == _TLS_1_2:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif ssl_version is not None and ssl_version not in _ANY_VERSION:
        raise GatewayError(
            f"ssl_version {ssl_version} is not spoken here: leave it out for TLS 1.2 and newer, or say {_TLS_1_2} "
            "for TLS 1.2 only."
        )
    try:
        context.load_cert_chain(certfile, keyfile or None)
    except (OSError, ssl.SSLError) as error:
        files = " and ".join(file for file in (certfile, keyfile) if file)
        raise GatewayError(f"The certificate and key in {files} cannot be used: {error}.") from error
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise GatewayError(f"The client_ca {client_ca} cannot be used: {error}.") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def is_issued_to(certificate: Mapping[str, Any] | None, hostname: str) -> bool:
    """Whether a client's certificate (as ``SSLSocket.getpeercert`` gives it) names this host."""
    names = [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]
    if not names:  # old certificates have the name in their subject only
        names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    return any(_matches(name.lower(), hostname.lower()) for name in names)


def _matches(pattern: str, hostname: str) -> bool:
    if pattern.startswith("*."):
        first, _, rest = hostname.partition(".")
        return bool(first) and rest == pattern[2:]
    return pattern == hostname
