"""How the gateway is reached: its port, its token, CORS, TLS, proxies before it."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Integer, Unicode, validate

from eg_core.options.names import EnterpriseGatewayConfigMixin


class WebOptions(EnterpriseGatewayConfigMixin):
    ip = Unicode("127.0.0.1", help="Address to listen on (EG_IP).").tag(config=True)
    port = Integer(8888, help="Port to listen on; 0 is any (EG_PORT).").tag(config=True)
    port_retries = Integer(50, help="How many further ports to try (EG_PORT_RETRIES).").tag(config=True)
    base_url = Unicode("/", help="Where the API is mounted (EG_BASE_URL).").tag(config=True)
    auth_token = Unicode(
        "", help="Token that clients must give; set it by EG_AUTH_TOKEN, not on the command line."
    ).tag(config=True)
    allow_unauthenticated = Bool(
        False,
        help="Serve without a token even on an address that other machines can reach, and under any name; without it a "
        "gateway that has no token answers only to localhost and addresses in the Host header.",
    ).tag(config=True)
    list_kernels = Bool(
        True, help="Allow GET /api/kernels and /api/sessions; JupyterLab needs it (EG_LIST_KERNELS)."
    ).tag(config=True)
    allow_origin = Unicode(
        "",
        help="Origins whose pages may use the gateway from a browser: '*' or, with commas between them, origins like "
        "https://lab.example.org. Also sent as Access-Control-Allow-Origin (EG_ALLOW_ORIGIN).",
    ).tag(config=True)
    allow_credentials = Unicode("", help="Access-Control-Allow-Credentials, if any (EG_ALLOW_CREDENTIALS).").tag(
        config=True
    )
    allow_headers = Unicode("", help="Access-Control-Allow-Headers, if any (EG_ALLOW_HEADERS).").tag(config=True)
    allow_methods = Unicode("", help="Access-Control-Allow-Methods, if any (EG_ALLOW_METHODS).").tag(config=True)
    expose_headers = Unicode("", help="Access-Control-Expose-Headers, if any (EG_EXPOSE_HEADERS).").tag(config=True)
    max_age = Unicode("", help="Access-Control-Max-Age, if any (EG_MAX_AGE).").tag(config=True)
    trust_xheaders = Bool(
        False,
        help="Believe X-Real-Ip, X-Forwarded-For and X-Forwarded-Proto: only behind a proxy that sets them "
        "(EG_TRUST_XHEADERS).",
    ).tag(config=True)
    certfile = Unicode(None, allow_none=True, help="PEM file of the certificate: serve TLS (EG_CERTFILE).").tag(
        config=True
    )
    keyfile = Unicode(None, allow_none=True, help="PEM file of its key, if that is apart (EG_KEYFILE).").tag(
        config=True
    )
    client_ca = Unicode(
        None, allow_none=True, help="PEM file of the CA whose certificates clients must show (EG_CLIENT_CA)."
    ).tag(config=True)
    ssl_version = Integer(
        None, allow_none=True, help="5: TLS 1.2 only. Default: TLS 1.2 and newer (EG_SSL_VERSION)."
    ).tag(config=True)
    authorized_origin = Unicode(
        "", help="Host that a client's certificate must be issued to; needs client_ca (EG_AUTHORIZED_ORIGIN)."
    ).tag(config=True)

    @property
    def own_names_only(self) -> bool:
        """With a token nobody gets in by a name; over TLS the name must be the certificate's."""
        return not (self.auth_token or self.allow_unauthenticated or self.certfile)

    @validate("base_url")
    def _valid_base_url(self, proposal: Any) -> str:
        return "/" + "".join(f"{part}/" for part in proposal["value"].split("/") if part)
