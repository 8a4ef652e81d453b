"""The packages of npm that clients in Node are made of."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

SERVICES = Path(__file__).parents[1] / "clients" / "services"


def installed_packages(needs: Callable[..., None]) -> Path:
    """The locked packages, kept outside the tree and installed once per lock file."""
    needs("node", shutil.which("node") and shutil.which("npm"), "install Node.js 20.14 or newer, with npm")
    lock = (SERVICES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "eg-tests" / f"services-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as alone:  # two runs of the suite at once install once
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SERVICES / name, folder)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
            needs("node", done.returncode == 0, f"npm ci failed, is there a network? {done.stderr[-500:]}")
            (folder / "complete").touch()
    return folder / "node_modules"
