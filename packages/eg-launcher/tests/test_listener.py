import os
import socket
import stat
import threading

import pytest

from eg_launcher import listener
from eg_launcher.listener import ListenError


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "run"
    made.mkdir(mode=0o700)
    return made


def test_the_socket_is_its_users_alone(tmp_path):
    path = tmp_path / "made" / "too" / "launcher.sock"
    sock = listener.listen_unix(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert listener.endpoint_of(sock) == {"path": str(path)}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.withdraw(sock)
    assert not path.exists()
    listener.withdraw(sock)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o702])
def test_a_folder_others_may_enter_is_refused(folder, mode):
    folder.chmod(mode)
    with pytest.raises(ListenError, match="chmod 700"):
        listener.listen_unix(str(folder / "s"))


def test_what_a_killed_launcher_left_is_replaced(folder):
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    listener.withdraw(listener.listen_unix(path))


def test_one_that_listens_is_left_alone(folder):
    path = str(folder / "s")
    first = listener.listen_unix(path)
    with pytest.raises(ListenError, match="listens"):
        listener.listen_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.withdraw(first)


def test_of_many_that_start_at_once_one_listens(folder):
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    listeners, refused = [], []

    def start():
        try:
            listeners.append(listener.listen_unix(path))
        except ListenError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(listeners), len(refused)) == (1, 7)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.withdraw(listeners[0])


def test_a_file_in_the_way_is_not_removed(folder):
    (folder / "s").write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        listener.listen_unix(str(folder / "s"))
    assert (folder / "s").read_text() == "precious"


def test_a_path_that_is_too_long_is_named(folder):
    with pytest.raises(ListenError, match="107"):
        listener.listen_unix(str(folder / ("x" * 100)))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ListenError, match="cannot be made"):
        listener.listen_unix(str(tmp_path / "file" / "s"))


def test_tcp():
    sock = listener.listen_tcp("127.0.0.1", 0)
    endpoint = listener.endpoint_of(sock)
    assert endpoint["host"] == "127.0.0.1"
    with pytest.raises(ListenError, match=str(endpoint["port"])):
        listener.listen_tcp("127.0.0.1", endpoint["port"])
    listener.withdraw(sock)
    with pytest.raises(ListenError):
        listener.listen_tcp("no such host", 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback(host, loopback):
    assert listener.is_loopback(host) is loopback


def test_a_certificate_and_key_that_are_not_a_pair(certificate_and_key):
    certificate, key = certificate_and_key
    listener.tls_context(certificate, key)
    for bad in [(certificate, ""), (certificate, "nonsense"), ("\0", key)]:
        with pytest.raises(ListenError, match="not a pair"):
            listener.tls_context(*bad)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(certificate_and_key):
    from cryptography.hazmat.primitives import serialization

    certificate, key = certificate_and_key
    encrypted = (
        serialization.load_pem_private_key(key.encode(), None)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        .decode()
    )
    with pytest.raises(ListenError, match="not a pair"):
        listener.tls_context(certificate, encrypted)


def test_the_key_is_on_no_disk(certificate_and_key, tmp_path, monkeypatch):
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files in memory")
    monkeypatch.setattr(listener.tempfile, "NamedTemporaryFile", None)
    listener.tls_context(*certificate_and_key)
