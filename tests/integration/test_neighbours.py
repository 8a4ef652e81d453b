"""Gateways side by side: of one user, on one host, with one home and one runtime directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from eg_integration.gateway import Gateway
from eg_integration.waiting import wait_until

SHARED = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")


@pytest.fixture
def pair(new_gateway: Callable[..., Gateway]) -> tuple[Gateway, Gateway, dict[str, str]]:
    """Two running gateways that share everything but their data directory; what the second needs to start again."""
    one, two = new_gateway("one"), new_gateway("two")
    shared = {name: one.environ[name] for name in SHARED}
    return one.start(), two.start(env=shared), shared


def _kernels_running(gateway: Gateway) -> set[str]:
    """Ids of all kernels of this home, whichever gateway started them."""
    environs = (found.environ.split("\0") for found in gateway.kernels())
    return {entry.removeprefix("KERNEL_ID=") for environ in environs for entry in environ if "KERNEL_ID=" in entry}


def test_neither_touches_the_other_s_kernels(pair: tuple[Gateway, Gateway, dict[str, str]]) -> None:
    one, two, shared = pair
    ones, twos = {one.start_kernel(), one.start_kernel()}, {two.start_kernel(), two.start_kernel()}
    assert {model["id"] for model in one.list_kernels()} == ones
    assert {model["id"] for model in two.list_kernels()} == twos
    assert _kernels_running(one) == ones | twos

    for kernel_id in twos:
        assert one.request("GET", f"/api/kernels/{kernel_id}").status == 404
        assert one.request("DELETE", f"/api/kernels/{kernel_id}").status == 404
    theirs = next(iter(twos))
    with two.connect(theirs) as client:
        client.run("kept = 1")

        # One is killed and comes back: it looks for strays, and must not take two's kernels for its own.
        one.stop(signal.SIGKILL)
        one.start()
        assert {model["id"] for model in one.list_kernels()} == ones
        one.delete_all_of(ones)
        wait_until(lambda: _kernels_running(one) == twos, "only two's kernels to be left")
        assert client.value("kept") == 1

        # One ends with all it has.
        mine = one.start_kernel()
        one.stop(signal.SIGINT)
        wait_until(lambda: mine not in _kernels_running(one), "one's kernel to be gone")
        assert client.value("kept") == 1

    two.stop(signal.SIGKILL)
    two.start(env=shared)
    with two.connect(theirs) as client:
        assert client.value("kept") == 1
    two.delete_all_of(twos)
    wait_until(lambda: not _kernels_running(one), "no kernel to be left")


def test_a_data_directory_belongs_to_one_gateway(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start()
    kernel_id = gateway.start_kernel()
    command = [*gateway.command, "serve", "--port", "0", "--data-dir", str(gateway.folder / "data")]
    second = subprocess.run(command, env=gateway.environ, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode != 0
    assert str(gateway.folder / "data") in second.stderr
    assert "Traceback" not in second.stderr
    assert gateway.model(kernel_id)["execution_state"] != "dead"


@pytest.mark.timeout(240)
def test_the_suite_beside_itself() -> None:
    """Two runs of a part of this suite at once, each with gateways, launchers and kernels."""
    tests = str(Path(__file__).with_name("test_isolation.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [run.communicate(timeout=200)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)
