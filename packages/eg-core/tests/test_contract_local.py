"""The contract suite over the local backend: the shortest backend there is."""

import shutil
import tempfile
from pathlib import Path

import pytest

from eg_core.testing.contract import BackendContract
from eg_core.testing.rig import Subject


@pytest.fixture
def runtime_dir():
    path = Path(tempfile.mkdtemp(prefix="eg-c-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


class TestLocal(BackendContract):
    @pytest.fixture
    def backend(self, runtime_dir):
        settings = {"type": "local", "runtime_dir": str(runtime_dir), "stray_age": 0.0}
        return Subject(
            "local",
            settings,
            lease=3.0,
            broken={**settings, "launcher_command": ["/no/such/launcher"]},
        )
