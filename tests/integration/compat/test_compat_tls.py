"""TLS: certificate and key, and a client's certificate where one is wanted."""

from __future__ import annotations

import http.client
import ssl

import pytest
from eg_compat.certificates import write_certificates
from eg_compat.gateways import Config

OPTIONS = ("--certfile={folder}/server.pem", "--keyfile={folder}/server.key")


@pytest.fixture
def tls(fresh):
    """``tls(client_ca)``: a gateway on TLS and a function that asks it."""

    def start(*, client_ca, raw=None):
        gw = fresh(Config(token="", raw=raw or {}))
        write_certificates(gw.folder)
        options = [option.format(folder=gw.folder) for option in OPTIONS]
        gw.start(*options, *([f"--client-ca={gw.folder}/ca.pem"] if client_ca else []))

        def get(*, certificate=False, version=None):
            context = ssl.create_default_context(cafile=str(gw.folder / "ca.pem"))
            if certificate:
                context.load_cert_chain(gw.folder / "client.pem", gw.folder / "client.key")
            if version:
                context.minimum_version = context.maximum_version = version
            port = int(gw.url.rsplit(":", 1)[1].split("/")[0])
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
            try:
                connection.request("GET", "/api")
                return connection.getresponse().status
            except (ssl.SSLError, OSError):
                return "refused"
            finally:
                connection.close()

        return gw, get

    return start


def test_tls(tls, agree):
    gw, get = tls(client_ca=False)
    agree(
        {"https": get(), "TLS 1.2": get(version=ssl.TLSVersion.TLSv1_2), "said": "available at https://" in gw.log()},
        {"https": 200, "TLS 1.2": 200, "said": True},
    )


def test_tls_with_certificates_of_clients(tls, agree):
    _, get = tls(client_ca=True)
    agree({"with": get(certificate=True), "without": get()}, {"with": 200, "without": "refused"})


def test_mended_the_variable_for_whom_clients_certificates_must_be_issued_to_is_read(tls, agree):
    def status(name):
        _, get = tls(client_ca=True, raw={"EG_AUTHORIZED_ORIGIN": name})
        return get(certificate=True)

    agree({"theirs": status("localhost"), "another": status("elsewhere.example")}, {"theirs": 200, "another": 403})
