import json

import pytest

from eg_launcher.signing import Signer, make_message

PARTS = [b'{"a":1}', b"{}", b"{}", b"{}", b"buffer"]


def test_it_is_jupyter_clients_signature():
    session = pytest.importorskip("jupyter_client.session")
    theirs = session.Session(key=b"secret").sign(PARTS[:4])
    assert Signer(b"secret").sign(PARTS) == theirs
    assert Signer(b"secret").verify(theirs, PARTS)
    assert Signer(b"secret").verify(theirs, PARTS[:4])  # buffers are not signed


def test_what_is_changed_or_not_signed_is_refused():
    signer = Signer(b"secret", "hmac-sha512")
    signature = signer.sign(PARTS)
    assert signer.verify(signature, PARTS)
    assert not signer.verify(signature, [b'{"a":2}', *PARTS[1:]])
    assert not signer.verify(b"", PARTS)
    assert not Signer(b"other", "hmac-sha512").verify(signature, PARTS)


def test_without_a_key_nothing_is_signed():
    assert Signer(b"").sign(PARTS) == b""
    assert Signer(b"").verify(b"", PARTS)


@pytest.mark.parametrize("scheme", ["sha256", "hmac-nope", ""])
def test_an_unknown_scheme_is_named(scheme):
    with pytest.raises(ValueError, match="signature scheme"):
        Signer(b"secret", scheme)


def test_a_message_of_our_own():
    header, parent, metadata, content = make_message("status", {"a": "ü"}, session="s", parent_header=b'{"p":1}')
    assert (parent, metadata, json.loads(content)) == (b'{"p":1}', b"{}", {"a": "ü"})
    header = json.loads(header)
    assert (header["msg_type"], header["session"]) == ("status", "s")
    assert header["msg_id"] != json.loads(make_message("status", {}, session="s")[0])["msg_id"]
