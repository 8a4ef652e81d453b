"""What is read before a handler sees it is bounded in size and time; a thousand slow clients keep nobody waiting."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from eg_core.handlers.server import MAX_BODY, MAX_HEAD
from eg_core.tls import server_context
from gateway_support import gateway, until
from tls_support import Authority
from web_support import TOKEN, serving

HEAD = b"POST /api/kernels HTTP/1.1\r\nHost: x\r\nAuthorization: token %s\r\n" % TOKEN.encode()


async def ask(port, data, *, within=10.0):
    """All that comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), within)
        return b""
    finally:
        writer.close()


@pytest.fixture
async def hasty(tmp_path, short_tmp, kernelspecs):
    """A web that waits no longer than half a second."""
    bounds = {"head_within": 0.5, "body_within": 0.5}
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs, server=bounds) as web:
        yield web


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /ap",
        b"GET /api HTTP/1.1\r\nHost: x\r\n",
        HEAD + b"Content-Length: 1000\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["silence", "half a line", "half a head", "half a body", "half a chunk"],
)
async def test_who_does_not_go_on_is_cut(hasty, data):
    began = time.monotonic()
    answer = await ask(hasty.port, data)
    assert time.monotonic() - began < 5
    assert b" 201 " not in answer
    assert hasty.registry.all_kernels() == []
    assert (await hasty("GET", "/api"))[0] == 200


async def test_silence_instead_of_a_handshake_is_cut(tmp_path, short_tmp, kernelspecs):
    file = str(Authority(tmp_path).issue("gw"))
    tls = server_context(certfile=file, keyfile=None, client_ca=None, ssl_version=None)
    bounds = {"head_within": 0.5, "tls": tls}
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs, server=bounds) as web:
        assert await ask(web.port, b"") == b""
        assert await ask(web.port, b"\x16\x03\x01") == b""


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"X: " + b"y" * MAX_HEAD + b"\r\n\r\n",
        b"\0" * 1000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 500,
        b"GET /" + b"a" * 2 * MAX_HEAD + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_too_large_or_no_request_is_refused(hasty, data):
    answer = await ask(hasty.port, data)
    assert not answer or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:100]
    assert hasty.registry.all_kernels() == []
    assert (await hasty("GET", "/api"))[0] == 200


async def test_a_body_as_large_as_allowed_is_read(web):
    raw = b'{"name": "nope"}' + b" " * (MAX_BODY - 16)
    assert (await web("POST", "/api/kernels", raw=raw))[0] == 404


@pytest.mark.parametrize("size", [MAX_BODY + 1, 8 * MAX_BODY], ids=["a byte too much", "8 MiB"])
@pytest.mark.parametrize("token", [TOKEN, None], ids=["token", "no token"])
async def test_a_body_that_is_too_large_is_refused_in_words(web, size, token):
    status, _, body = await web("POST", "/api/kernels", raw=b"x" * size, token=token)
    assert status == 413
    assert str(MAX_BODY) in body["message"]
    assert (await web("GET", "/api"))[0] == 200


async def test_a_body_in_chunks_that_is_too_large_is_refused_and_its_connection_goes_on(hasty):
    chunks = (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 20 + b"0\r\n\r\n"
    after = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await ask(hasty.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + after)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", answer) == [b"413", b"200"]
    assert hasty.registry.all_kernels() == []


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_who_announces_too_much_is_told_at_once(hasty, expect):
    length = b"Content-Length: %d\r\n\r\n" % (1 << 40)
    answer = await ask(hasty.port, HEAD + expect + length)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100" not in answer.split(b"\r\n")[0]


async def test_more_than_is_thrown_away_is_not_read(web):
    _, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (1 << 40))

    async def flood():
        for _ in range(40):
            writer.write(b"x" * MAX_BODY)
            await asyncio.wait_for(writer.drain(), 10)

    with pytest.raises(ConnectionError):
        await flood()
    writer.close()


# -- a thousand -------------------------------------------------------------------------------------------------------


@pytest.fixture
def process(short_tmp, request):
    """A gateway in a process of its own: pid, port and log. Parameter: how many descriptors it may have."""
    environ = {**os.environ, "HOME": str(short_tmp), "JUPYTER_RUNTIME_DIR": str(short_tmp), "EG_AUTH_TOKEN": TOKEN}
    environ["JUPYTER_CONFIG_DIR"] = str(short_tmp / "config")
    log = short_tmp / "gateway.log"
    limit = f"ulimit -n {request.param} && " if hasattr(request, "param") else ""
    serve = [sys.executable, "-m", "eg_core.cli.main", "serve", "--port=0", f"--data-dir={short_tmp / 'data'}"]
    with log.open("wb") as output:
        gateway = subprocess.Popen(
            ["/bin/sh", "-c", f'{limit}exec "$@"', "sh", *serve],
            env=environ,
            stdout=output,
            stderr=output,
            cwd=short_tmp,
        )
    try:
        deadline = time.monotonic() + 30
        while not (said := re.search(r"available at http://127\.0\.0\.1:(\d+)/", log.read_text())):
            assert gateway.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield gateway.pid, int(said[1]), log
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(20)


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def processor_time(pid):
    """Seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def get_api(port):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api", headers={"Authorization": f"token {TOKEN}"})
    began = time.monotonic()
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    return time.monotonic() - began


async def test_a_thousand_slow_and_idle_connections_keep_nobody_waiting(process):
    pid, port, log = process
    get_api(port)
    before, descriptors = resident(pid), open_descriptors(pid)
    beginnings = [b"", b"GET /ap", HEAD, HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000]
    sockets = []
    try:
        for number in range(1000):
            sock = socket.create_connection(("127.0.0.1", port), timeout=10)
            sockets.append(sock)
            sock.sendall(beginnings[number % len(beginnings)])
        # One of those counted before may have been a connection that was about to end.
        await until(lambda: open_descriptors(pid) >= descriptors + 990, "all are accepted", 30)
        slowest = max([await asyncio.to_thread(get_api, port) for _ in range(20)])
        assert slowest < 1.0
        assert resident(pid) - before < 64 * 1024 * 1024
    finally:
        for sock in sockets:
            sock.close()
    await until(lambda: open_descriptors(pid) < descriptors + 20, "they are let go")
    assert "Traceback" not in log.read_text()


async def test_mended_of_bodies_without_the_token_nothing_is_kept(process):
    pid, port, _ = process
    get_api(port)
    before = resident(pid)
    sockets = []
    try:
        for _ in range(100):
            sock = socket.create_connection(("127.0.0.1", port), timeout=10)
            sockets.append(sock)
            head = b"POST /api/kernels HTTP/1.1\r\nHost: x\r\nAuthorization: token wrong\r\nContent-Length: %d\r\n\r\n"
            sock.sendall(head % MAX_BODY + b"x" * (MAX_BODY - 1))
        get_api(port)
        assert resident(pid) - before < 32 * 1024 * 1024
        for sock in sockets:
            sock.sendall(b"x")
            assert sock.recv(100).startswith(b"HTTP/1.1 401 ")
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("process", [120], indirect=True)
async def test_mended_without_descriptors_it_rests_and_comes_back(process):
    """It had written megabytes of tracebacks a second, on a processor of its own."""
    pid, port, log = process
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(200)]
    try:
        await until(lambda: open_descriptors(pid) >= 119, "the last descriptor is used")
        written, used = log.stat().st_size, processor_time(pid)
        await asyncio.sleep(2.0)  # this long it has nothing to do
        assert processor_time(pid) - used < 0.5
        assert log.stat().st_size - written < 10_000
    finally:
        for sock in sockets:
            sock.close()
    await asyncio.to_thread(get_api, port)
