"""Gateways and launchers of different versions: what one launcher version apart does, and what more than that.

The other launchers are this tree's, built with another protocol number, as wheels, and installed beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from eg_integration.gateway import Gateway
from eg_integration.processes import wait_gone
from eg_integration.waiting import wait_until

from eg_launcher.wire import PROTOCOL

SOURCE = Path(__file__).parents[2] / "packages" / "eg-launcher"
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def launcher_of(
    tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str, object, str], None]
) -> Callable[[int], tuple[str, ...]]:
    """Gateway options that have kernels started by a launcher of that protocol."""
    needs("hatchling", find_spec("hatchling"), "pip install hatchling, to build the other launchers' wheels")

    def options(protocol: int) -> tuple[str, ...]:
        site = _installed(protocol, tmp_path_factory.mktemp("version"))
        command = ["env", f"PYTHONPATH={site}", sys.executable, "-m", "eg_launcher"]
        return tuple(f"--LocalBackend.launcher_command={word}" for word in command)

    return options


def _installed(protocol: int, folder: Path) -> Path:
    source = folder / "source"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("tests", "dist", "__pycache__"))
    wire = source / "src" / "eg_launcher" / "wire.py"
    text = wire.read_text()
    assert f"\nPROTOCOL = {PROTOCOL}\n" in text
    wire.write_text(text.replace(f"\nPROTOCOL = {PROTOCOL}\n", f"\nPROTOCOL = {protocol}\n"))
    command = [sys.executable, "-c", BUILD, str(folder)]
    built = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    site = folder / "site"
    zipfile.ZipFile(folder / built.stdout.split()[-1]).extractall(site)
    return site


def test_a_launcher_of_the_version_before_serves_its_kernels_to_the_end(
    new_gateway: Callable[..., Gateway], launcher_of: Callable[[int], tuple[str, ...]]
) -> None:
    gateway = new_gateway().start(*launcher_of(PROTOCOL - 1))
    old = gateway.start_kernel()
    with gateway.connect(old) as client:
        assert client.run("x = 41; print('old')").text == "old\n"
    (old_launcher,) = gateway.launchers()

    gateway.stop()
    gateway.start()
    with gateway.connect(old) as client:
        assert client.run("x += 1; print(x)").text == "42\n"
        new = gateway.start_kernel()
        assert len(gateway.launchers()) == 2, "the old launcher took a new kernel"
        with gateway.connect(new) as other:
            assert other.run("print('new')").text == "new\n"
        assert client.run("print(x)").text == "42\n"
        assert gateway.request("POST", f"/api/kernels/{old}/interrupt", {}).status == 204
        assert gateway.request("POST", f"/api/kernels/{old}/restart", {}).status == 200
    with gateway.connect(old) as client:
        assert client.run("print('x' in globals())").text == "False\n"

    gateway.delete_kernel(old)
    wait_gone([old_launcher], timeout=30)  # it ends by itself when it holds nothing
    assert gateway.model(new)["execution_state"] == "idle"


@pytest.mark.parametrize("ahead", [1, -2])
def test_a_launcher_of_any_other_version_is_refused_in_words(
    new_gateway: Callable[..., Gateway], launcher_of: Callable[[int], tuple[str, ...]], ahead: int
) -> None:
    gateway = new_gateway().start(*launcher_of(PROTOCOL + ahead))
    answer = gateway.request("POST", "/api/kernels", {"name": "python3"})
    assert answer.status == 500
    assert f"speaks the launcher protocol {PROTOCOL + ahead}; this gateway speaks" in answer.words
    assert "Install the eg-launcher" in answer.words
    wait_until(lambda: not gateway.processes(), "the launcher to be gone")
