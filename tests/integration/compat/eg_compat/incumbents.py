"""The incumbents, each in a virtual environment of its own in ``${XDG_CACHE_HOME:-~/.cache}/eg-compat``.

Made at first use, under a lock, and kept: ``python incumbents.py`` makes them beforehand. Their name contains the
versions, so that a new pin is a new environment.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Incumbent:
    requirements: tuple[str, ...]
    script: str
    pythons: tuple[str, ...]  # what it runs on, best first

    @property
    def folder(self) -> Path:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        return cache / "eg-compat" / "-".join(part.replace("=", "") for part in self.requirements[:1])

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def command(self) -> Path:
        return self.folder / "bin" / self.script


INCUMBENTS: Mapping[str, Incumbent] = {
    "eg": Incumbent(
        ("jupyter_enterprise_gateway==3.3.0", "ipykernel<7", "setuptools<81"),
        "jupyter-enterprisegateway",
        ("python3.11", "python3.10"),  # it imports distutils, which Python 3.12 has not
    ),
    "kg": Incumbent(
        ("jupyter_kernel_gateway==3.0.1", "ipykernel<7"),
        "jupyter-kernelgateway",
        ("python3.11", "python3.10", "python3.12", "python3.13"),
    ),
}


def ensure(kind: str) -> str | None:
    """Make the environment of ``kind`` if it is not there; why it cannot be made, or None."""
    incumbent = INCUMBENTS[kind]
    done = incumbent.folder / "complete"
    incumbent.folder.parent.mkdir(parents=True, exist_ok=True)
    with (incumbent.folder.parent / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and incumbent.python.exists():  # what it was made from may be gone
            return None
        shutil.rmtree(incumbent.folder, ignore_errors=True)
        python = _python(incumbent)
        if python is None:
            return f"it needs one of {', '.join(incumbent.pythons)}"
        for command in (
            [python, "-m", "venv", str(incumbent.folder)],
            [str(incumbent.python), "-m", "pip", "install", "--quiet", *incumbent.requirements],
        ):
            made = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if made.returncode:
                said = (made.stderr or made.stdout).strip().splitlines()
                return f"{' '.join(command[-3:])} failed: {said[-1] if said else made.returncode}"
        done.touch()
    return None


def _python(incumbent: Incumbent) -> str | None:
    here = f"python3.{sys.version_info.minor}"
    for name in incumbent.pythons:
        found = sys.executable if name == here else shutil.which(name) or _pyenv(name)
        if found:
            return found
    return None


def _pyenv(name: str) -> str | None:
    found = sorted(Path("~/.pyenv/versions").expanduser().glob(f"*/bin/{name}"))
    return str(found[-1]) if found else None


if __name__ == "__main__":
    failed = {kind: why for kind in INCUMBENTS if (why := ensure(kind))}
    sys.exit("\n".join(f"{kind}: {why}" for kind, why in failed.items()))
