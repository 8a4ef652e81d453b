"""The incumbents, each in a virtual environment of its own that is kept in ``${XDG_CACHE_HOME:-~/.cache}/eg-bench``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

INCUMBENTS = {
    "EG": ("jupyter_enterprise_gateway==3.3.0", "ipykernel<7"),
    "KG": ("jupyter_kernel_gateway==3.0.1",),
}
NEWEST = {"EG": (3, 11), "KG": (3, 99)}
"""Enterprise Gateway 3.3.0 pins a pyzmq that has wheels up to that Python."""


class NotInstalled(Exception):
    """This incumbent cannot be had here; the message says why."""


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eg-bench"


def _python_for(name: str) -> str:
    """This Python if it is old enough, else one on PATH that is, and works."""
    if sys.version_info[:2] <= NEWEST[name]:
        return sys.executable
    for minor in (11, 10):
        found = shutil.which(f"python3.{minor}")
        if found and not subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode:
            return found
    raise NotInstalled("it needs Python 3.10 or 3.11, and there is neither python3.11 nor python3.10 on PATH")


def incumbent(name: str) -> Path:
    """Its Python; installed first where it is not there yet. NotInstalled says why it cannot be."""
    python = _python_for(name)
    requirements = INCUMBENTS[name]
    tag = hashlib.sha256(json.dumps([python, *requirements]).encode()).hexdigest()[:8]
    folder = cache() / f"{name}-{tag}"
    if (folder / "complete").exists():
        return folder / "bin" / "python"
    print(f"installing {' '.join(requirements)} in {folder} …", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "install.log"
    for command in (
        [python, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", *requirements],
    ):
        with log.open("ab") as output:
            done = subprocess.run(command, stdout=output, stderr=output, check=False, timeout=900)
        if done.returncode:
            raise NotInstalled(f"{' '.join(command)} failed; {log} says why")
    (folder / "complete").touch()
    return folder / "bin" / "python"


def versions(python: Path | str, *names: str) -> dict[str, str]:
    """What is installed beside this Python, Python itself included."""
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "have = {d.metadata['Name'].lower().replace('-', '_'): d.version for d in m.distributions()}\n"
        "print(json.dumps({'python': platform.python_version(), **{n: have.get(n, '') for n in sys.argv[1:]}}))"
    )
    done = subprocess.run([str(python), "-c", code, *names], check=True, capture_output=True, text=True, timeout=60)
    found: dict[str, str] = json.loads(done.stdout)
    return found
