"""A real launcher among bad peers, on a Unix socket and on a TLS port: its gateway is served, its memory bounded."""

import contextlib
import os
import re
import socket
import ssl
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eg_launcher import wire
from launcher_process import LIMIT, LauncherProcess, wait_until

MIB = 1 << 20
ANYTHING = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module", params=["unix", "tls"])
def launcher(request, tmp_path_factory, certificate_and_key):
    made = LauncherProcess(request.param, tmp_path_factory.mktemp("run"), certificate_and_key=certificate_and_key)
    yield made
    made.end()


@pytest.fixture(scope="module")
def kernel_id(launcher):
    return launcher.ready_kernel()


def plain(launcher):
    """A socket without the TLS that belongs on it."""
    endpoint = launcher.ready["endpoint"]
    if launcher.kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT)
        sock.connect(endpoint["path"])
        return sock
    return socket.create_connection((endpoint["host"], endpoint["port"]), timeout=LIMIT)


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def read_all(sock):
    data = bytearray()
    with contextlib.suppress(OSError):
        while part := sock.recv(65536):
            data += part
    return bytes(data)


def head(launcher, line, *more, token=None):
    lines = [line, "Host: x", f"Authorization: Bearer {token or launcher.token}", *more, "", ""]
    return "\r\n".join(lines).encode()


def upgrade(launcher, kernel_id):
    key = "Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA=="
    line = f"GET /kernels/{kernel_id}/channels HTTP/1.1"
    return head(launcher, line, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)


def test_any_bytes_without_the_token_are_refused_and_nothing_happens(launcher, kernel_id):
    @ANYTHING
    @given(
        st.binary(max_size=300)
        | st.binary(max_size=100).map(lambda data: b"GET /" + data + b" HTTP/1.1\r\n\r\n")
        | st.binary(max_size=100).map(lambda data: b"POST /kernels/x/start HTTP/1.1\r\n" + data + b"\r\n\r\n{}")
    )
    def check(data):
        with plain(launcher) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            answer = read_all(sock)
        assert not answer or re.match(rb"HTTP/1\.1 4\d\d |\x15\x03", answer), answer  # an alert of TLS

    check()
    assert list(launcher.call("GET", "/status")[1]["kernels"]) == [kernel_id]


def test_any_request_with_the_token_is_answered_in_words(launcher, kernel_id):
    segments = st.lists(st.sampled_from(["kernels", "x", kernel_id, "start", "log", "channels", "%2e%2e", "%00", "%ff",
                                         "api", "events", "shut down", "a" * 300]), max_size=4)  # fmt: skip
    fields = st.dictionaries(
        st.sampled_from(
            ["argv", "env", "cwd", "interrupt_mode", "name", "ready_timeout", "limits", "grace", "message"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=5,
    )

    @ANYTHING
    @given(
        st.sampled_from(["GET", "POST", "DELETE", "BREW"]),
        segments.filter(lambda found: found[-1:] != ["shutdown"]),
        fields.filter(lambda body: not isinstance(body.get("argv"), list)),
        st.sampled_from(
            ["", "?after=-1", "?after=" + "9" * 30, "?peer=x", "?" + "a=b&" * 50, "?session_id=" + "s" * 300]
        ),
    )
    def check(method, path, body, query):
        from urllib.parse import quote

        status, answer = launcher.call(method, "/" + "/".join(quote(part, safe="%") for part in path) + query, body)
        assert status < 500, answer
        if status >= 400:
            assert set(answer) >= {"reason", "message"}
            assert "Traceback" not in str(answer)

    check()
    assert list(launcher.call("GET", "/status")[1]["kernels"]) == [kernel_id]


SMUGGLED = {
    "both": ("Content-Length: 2", "Transfer-Encoding: chunked"),
    "two lengths": ("Content-Length: 0", "Content-Length: 2"),
    "a list of lengths": ("Content-Length: 0, 2",),
    "+": ("Content-Length: +2",),
    "blank before the colon": ("Transfer-Encoding : chunked",),
    "folded": ("X-A: a", " Content-Length: 2"),
    "two tokens": ("Authorization: Bearer x",),
    "two hosts": ("Host: y",),
    "a bare CR": ("X-A: a\rContent-Length: 2",),
    "NUL": ("X-A: a\0b",),
}


@pytest.mark.parametrize("headers", SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_that_two_would_read_differently_is_refused_with_what_follows(launcher, kernel_id, headers):
    with launcher.connect() as sock:
        sock.sendall(head(launcher, f"POST /kernels/{kernel_id}/interrupt HTTP/1.1", *headers)
                     + b"0\r\n\r\n" + head(launcher, f"POST /kernels/{kernel_id}/shutdown HTTP/1.1"))  # fmt: skip
        answer = read_all(sock)
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert launcher.kernel(kernel_id)["state"] == "ready"


@pytest.mark.parametrize("kind", ["silent", "slow", "half a handshake", "garbage"])
def test_a_thousand_peers_without_the_token_are_bounded_and_the_gateway_is_served(launcher, kernel_id, kind):
    data = {
        "silent": b"",
        "slow": b"POST /kernels/x/start HTTP/1.1\r\nContent-Length: 999999\r\n",
        "half a handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "garbage": os.urandom(4096),
    }[kind]
    before, opened = resident(launcher.pid), descriptors(launcher.pid)
    with contextlib.ExitStack() as held, launcher_client(launcher, kernel_id) as client:
        for _ in range(1000):
            sock = held.enter_context(plain_when_taken(launcher))
            with contextlib.suppress(OSError):
                sock.sendall(data)
        began = time.monotonic()
        assert launcher.call("GET", "/status")[0] == 200
        waited = time.monotonic() - began
        assert client.run("print(6 * 7)")[0] == "42\n"  # who is in already is not disturbed
        most = descriptors(launcher.pid) - opened, resident(launcher.pid) - before
        print(f"{launcher.kind}, {kind}: call after {waited:.2f} s, +{most[0]} descriptors, +{most[1] / MIB:.1f} MiB")
        assert most[0] < 200
        # A hundred handshakes may go on at a time, which take half a MiB each of asyncio and OpenSSL.
        assert most[1] < (96 * MIB if launcher.kind == "tls" else 16 * MIB)
    wait_until(lambda: descriptors(launcher.pid) <= opened + 5, what="connections are left open")


@contextlib.contextmanager
def launcher_client(launcher, kernel_id):
    client = launcher.client(kernel_id)
    try:
        yield client
    finally:
        client.close()


def plain_when_taken(launcher):
    """A full backlog of a Unix socket refuses at once: try again."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return plain(launcher)
        except BlockingIOError:
            assert time.monotonic() < deadline, "nobody is accepted any more"
            time.sleep(0.01)


def test_any_frames_are_told_and_the_kernel_goes_on(launcher, kernel_id):
    def frame(opcode, payload, first):
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        return bytes([first | opcode]) + length + bytes(4) + payload

    frames = st.builds(frame, st.integers(0, 15), st.binary(max_size=200), st.sampled_from([0x80, 0x80, 0, 0xC0]))

    @ANYTHING
    @given(st.lists(frames, min_size=1, max_size=5).map(b"".join) | st.binary(min_size=1, max_size=100))
    def check(data):
        with launcher.connect() as sock:
            sock.sendall(upgrade(launcher, kernel_id) + data)
            seen = b""
            while b"\r\n\r\n" not in seen:
                seen += sock.recv(65536)
            if not isinstance(sock, ssl.SSLSocket):  # which cannot be closed by half: it ends in the middle of all
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
        assert seen.startswith(b"HTTP/1.1 101 ")

    check()
    with launcher_client(launcher, kernel_id) as client:
        assert client.run("print(6 * 7)")[0] == "42\n"


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n"], ids=["made room", "failed"])
def test_mended_half_a_handshake_is_not_kept_in_memory(launcher, data):
    """It stayed until the garbage collector came by: 200 KiB each."""
    before = resident(launcher.pid)
    for _ in range(3):
        with contextlib.ExitStack() as held:
            for _ in range(500):
                sock = held.enter_context(plain_when_taken(launcher))
                with contextlib.suppress(OSError):
                    sock.sendall(data)
            assert launcher.call("GET", "/status")[0] == 200
    assert resident(launcher.pid) - before < 96 * MIB


def test_a_head_or_body_that_never_ends_costs_what_is_allowed(launcher):
    before = resident(launcher.pid)
    with launcher.connect() as sock:
        with contextlib.suppress(OSError):
            for _ in range(64):
                sock.sendall(b"X: " + b"y" * MIB)
        assert b" 200 " not in read_all(sock)
    with launcher.connect() as sock:
        sock.sendall(head(launcher, "POST /kernels/x/start HTTP/1.1", f"Content-Length: {wire.MAX_BODY + 1}"))
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")
    assert resident(launcher.pid) - before < 16 * MIB
