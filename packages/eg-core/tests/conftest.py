"""Helper modules beside the tests are importable by name (pytest's importlib mode leaves that to us)."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def short_tmp():
    """A private folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="eg-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
