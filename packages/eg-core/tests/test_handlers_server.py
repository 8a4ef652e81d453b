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


# -- a thousand -------------------------------------------------------------------------------------------------------


@pytest.fixture
def process(short_tmp):
    """A gateway in a process of its own, its URL, and its resident memory in bytes."""
    environ = {**os.environ, "HOME": str(short_tmp), "JUPYTER_RUNTIME_DIR": str(short_tmp), "EG_AUTH_TOKEN": TOKEN}
    environ["JUPYTER_CONFIG_DIR"] = str(short_tmp / "config")
    log = short_tmp / "gateway.log"
    with log.open("wb") as output:
        gateway = subprocess.Popen(
            [sys.executable, "-m", "eg_core.cli.main", "serve", "--port=0", f"--data-dir={short_tmp / 'data'}"],
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
        await until(lambda: open_descriptors(pid) >= descriptors + 990, "all are accepted", 30)
        slowest = max([await asyncio.to_thread(get_api, port) for _ in range(20)])
        assert slowest < 1.0
        assert resident(pid) - before < 64 * 1024 * 1024
    finally:
        for sock in sockets:
            sock.close()
    await until(lambda: open_descriptors(pid) < descriptors + 20, "they are let go")
    assert "Traceback" not in log.read_text()
