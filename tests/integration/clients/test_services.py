"""@jupyterlab/services, the client library of JupyterLab, in Node and straight to the gateway."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from eg_integration.gateway import Gateway

HERE = Path(__file__).with_name("services")


@pytest.fixture(scope="session")
def node_modules(needs: Callable[..., None]) -> Path:
    """The locked packages from npm, kept outside the tree and installed once per lock file."""
    needs("node", shutil.which("node") and shutil.which("npm"), "install Node.js 20 or newer, with npm")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "eg-tests" / f"services-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as alone:  # two runs of the suite at once install once
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, folder)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
            needs("node", done.returncode == 0, f"npm ci failed, is there a network? {done.stderr[-500:]}")
            (folder / "complete").touch()
    return folder / "node_modules"


@pytest.mark.timeout(240)
def test_services_with_the_v1_protocol(gateway: Gateway, node_modules: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "NODE_PATH": str(node_modules),
        "GATEWAY_URL": gateway.url,
        "GATEWAY_TOKEN": gateway.token,
    }
    command = ["node", "--test", "--test-reporter=spec", str(HERE / "services.test.cjs")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
