"""Somebody else's backend, built as a wheel and installed beside us: the contract and the whole gateway through it."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from eg_core.testing.plugin import make_gateway  # noqa: F401 - a fixture

SOURCE = Path(__file__).parent / "thirdparty" / "eg-example-tcp"

CONTRACT = """
import pytest
from eg_core.testing.contract import BackendContract
from eg_core.testing.rig import Subject

class TestExample(BackendContract):
    @pytest.fixture
    def backend(self):
        settings = {"type": "example-tcp"}
        return Subject("example-tcp", settings, broken={**settings, "python": ["/no/such/python"]})
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder with the distribution in it, installed from its wheel."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install hatchling, to build the example's wheel")
    folder = tmp_path_factory.mktemp("third-party")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=SOURCE, check=True, capture_output=True, text=True
    )
    wheel = folder / built.stdout.split()[-1]
    target = folder / "site"
    if find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
        subprocess.run([*pip, str(wheel)], check=True)
    else:
        zipfile.ZipFile(wheel).extractall(target)
    return target


def test_the_contract_holds_through_an_installed_plugin(installed, tmp_path):
    (tmp_path / "test_it.py").write_text(CONTRACT)
    environ = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])}
    argv = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-W", "error"]
    argv += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [sys.executable, *argv, "--timeout=60", f"--rootdir={tmp_path}", str(tmp_path)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "example-tcp: the required and nothing more" in done.stdout
    assert "1 skipped" in done.stdout  # it has no resource manager that could be away


def test_a_kernel_runs_through_gateway_and_installed_plugin(installed, tmp_path, make_gateway):  # noqa: F811
    spec = tmp_path / "kernels" / "remote"
    spec.mkdir(parents=True)
    argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernelspec = {"argv": argv, "display_name": "Remote", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernelspec | {"metadata": {"eg": {"backend": "example-tcp"}}}))
    gateway = make_gateway(env={"PYTHONPATH": str(installed), "JUPYTER_PATH": str(tmp_path)})
    client = gateway.client
    kernel = client.start("remote")
    assert client.execute(kernel["id"], "print(6 * 7)").text.strip() == "42"
    assert (gateway.folder / "data" / "example-tcp" / f"{kernel['id']}.json").exists()
    client.shut_down(kernel["id"])
    assert client.kernels() == []
