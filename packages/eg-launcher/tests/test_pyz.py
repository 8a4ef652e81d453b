"""The launcher as one file: under Python 3.9 with only ipykernel, and where something is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

from eg_launcher import linux

BUILDER = next((path for up in Path(__file__).parents if (path := up / "tools/build_pyz.py").exists()), None)
DEADLINE = 60.0

pytestmark = [
    pytest.mark.skipif(BUILDER is None, reason="tools/build_pyz.py is in the repository only"),
    pytest.mark.timeout(300),  # pip installs ipykernel into a new environment
]


def find_python(version: str) -> str:
    """One outside of this environment, so that it holds nothing of ours."""
    candidates = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for candidate in filter(None, candidates):
        if runs(str(candidate), "-c", f"import sys; assert '%d.%d' % sys.version_info[:2] == '{version}'"):
            return str(candidate)
    pytest.skip(f"there is no Python {version} here, neither on PATH nor in ~/.pyenv")


def runs(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True, timeout=DEADLINE).returncode == 0


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **env}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=DEADLINE)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What it said before it ended with exit code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("eg-launcher: ")
    return line


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert BUILDER is not None
    target = tmp_path_factory.mktemp("a folder") / "eg-launcher.pyz"
    done = run(sys.executable, BUILDER, target)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Python 3.9 without any package."""
    return make_venv(tmp_path_factory.mktemp("bare"), "--without-pip")


@pytest.fixture(scope="module")
def kernel_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Python 3.9 with ipykernel and what that brings."""
    python = make_venv(tmp_path_factory.mktemp("kernel"))
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "ipykernel"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    if done.returncode:
        pytest.skip(f"pip could not install ipykernel: {done.stderr.strip().splitlines()[-1]}")
    return python


def make_venv(folder: Path, *options: str) -> str:
    done = run(find_python("3.9"), "-m", "venv", *options, folder)
    if done.returncode:
        pytest.skip(f"no virtual environment could be made: {done.stderr or done.stdout}")
    return str(folder / "bin/python")


def test_the_same_sources_give_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    assert BUILDER is not None
    again = tmp_path / "again.pyz"
    assert run(sys.executable, BUILDER, again).returncode == 0
    assert again.read_bytes() == pyz.read_bytes()
    with zipfile.ZipFile(pyz) as zipped:
        assert zipped.testzip() is None
    assert pyz.stat().st_size < 500_000


def test_without_python_it_says_so_in_one_line(pyz: Path) -> None:
    for command in ([pyz], ["/bin/sh", pyz]):
        assert "there is no Python on PATH here" in one_line(run(*command, PATH="/nowhere"))


def test_without_pyzmq_it_says_so_in_one_line(pyz: Path, bare_python: str) -> None:
    line = one_line(run(bare_python, pyz, "--help"))
    assert "it needs pyzmq" in line
    assert bare_python in line


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8"])
def test_an_old_python_says_so_in_one_line(pyz: Path, version: str) -> None:
    line = one_line(run(find_python(version), pyz, "--help"))
    assert f"it needs Python 3.9 or newer; this is {version}." in line


def test_an_old_pyzmq_is_refused(pyz: Path, bare_python: str, tmp_path: Path) -> None:
    (tmp_path / "zmq.py").write_text("pyzmq_version_info = lambda: (24, 0, 1)\npyzmq_version = lambda: '24.0.1'\n")
    assert "it needs pyzmq 25 or newer" in one_line(run(bare_python, pyz, PYTHONPATH=str(tmp_path)))


def test_it_can_be_told_which_python(pyz: Path, bare_python: str) -> None:
    assert bare_python in one_line(run(pyz, EG_PYTHON=bare_python))


SPAWN = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from eg_launcher.spawner import Spawner

async def main():
    spawner = await Spawner.open()
    ended = asyncio.get_running_loop().create_future()
    process = await spawner.spawn(["sh", "-c", "echo started; exit 5"], dict(os.environ), None, 1)
    spawner.watch(process.pid, ended.set_result)
    print(await ended)
    await spawner.close()

asyncio.run(main())
"""


def test_the_spawner_starts_out_of_the_file(pyz: Path, bare_python: str) -> None:
    done = run(bare_python, "-c", SPAWN, pyz)
    assert (done.stdout, done.stderr) == ("started\nExitStatus(code=5, signal=None)\n", "")


def test_help(pyz: Path, kernel_python: str) -> None:
    for command in ([kernel_python, pyz], [pyz]):
        done = run(*command, "--help", EG_PYTHON=kernel_python)
        assert (done.returncode, done.stderr) == (0, "")
        assert "eg-launcher attach" in done.stdout


@contextmanager
def launched(*command: str | Path) -> Iterator[dict[str, Any]]:
    """The ready line of a running launcher; at the end nothing of it may be left."""
    credentials = {"launcher_id": str(uuid.uuid4()), "token": uuid.uuid4().hex, "certificate": None, "key": None}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(credentials))
        process.stdin.close()
        ready = json.loads(process.stdout.readline())
        yield {**ready, "token": credentials["token"]}
        tree = linux.descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        left = [pid for pid, stat in tree.items() if linux.start_time(pid) == stat.started]
        assert left == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def execute(ready: dict[str, Any], kernel_id: str, code: str) -> str:
    """With a stock WebSocket client: what the code printed."""
    address = f"{ready['endpoint']['host']}:{ready['endpoint']['port']}"
    client = websocket.create_connection(
        f"ws://{address}/api/kernels/{kernel_id}/channels?token={ready['token']}", timeout=DEADLINE
    )
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "session": "s",
        "username": "",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    client.send(json.dumps({**request, "buffers": []}))
    text, deadline = "", time.monotonic() + DEADLINE
    try:
        while time.monotonic() < deadline:
            message = json.loads(client.recv())
            if message["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if message["header"]["msg_type"] == "stream":
                text += message["content"]["text"]
            if message["header"]["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return text
        pytest.fail("the cell did not end in time")
    finally:
        client.close()


def test_a_cell_runs_under_python_3_9_with_only_ipykernel(pyz: Path, kernel_python: str) -> None:
    kernel_id = str(uuid.uuid4())
    options = ["--tcp", "127.0.0.1:0", "--insecure-loopback", "--credentials", "-", "--kernel-id", kernel_id]
    kernel = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    code = "import sys; print(sys.version_info[:2], sys.executable)"
    with launched(kernel_python, pyz, "spawn", *options, "--", *kernel) as ready:
        assert execute(ready, kernel_id, code) == f"(3, 9) {kernel_python}\n"
