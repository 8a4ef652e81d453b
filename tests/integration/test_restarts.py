"""The gateway goes and comes back: told to, killed, asked at its terminal; with its port kept open by somebody else."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from eg_integration.channels import Channels
from eg_integration.gateway import Answer, Gateway
from eg_integration.processes import wait_gone
from eg_integration.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy/systemd"
AS_FIRST = """import os, sys
if sys.argv[1] != "3":
    os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.set_inheritable(3, True)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Hands a socket over as systemd does: as descriptor 3, to this very process."""
AT_TERMINAL = """import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
TICKING = "import time\nfor n in range({n}):\n    print(n, flush=True)\n    time.sleep(0.2)"


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """One that outlives gateways."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        yield sock


def start_on(port: socket.socket, gateway: Gateway, *args: str) -> Gateway:
    prefix = [sys.executable, "-c", AS_FIRST, str(port.fileno())]
    return gateway.start(*args, prefix=prefix, pass_fds=[port.fileno()])


def tell_to_end(gateway: Gateway) -> None:
    """Told to end, and seen to have heard it."""
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.request("GET", "/healthz").status == 503, "the gateway to be not ready any more")


def ended(gateway: Gateway, within: float) -> int:
    assert gateway.process is not None
    return gateway.process.wait(within)


def recorded(gateway: Gateway) -> list[str]:
    """The states of kernels, as a gateway that comes next will find them."""
    with contextlib.closing(sqlite3.connect(gateway.folder / "data/eg.db")) as store:
        return [state for (state,) in store.execute("SELECT state FROM eg_kernels")]


# -- SIGTERM ------------------------------------------------------------------------------------------------------


def test_told_to_end_it_takes_no_launch_and_lets_who_works_finish(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start()
    kernel_id, dead = gateway.start_kernel(), gateway.start_kernel()
    (*_, last) = gateway.kernels()
    with gateway.connect(kernel_id) as busy, gateway.connect(kernel_id) as idle:
        running = busy.execute(TICKING.format(n=40))  # 8 s
        busy.wait_for(lambda m: m.type == "stream", "the first tick")
        tell_to_end(gateway)
        assert gateway.request("GET", "/healthz", token=None).json == {"status": "ending"}
        refused = gateway.request("POST", "/api/kernels", {"name": "python3"})
        assert refused.status == 503, refused.words
        assert int(refused.headers["Retry-After"]) > 0
        assert "restarting" in refused.words
        assert gateway.request("POST", f"/api/kernels/{kernel_id}/interrupt", {}).status == 204
        assert gateway.model(kernel_id)["id"] == kernel_id
        assert busy.finish(running).reply["status"] == "error"
        done = busy.finish(busy.execute(TICKING.format(n=40)))
        assert done.text.split() == [str(n) for n in range(40)]
        assert busy.until_closed().code == 1012
        assert idle.until_closed().code == 1012
    assert ended(gateway, 10) == 0
    assert last.alive()
    gateway.start()
    with gateway.connect(dead) as client:
        assert client.value("1 + 1") == 2


def test_it_does_not_wait_for_ever_and_a_second_signal_is_enough(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start("--EnterpriseGatewayApp.drain_timeout=2")
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, session="s") as client:
        parent = client.execute(TICKING.format(n=100))
        client.wait_for(lambda m: m.type == "stream", "the first tick")
        began = time.monotonic()
        tell_to_end(gateway)
        assert client.until_closed().code == 1012
        assert ended(gateway, 10) == 0
        assert time.monotonic() - began >= 2
    gateway.start("--EnterpriseGatewayApp.drain_timeout=600")
    with gateway.connect(kernel_id, session="s") as client:  # replayed from where it was cut
        client.wait_for(lambda m: m.type == "stream" and m.parent_id == parent, "the cell to go on")
        tell_to_end(gateway)
        gateway.stop(signal.SIGTERM, 10)


def test_a_launch_under_way_comes_to_its_end(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start()
    answers: list[Answer] = []
    post = threading.Thread(target=lambda: answers.append(gateway.request("POST", "/api/kernels", {"name": "slow"})))
    post.start()
    wait_until(gateway.list_kernels, "the launch to have begun")
    tell_to_end(gateway)
    assert ended(gateway, 30) == 0
    post.join(10)
    assert [answer.status for answer in answers] == [201]
    gateway.start()
    with gateway.connect(answers[0].json["id"]) as client:
        assert client.value("6 * 7") == 42


def test_a_kernel_that_was_starting_when_the_gateway_was_killed_is_served(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start()
    answer = gateway.request("POST", "/api/kernels", {"name": "slow"}, headers={"Prefer": "respond-async"})
    wait_until(lambda: recorded(gateway) == ["starting"], "the launcher to have it, and the store to know that")
    gateway.stop(signal.SIGKILL)
    gateway.start()
    kernel_id = answer.json["id"]
    wait_until(lambda: gateway.model(kernel_id)["execution_state"] == "idle", "the kernel to answer")
    with gateway.connect(kernel_id) as client:
        assert client.value("6 * 7") == 42


# -- a port that somebody else keeps ------------------------------------------------------------------------------


def test_who_comes_while_there_is_no_gateway_waits_and_is_served(
    new_gateway: Callable[..., Gateway], port: socket.socket
) -> None:
    gateway = start_on(port, new_gateway())
    assert urlsplit(gateway.url).port == port.getsockname()[1]
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id, session="s") as client:
        client.run("kept = 7")
        parent = client.execute(TICKING.format(n=30))
        client.wait_for(lambda m: m.type == "stream", "the first tick")
        gateway.stop(signal.SIGKILL)
    came_back: list[Channels] = []
    waiting = threading.Thread(target=lambda: came_back.append(gateway.connect(kernel_id, session="s", timeout=60)))
    waiting.start()
    start_on(port, gateway)
    waiting.join(60)
    with came_back[0] as client:
        assert client.finish(parent).text.split()[-1] == "29"
        assert client.value("kept") == 7


def test_a_socket_that_is_none_is_refused_in_words(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(AssertionError, match="no socket"):
        new_gateway().start(prefix=[sys.executable, "-c", AS_FIRST, str(file.fileno())], pass_fds=[file.fileno()])


def test_systemds_own_tool_hands_the_port_over(new_gateway: Callable[..., Gateway], needs: Callable[..., None]) -> None:
    """It listens, and starts the gateway when the first client comes."""
    tool = shutil.which("systemd-socket-activate")
    needs("systemd", tool, "install systemd for systemd-socket-activate")
    assert tool is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    gateway = new_gateway()
    passed = [f"--setenv={name}" for name in gateway.environ]
    first = threading.Thread(target=_knock, args=(where,))
    first.start()
    gateway.start(prefix=[tool, f"--listen={where}", *passed])
    first.join(30)
    assert urlsplit(gateway.url).netloc == where
    with gateway.connect(gateway.start_kernel()) as client:
        assert client.value("6 * 7") == 42


def _knock(where: str) -> None:
    host, _, port = where.partition(":")

    def connected() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5):
            return True
        return False

    wait_until(connected, "somebody to listen", 30)


def test_the_units_are_right(needs: Callable[..., None], tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    needs("systemd", tool, "install systemd for systemd-analyze")
    assert tool is not None
    units = []
    for unit in sorted(DEPLOY.iterdir()):
        # Neither the user nor the installation is on this machine.
        text = unit.read_text().replace("User=eg\n", "").replace("/opt/eg/bin/eg", sys.executable)
        units.append(tmp_path / unit.name)
        units[-1].write_text(text)
    assert len(units) == 2
    done = subprocess.run([tool, "verify", *units], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- Ctrl-C -------------------------------------------------------------------------------------------------------


class Terminal:
    """A gateway's terminal, and who sits there."""

    def __init__(self) -> None:
        self.ours, self.its = pty.openpty()

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.its)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_ctrl_c_asks_first(new_gateway: Callable[..., Gateway], terminal: Terminal) -> None:
    gateway = new_gateway().start(prefix=[sys.executable, "-c", AT_TERMINAL], stdin=terminal.its)
    gateway.start_kernel()
    started = gateway.processes()

    def asked() -> int:
        return gateway.log().count("1 kernel is running. Shut down this gateway and its kernels (y/[n])?")

    terminal.type("\x03")
    wait_until(lambda: asked() == 1, "the question")
    terminal.type("n\n")
    wait_until(lambda: "goes on: the answer was no" in gateway.log(), "no to be taken for a no")
    terminal.type("\x03")
    wait_until(lambda: asked() == 2, "the question again")
    wait_until(lambda: "goes on: no answer for 5 s" in gateway.log(), "no answer to be taken for a no")
    assert all(process.alive() for process in started)
    terminal.type("\x03")
    wait_until(lambda: asked() == 3, "the question once more")
    terminal.type("y\n")
    assert ended(gateway, 20) == 0
    wait_gone(started)


def test_ctrl_c_twice_needs_no_answer(new_gateway: Callable[..., Gateway], terminal: Terminal) -> None:
    gateway = new_gateway().start(prefix=[sys.executable, "-c", AT_TERMINAL], stdin=terminal.its)
    gateway.start_kernel()
    started = gateway.processes()
    terminal.type("\x03")
    wait_until(lambda: "(y/[n])?" in gateway.log(), "the question")
    terminal.type("\x03")
    assert ended(gateway, 20) == 0
    wait_gone(started)


# -- for how long -------------------------------------------------------------------------------------------------


def test_kernels_that_shall_be_kept_outlive_the_lease(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start("--EnterpriseGatewayApp.lease=1", "--LocalBackend.keep_kernels=True")
    other = new_gateway().start("--EnterpriseGatewayApp.lease=1")
    kernel_id = gateway.start_kernel()
    other.start_kernel()
    kept, given_up = gateway.processes(), other.processes()
    for one in (gateway, other):
        one.stop()
    wait_gone(given_up)
    assert all(process.alive() for process in kept)
    gateway.start()
    with gateway.connect(kernel_id) as client:
        assert client.value("6 * 7") == 42
