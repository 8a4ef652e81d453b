"""Bad input, sent to a whole gateway and its launcher: a clear error, nothing created, both alive, memory bounded.

What one module refuses is tested beside it; here it has to hold for the processes, sockets and logs that a site runs.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from eg_integration.gateway import Answer, Gateway
from eg_integration.processes import resident
from eg_integration.raw import head, raw_socket, read_all, read_until
from eg_integration.waiting import wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ANYTHING = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture
def none_made(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway; what the test has sent must have made nothing, and must not have ended it."""
    yield gateway
    assert gateway.list_kernels() == []
    assert gateway.request("GET", "/api/sessions").json == []
    assert gateway.kernels() == []
    assert gateway.process is not None
    assert gateway.process.poll() is None


@pytest.fixture
def kernel(gateway: Gateway) -> Iterator[str]:
    """A kernel that must still answer after the test."""
    kernel_id = gateway.start_kernel()
    yield kernel_id
    with gateway.connect(kernel_id) as client:
        assert client.value("6 * 7") == 42


def refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, (answer.status, answer.body[:300])
    content = answer.json
    assert {"reason", "message"} <= set(content)
    assert "Traceback" not in answer.words
    for word in words:
        assert word in content["message"], content


# -- the REST API -----------------------------------------------------------------------------------------------------

KERNELS, SESSIONS = "/api/kernels", "/api/sessions"
BODIES: dict[str, tuple[str, Any, int, str]] = {
    "no JSON": (KERNELS, b'{"name": ', 400, "not valid JSON"),
    "no UTF-8": (KERNELS, b'{"name": "\xff\xfe"}', 400, "not valid JSON"),
    "a list": (KERNELS, b"[1, 2]", 400, "JSON object"),
    "deep": (KERNELS, b'{"env":' * 100_000, 400, "not valid JSON"),
    "a huge number": (KERNELS, b'{"name": ' + b"9" * 5000 + b"}", 400, "not valid JSON"),
    "a number as name": (KERNELS, {"name": 7}, 400, "'name'"),
    "NUL in a path": (KERNELS, {"path": "a\0b"}, 400, "'path'"),
    "NUL in a value": (KERNELS, {"env": {"KERNEL_A": "a\0b"}}, 400, "KERNEL_A"),
    "env is a list": (KERNELS, {"env": ["KERNEL_A=1"]}, 400, "'env'"),
    "a number as value": (KERNELS, {"env": {"KERNEL_A": 1}}, 400, "KERNEL_A"),
    "= in a variable's name": (KERNELS, {"env": {"KERNEL_A=B": "1"}}, 400, "KERNEL_A=B"),
    "NUL in a variable's name": (KERNELS, {"env": {"KERNEL_A\0": "1"}}, 400, "env name"),
    "newline in a variable's name": (KERNELS, {"env": {"KERNEL_A\n": "1"}}, 400, "env name"),
    "é in a variable's name": (KERNELS, {"env": {"KERNEL_é": "1"}}, 400, "env name"),
    "no name": (KERNELS, {"env": {"": "1"}}, 400, "env name"),
    "a large value": (KERNELS, {"env": {"KERNEL_A": "x" * 40_000}}, 400, "at most 32768"),
    "many variables": (KERNELS, {"env": {f"KERNEL_{n}": "" for n in range(2000)}}, 400, "at most 1024"),
    "a path as id": (KERNELS, {"env": {"KERNEL_ID": "../../etc/passwd"}}, 400, "KERNEL_ID"),
    "newline behind an id": (KERNELS, {"kernel_id": f"{uuid.uuid4()}\n"}, 400, "KERNEL_ID"),
    "newline in a user": (KERNELS, {"env": {"KERNEL_USERNAME": "bob\nroot"}}, 400, ""),
    "a long user": (KERNELS, {"env": {"KERNEL_USERNAME": "u" * 10_000}}, 400, "255"),
    "unknown kernelspec": (KERNELS, {"name": "nope"}, 404, "nope"),
    "a path as kernelspec": (KERNELS, {"name": "../../../../etc"}, 404, "kernelspec"),
    "a long kernelspec": (KERNELS, {"name": "x" * 100_000}, 400, "at most 4096"),
    "half a character as path": (KERNELS, b'{"path": "\\ud800"}', 400, "'path'"),
    "half a character as value": (KERNELS, b'{"env": {"KERNEL_A": "\\ud800"}}', 400, "KERNEL_A"),
    "half a character as user": (KERNELS, b'{"env": {"KERNEL_USERNAME": "\\ud800"}}', 400, "KERNEL_USERNAME"),
    "half a character in a session": (SESSIONS, b'{"path": "\\udfff", "type": "notebook"}', 400, "'path'"),
    "2 MiB": (KERNELS, b"x" * 2_097_152, 413, "1048576"),
    "no body": (SESSIONS, b"", 400, "No JSON data"),
    "no path": (SESSIONS, {"type": "notebook"}, 400, "path"),
    "no type": (SESSIONS, {"path": "a.ipynb"}, 400, "type"),
    "a path of 1 MB": (SESSIONS, {"path": "x" * 1_000_000, "type": "notebook"}, 400, "at most 4096"),
    "kernel is a string": (SESSIONS, {"path": "a", "type": "notebook", "kernel": "python3"}, 400, "'kernel'"),
    "unknown kernel": (SESSIONS, {"path": "a", "type": "x", "kernel": {"id": str(uuid.uuid4())}}, 404, "Kernel"),
}


@pytest.mark.parametrize(("path", "body", "status", "words"), BODIES.values(), ids=BODIES)
def test_a_bad_body_is_refused_in_words(none_made: Gateway, path: str, body: Any, status: int, words: str) -> None:
    refused(none_made.request("POST", path, body), status, words)


@pytest.mark.parametrize("where", ["", "/interrupt", "/restart", "/log", "/channels"])
def test_an_unknown_kernel_is_404(none_made: Gateway, where: str) -> None:
    for kernel_id in (str(uuid.uuid4()), "é-é-é-é-é".encode().hex() + "-a-a-a-a", "a" * 30_000 + "-a-a-a-a"):
        for method in ("GET", "DELETE") if not where else ("POST",) if where[1] in "ir" else ("GET",):
            refused(none_made.request(method, f"/api/kernels/{kernel_id}{where}"), 404)


def test_parameters_that_are_wrong_are_named(gateway: Gateway, kernel: str) -> None:
    for after in ("x", "-1", "1e3", "²", "9" * 30, "9" * 4000):
        refused(gateway.request("GET", f"/api/kernels/{kernel}/log?after={quote(after)}"), 400, "'after'")
    refused(gateway.request("GET", f"/api/kernels/{kernel}/channels?session_id={'x' * 5000}"), 400, "'session_id'")
    for prefer in ("wait=\xb2", "wait=-1", "wait=", "wait=1e999", "wait=" + "x" * 9000, ",,;="):
        answer = gateway.request("POST", KERNELS, {"name": "nope"}, headers={"Prefer": prefer})
        refused(answer, 404, "nope")
    answer = gateway.request("POST", KERNELS, {}, headers={"Prefer": "wait=\xb2"})
    assert answer.status == 201


def test_only_declared_resources_leave_a_kernelspecs_folder(none_made: Gateway) -> None:
    folder = none_made.folder / "jupyter" / "kernels" / "python3"
    outside = none_made.folder / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "logo-64x64.png").write_text("nobody should read this")
    links = {"logo-link.png": outside / "logo-64x64.png", "logo-folder": outside, "logo-loop": folder / "logo-loop"}
    try:
        for name, target in links.items():
            (folder / name).symlink_to(target)
        os.mkfifo(folder / "logo-pipe")
        listed = none_made.request("GET", "/api/kernelspecs/python3").json["resources"]
        assert set(listed) == {"kernel.js", "logo-64x64"}
        ways = ["private.txt", "kernel.json", "../python3/kernel.json", "..%2fpython3%2fkernel.json", "%00", ".", "%2e"]
        ways += [
            "%2e%2e/python3/kernel.js",
            "..%252fpython3%252fkernel.js",
            "logo-link.png",
            "logo-folder",
            "logo-pipe",
        ]
        ways += ["logo-loop", "logo-folder/logo-64x64.png", "%2fetc%2fpasswd", "//etc/passwd", "kernel.js%00.png"]
        for way in ways:
            refused(none_made.request("GET", f"/kernelspecs/python3/{way}"), 404)
        for name in (
            "..",
            "%2e%2e",
            "%2e%2e%2fkernels%2fpython3",
            "python3%2f..%2fpython3",
            "python3%00",
            "%252e%252e",
        ):
            refused(none_made.request("GET", f"/kernelspecs/{name}/kernel.js"), 404)
            refused(none_made.request("GET", f"/api/kernelspecs/{name}"), 404)
        assert none_made.request("GET", "/kernelspecs/python3/kernel.js").status == 200
    finally:
        for name in [*links, "logo-pipe"]:
            (folder / name).unlink(missing_ok=True)


def test_whatever_is_sent_is_answered_as_described(none_made: Gateway) -> None:
    """By the description that the gateway itself serves: every operation, any body, any parameter."""
    paths = none_made.request("GET", "/api/swagger.json", token=None).json["paths"]
    operations = [(path, method) for path in paths for method in paths[path] if method in ("get", "post", "patch")]
    operations.append(("/api/kernels/{kernel_id}", "delete"))
    json_value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
        max_leaves=8,
    )
    fields = st.sampled_from(["name", "path", "env", "kernel_id", "type", "notebook", "kernel", "KERNEL_ID"])
    body = st.dictionaries(fields, json_value | st.dictionaries(fields, json_value, max_size=3), max_size=5)
    # A body that is right starts a kernel; with this name it never does.
    raw = st.binary(max_size=100) | body.map(lambda value: json.dumps({**value, "name": "nope"}).encode())
    segment = st.sampled_from(["..", "%2e%2e", "a%00b", "%ff", "*", str(uuid.uuid4()), "%e2%80%a8"])

    @ANYTHING
    @given(st.sampled_from(operations), raw, segment, st.sampled_from(["", "after=x", "user=%00", "user=a/b/c"]))
    def check(operation: tuple[str, str], sent: bytes, part: str, query: str) -> None:
        path, method = operation
        with_body = sent.strip() or b"{}"
        url = f"{re.sub(r'{[^}]+}', part, path)}?{query}"
        if method == "post" and path == KERNELS and with_body == b"{}":
            return  # a good request
        answer = none_made.request(method.upper(), url, with_body if method in ("post", "patch") else None)
        documented = {int(status) for status in paths[path][method]["responses"]}
        assert answer.status in documented | {400, 404}, (method, url, answer.status, answer.body[:200])
        if answer.status >= 400:
            refused(answer, answer.status)

    check()


# -- who asks ---------------------------------------------------------------------------------------------------------


def test_without_the_token_nothing_is_answered_and_nothing_kept(none_made: Gateway) -> None:
    kernel_id = uuid.uuid4()
    for token in ("wrong", none_made.token[:-1], none_made.token + "x", none_made.token.upper(), "token"):
        for method, path in (("GET", KERNELS), ("POST", KERNELS), ("POST", SESSIONS), ("GET", "/metrics"),
                             ("DELETE", f"/api/kernels/{kernel_id}"), ("GET", f"/api/kernels/{kernel_id}/channels"),
                             ("GET", f"/api?token={token}"), ("GET", "/api/kernelspecs/../kernels")):  # fmt: skip
            answer = none_made.request(method, path, {} if method == "POST" else None, token=token)
            refused(answer, 404 if ".." in path else 401)
            assert none_made.token not in f"{answer.headers}{answer.body!r}"


def test_bodies_without_the_token_are_not_kept(none_made: Gateway) -> None:
    before = resident(none_made.pid)
    with ExitStack() as held:
        for _ in range(200):
            sock = held.enter_context(raw_socket(none_made))
            sock.sendall(b"POST /api/kernels HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 999_000)
        assert none_made.request("GET", "/api").status == 200
        assert resident(none_made.pid) - before < 64 << 20
        sock.sendall(b"x" * 1000)
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")


def test_without_a_token_a_name_from_foreign_dns_does_not_reach_it(new_gateway: Callable[..., Gateway]) -> None:
    """A page may come in whose own host the browser believes this machine to be."""
    gateway = new_gateway("bare").start(env={"EG_AUTH_TOKEN": ""})
    port = urlsplit(gateway.url).port
    for host in (f"evil.example:{port}", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        refused(gateway.request("POST", KERNELS, {}, headers=headers), 403, "Host")
        refused(gateway.request("GET", KERNELS, headers=headers), 403, "Host")
        refused(gateway.request("GET", f"/api/kernels/{uuid.uuid4()}/channels", headers=headers), 403, "Host")
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert gateway.request("GET", KERNELS, headers={"Host": host}).json == []


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", "file://"]
)
def test_a_page_of_another_origin_is_refused(none_made: Gateway, origin: str) -> None:
    """Also where a browser asks nobody before it sends: a form's POST, and a WebSocket."""
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    refused(none_made.request("POST", KERNELS, {}, headers=headers), 404, "origin")
    refused(none_made.request("POST", SESSIONS, {"path": "a", "type": "x"}, headers=headers), 404, "origin")
    refused(none_made.request("GET", f"/api/kernels/{uuid.uuid4()}/channels", headers=headers), 403, "origin")
    preflight = none_made.request("OPTIONS", KERNELS, token=None, headers=headers)
    assert not [name for name in preflight.headers if name.lower().startswith("access-control")]


# -- HTTP itself ------------------------------------------------------------------------------------------------------


POST = "POST /api/kernels HTTP/1.1"
SMUGGLED: dict[str, tuple[str, tuple[str, ...]]] = {
    "both lengths": (POST, ("Content-Length: 2", "Transfer-Encoding: chunked")),
    "two lengths": (POST, ("Content-Length: 0", "Content-Length: 2")),
    "+": (POST, ("Content-Length: +2",)),
    "hexadecimal": (POST, ("Content-Length: 0x2",)),
    "blank before the colon": (POST, ("Transfer-Encoding : chunked",)),
    "an unknown coding": (POST, ("Transfer-Encoding: xchunked",)),
    "chunked twice": (POST, ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")),
    "a folded line": (POST, ("X-A: a", " Content-Length: 2")),
    "a bare CR": (POST, ("X-A: a\rContent-Length: 2",)),
    "two hosts": (POST, ("Host: evil.example", "Content-Length: 0")),
    "a control character": (POST, ("X-A: a\x01b", "Content-Length: 0")),
    "no version": ("POST /api/kernels", ("Content-Length: 0",)),
    "two requests in a line": ("GET /api HTTP/1.1\x00POST /api/kernels HTTP/1.1", ("Content-Length: 0",)),
    "upgrade with both lengths": (
        "GET /api/kernels/{id}/channels HTTP/1.1",
        ("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 2", "Transfer-Encoding: chunked"),
    ),
}


@pytest.mark.parametrize(("line", "headers"), SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_that_two_would_read_differently_is_refused(
    none_made: Gateway, line: str, headers: tuple[str, ...]
) -> None:
    """And so is what follows it, which one of them would take for a request of its own."""
    smuggled = b"0\r\n\r\n" + head(none_made, POST, "Content-Length: 0")
    with raw_socket(none_made) as sock:
        sock.sendall(head(none_made, line.replace("{id}", str(uuid.uuid4())), *headers) + smuggled)
        answer = read_all(sock)
    assert not answer or answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1 ") <= 1, answer


@pytest.mark.parametrize(
    "data", [b"\0" * 5000, b"\x16\x03\x01\x02\x00" + b"\xff" * 600, b"\r\n" * 40_000, os.urandom(999)]
)
def test_what_is_no_http_is_cut(none_made: Gateway, data: bytes) -> None:
    with raw_socket(none_made) as sock:
        with suppress(ConnectionError):
            sock.sendall(data + b"\r\n\r\n")
        answer = read_all(sock)
    assert not answer or answer.startswith(b"HTTP/1.1 400 "), answer


def test_many_headers_keep_nobody_waiting(none_made: Gateway) -> None:
    with raw_socket(none_made) as sock:
        sock.sendall(head(none_made, "GET /api HTTP/1.1", *["a: b"] * 10_000, "Connection: close"))
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
    with raw_socket(none_made) as sock:
        with suppress(ConnectionError):
            sock.sendall(head(none_made, "GET /api HTTP/1.1", *["a: b"] * 100_000))
        assert b"200 OK" not in read_all(sock)


# -- what the log says ------------------------------------------------------------------------------------------------


def test_no_secret_and_no_forged_line_in_the_log(gateway: Gateway) -> None:
    """Of tokens that were right, wrong or misplaced, of variables' values, and of names with line ends."""
    secret = f"secret-{uuid.uuid4().hex}"
    forged = "[C 2030-01-01 00:00:00.000 EnterpriseGatewayApp] forged"
    gateway.start_kernel(env={"KERNEL_SECRET": secret})
    for path in ("/api/kernelspecs", "/api/nowhere", "/api/kernelspecs/%ff", "/api;x"):
        for token in (gateway.token, f"{gateway.token}%ff", secret, f"{secret}%0a"):
            gateway.request("GET", f"{path}?token={token}", token=None)
    for line in ("GET /api?token={} HTTP/9.9", "GET /api?token={}\x01 HTTP/1.1", "GET  /api?token={} HTTP/1.1"):
        for token in (gateway.token, secret):
            with raw_socket(gateway) as sock:
                sock.sendall(head(gateway, line.format(token), f"X-Token: {token}\x01"))
                read_until(sock, b"\r\n")
    gateway.request("POST", KERNELS, {"env": {"KERNEL_A": [secret]}})
    gateway.request("POST", KERNELS, {"env": {"KERNEL_A": secret + "\0"}})
    for end in ("\n", "\r", "\r\n", "\x85", "\u2028", "\x0b", "\x1b[2K\r"):
        name = f"x{end}{forged}"
        gateway.request("POST", KERNELS, {"name": name})
        gateway.request("POST", KERNELS, {"name": "nope", "env": {"KERNEL_USERNAME": name}})
        gateway.request("POST", SESSIONS, {"path": name, "type": "notebook", "name": name})
        gateway.request("POST", SESSIONS, {"path": "a", "type": name})
        gateway.request("GET", KERNELS, headers={"X-Request-ID": name.encode().hex()})
    wait_until(lambda: len(gateway.list_kernels()) >= 2, "the sessions' kernels")
    gateway.delete_all()
    for name, text in gateway.logs().items():
        assert secret not in text, name
        assert gateway.token not in text, name
        assert not [line for line in re.split(r"[\n\r\x85\u2028\x0b\x1b]", text) if line.startswith("[C ")], name
