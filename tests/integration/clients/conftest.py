"""Fixtures: the packages of npm that clients are made of, and how a file of them runs in Node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from eg_integration.node import SERVICES, installed_packages


@pytest.fixture(scope="session")
def node_modules(needs: Callable[..., None]) -> Path:
    return installed_packages(needs)


@pytest.fixture
def node_test(node_modules: Path) -> Callable[..., None]:
    """``node_test("services.test.cjs", GATEWAY_URL=…)``: one file of ``services/``; what it says is in the report."""

    def run(name: str, timeout: float = 200, **env: str) -> None:
        environ = {"PATH": os.environ["PATH"], "NODE_PATH": str(node_modules), **env}
        # Timers of the library outlive its managers by ten seconds: nobody waits for them.
        command = ["node", "--test", "--test-force-exit", "--test-reporter=spec", str(SERVICES / name)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout, check=False)
        print(done.stdout, done.stderr)
        assert done.returncode == 0, f"{name} failed in Node"

    return run
