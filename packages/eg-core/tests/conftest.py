"""Helper modules beside the tests are importable by name (pytest's importlib mode leaves that to us)."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import gateway_support
import web_support


@pytest.fixture
def short_tmp():
    """A private folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="eg-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def kernelspecs(tmp_path):
    """A folder of kernelspecs: python3, sleepy (never answers), gpu (a backend that is not there), logo."""
    folder = tmp_path / "kernelspecs"
    web_support.add_kernelspecs(folder)
    return folder


@pytest.fixture
async def web(tmp_path, short_tmp, kernelspecs):
    """A gateway's web, with a token."""
    async with (
        gateway_support.gateway(tmp_path, short_tmp) as registry,
        web_support.serving(registry, kernelspecs) as web,
    ):
        yield web
