"""The gateway's own TLS: what is refused at start, and REST and channels over it."""

import asyncio
import contextlib
import json
import ssl
import urllib.error
import urllib.request

import pytest
import websocket

from eg_core.errors import GatewayError
from eg_core.tls import is_issued_to, server_context
from gateway_support import gateway
from tls_support import Authority
from web_support import TOKEN, serving


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def context(certfile=None, keyfile=None, client_ca=None, ssl_version=None):
    return server_context(certfile=certfile, keyfile=keyfile, client_ca=client_ca, ssl_version=ssl_version)


def test_without_a_certificate_there_is_no_tls():
    assert context() is None
    with pytest.raises(GatewayError, match="keyfile is set and certfile is not"):
        context(keyfile="x")
    with pytest.raises(GatewayError, match="client_ca is set and certfile is not"):
        context(client_ca="x")


def test_what_cannot_be_used_is_refused_in_words(authority, tmp_path):
    with pytest.raises(GatewayError, match=r"nowhere\.pem cannot be used"):
        context(certfile=str(tmp_path / "nowhere.pem"))
    good = str(authority.issue("gw"))
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(GatewayError, match="client_ca"):
        context(certfile=good, client_ca=str(tmp_path / "junk.pem"))
    with pytest.raises(GatewayError, match="ssl_version 3 is not spoken here"):
        context(certfile=good, ssl_version=3)


def test_the_versions_of_tls(authority):
    good = str(authority.issue("gw"))
    assert context(good).minimum_version is ssl.TLSVersion.TLSv1_2
    assert context(good, ssl_version=5).maximum_version is ssl.TLSVersion.TLSv1_2
    assert context(good, ssl_version=int(ssl.PROTOCOL_TLS)).maximum_version is not ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("certificate", "host", "same"),
    [
        ({"subjectAltName": (("DNS", "lab.example"),)}, "lab.example", True),
        ({"subjectAltName": (("DNS", "LAB.example"),)}, "lab.EXAMPLE", True),
        ({"subjectAltName": (("DNS", "*.example"),)}, "lab.example", True),
        ({"subjectAltName": (("DNS", "*.example"),)}, "a.lab.example", False),
        ({"subjectAltName": (("DNS", "*.example"),)}, ".example", False),
        ({"subjectAltName": (("DNS", "other"),), "subject": ((("commonName", "lab"),),)}, "lab", False),
        ({"subject": ((("commonName", "lab"),),)}, "lab", True),
        ({}, "lab", False),
        (None, "lab", False),
    ],
)
def test_whom_a_certificate_names(certificate, host, same):
    assert is_issued_to(certificate, host) is same


def get(port, path, authority, certificate=None):
    """(status, JSON) over verified TLS."""
    trust = ssl.create_default_context(cafile=str(authority.file))
    if certificate is not None:
        trust.load_cert_chain(str(certificate))
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers={"Authorization": f"token {TOKEN}"})
    try:
        with urllib.request.urlopen(request, context=trust, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_rest_and_channels_over_tls(tmp_path, short_tmp, kernelspecs, authority):
    tls = context(str(authority.issue("gw")))
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs, server={"tls": tls}) as web:
        assert (await asyncio.to_thread(get, web.port, "/api", authority))[0] == 200

        def post_and_execute():
            trust = ssl.create_default_context(cafile=str(authority.file))
            request = urllib.request.Request(
                f"https://127.0.0.1:{web.port}/api/kernels", data=b"{}", headers={"Authorization": f"token {TOKEN}"}
            )
            with urllib.request.urlopen(request, context=trust, timeout=60) as answer:
                kernel_id = json.load(answer)["id"]
            socket = websocket.create_connection(
                f"wss://127.0.0.1:{web.port}/api/kernels/{kernel_id}/channels?token={TOKEN}",
                timeout=30,
                sslopt={"ca_certs": str(authority.file)},
            )
            header = {"msg_id": "m1", "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
            content = {"code": "print('over' + ' TLS')", "silent": False}
            socket.send(json.dumps({"channel": "shell", "header": header, "content": content,
                                    "parent_header": {}, "metadata": {}}))  # fmt: skip
            while True:
                message = json.loads(socket.recv())
                if message["header"]["msg_type"] == "stream":
                    socket.close()
                    return message["content"]["text"]

        assert (await asyncio.to_thread(post_and_execute)).strip() == "over TLS"


async def test_a_client_must_show_a_certificate_and_the_right_one(tmp_path, short_tmp, kernelspecs, authority):
    tls = context(str(authority.issue("gw")), client_ca=str(authority.file))
    lab, other = authority.issue("lab.example"), authority.issue("other.example")
    async with (
        gateway(tmp_path, short_tmp) as registry,
        serving(registry, kernelspecs, server={"tls": tls}, authorized_origin="lab.example") as web,
    ):
        assert (await asyncio.to_thread(get, web.port, "/api", authority, lab))[0] == 200
        status, body = await asyncio.to_thread(get, web.port, "/api", authority, other)
        assert status == 403
        assert "certificate" in body["message"]
        with pytest.raises(OSError, match=r"(?i)ssl|tls|certificate|reset|pipe|EOF|closed"):
            await asyncio.to_thread(get, web.port, "/api", authority)


async def test_a_client_that_speaks_no_tls_is_cut_and_nobody_else(tmp_path, short_tmp, kernelspecs, authority):
    tls = context(str(authority.issue("gw")))
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs, server={"tls": tls}) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"200" not in await asyncio.wait_for(reader.read(100), 10)
        writer.close()
        assert (await asyncio.to_thread(get, web.port, "/api", authority))[0] == 200
