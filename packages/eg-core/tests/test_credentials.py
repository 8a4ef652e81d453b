"""Certificates proven by handshakes between real TLS sockets."""

import contextlib
import datetime
import json
import socket
import ssl
import threading
import uuid

import pytest
from cryptography import x509

from eg_core.launchers.credentials import CertificateAuthority, make_credentials


@pytest.fixture(scope="module")
def authority():
    return CertificateAuthority.from_pem(CertificateAuthority.create())


def server_context(tmp_path, certificate, key):
    path = tmp_path / f"{uuid.uuid4().hex}.pem"
    path.write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def handshake(client_context, server, name):
    """What the client's end read, over a socket pair; raises what the client's end raises."""
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)

    def serve():
        with contextlib.suppress(OSError), far, server.wrap_socket(far, server_side=True) as stream:
            stream.sendall(b"hello")
            stream.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with near, client_context.wrap_socket(near, server_hostname=name) as stream:
            return stream.recv(5), stream.version()
    finally:
        thread.join()


@pytest.mark.parametrize("launcher_id", [uuid.uuid4().hex, str(uuid.uuid4()), "1" * 32, "a"])
def test_a_launcher_proves_its_name(authority, tmp_path, launcher_id):
    server = server_context(tmp_path, *authority.issue(launcher_id))
    assert handshake(authority.client_context(), server, launcher_id) == (b"hello", "TLSv1.3")


def test_another_launcher_is_refused(authority, tmp_path):
    server = server_context(tmp_path, *authority.issue(uuid.uuid4().hex))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(authority.client_context(), server, uuid.uuid4().hex)


def test_another_authority_is_refused(authority, tmp_path):
    launcher_id = uuid.uuid4().hex
    other = CertificateAuthority.from_pem(CertificateAuthority.create())
    server = server_context(tmp_path, *other.issue(launcher_id))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(authority.client_context(), server, launcher_id)


def test_a_launcher_cannot_issue(authority, tmp_path):
    certificate, key = authority.issue("launcher")
    impostor = CertificateAuthority.from_pem((key + certificate).encode())
    forged, forged_key = impostor.issue("victim")
    server = server_context(tmp_path, forged + certificate, forged_key)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority.client_context(), server, "victim")


def test_the_context_trusts_nobody_else(authority):
    context = authority.client_context()
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_authority_survives_being_stored(tmp_path):
    pem = CertificateAuthority.create()
    before, after = CertificateAuthority.from_pem(pem), CertificateAuthority.from_pem(pem)
    server = server_context(tmp_path, *before.issue("l1"))
    assert handshake(after.client_context(), server, "l1")[0] == b"hello"


def test_a_leaf_is_valid_from_yesterday_for_ten_years(authority):
    certificate = x509.load_pem_x509_certificate(authority.issue("l1")[0].encode())
    now = datetime.datetime.now(datetime.timezone.utc)
    assert now - certificate.not_valid_before_utc > datetime.timedelta(hours=23)
    assert certificate.not_valid_after_utc - now > datetime.timedelta(days=3650)
    ca = x509.load_pem_x509_certificate(CertificateAuthority.create())
    assert ca.not_valid_before_utc < certificate.not_valid_before_utc
    assert ca.not_valid_after_utc > certificate.not_valid_after_utc + datetime.timedelta(days=30_000)


@pytest.mark.parametrize("name", ["", "a.b", "-a", "a-", "a" * 64, "a\n", "ü", "*"])
def test_a_name_that_is_no_launcher_id_is_refused(authority, name):
    with pytest.raises(ValueError, match="launcher id"):
        authority.issue(name)


def test_what_is_no_authority_is_refused(authority):
    certificate, _ = authority.issue("l1")
    _, key = authority.issue("l2")
    with pytest.raises(ValueError, match="belong together"):
        CertificateAuthority.from_pem((key + certificate).encode())
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own words
        CertificateAuthority.from_pem(b"")


def test_credentials_are_one_line():
    line = make_credentials("l1", "t", "-----BEGIN\nx\n", None)
    assert line.index("\n") == len(line) - 1
    assert json.loads(line) == {"launcher_id": "l1", "token": "t", "certificate": "-----BEGIN\nx\n", "key": None}
