"""The virtual environment of the README's commands. Standard library only: it is there before anything is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)


def fail(words: str) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: {words}", file=sys.stderr)
    raise SystemExit(2)


def check_python() -> None:
    if sys.version_info < OLDEST:
        fail(f"this needs Python {OLDEST[0]}.{OLDEST[1]} or newer; {sys.executable} is {sys.version.split()[0]}.")
    if sys.platform == "win32":
        fail("this runs on Linux (macOS: best effort), not on Windows.")


class Venv:
    """``$EG_VENV``, else ``.venv`` in the tree. It has no pip of its own where the system's Python cannot give it one
    (Debian without python3-venv): then the pip of this Python installs into it."""

    def __init__(self) -> None:
        self.folder = Path(os.environ.get("EG_VENV") or ROOT / ".venv").absolute()
        self.python = self.folder / "bin" / "python"

    def script(self, name: str) -> Path:
        return self.folder / "bin" / name

    def make(self) -> None:
        if _runs(self.python, "-c", ""):
            return
        print(f"Making the environment {self.folder} …", flush=True)
        if not _runs(sys.executable, "-c", "import ensurepip"):
            _check(sys.executable, "-m", "venv", "--clear", "--without-pip", str(self.folder))
            return
        _check(sys.executable, "-m", "venv", "--clear", str(self.folder))

    def install(self, *requirements: str) -> None:
        own = _runs(self.python, "-m", "pip", "--version")
        pip = [str(self.python), "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", str(self.python)]
        if not own and not _runs(sys.executable, "-m", "pip", "--version"):
            fail(f"{sys.executable} has neither pip nor ensurepip; install pip (Debian: apt-get install python3-pip).")
        _check(*pip, "install", "--quiet", "--disable-pip-version-check", "--upgrade", *requirements)


def _runs(*command: str | Path) -> bool:
    try:
        return subprocess.run(list(map(str, command)), check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _check(*command: str) -> None:
    code = subprocess.run(command, check=False, cwd=ROOT).returncode
    if code:
        fail(f"this command ended with exit code {code}: {' '.join(command)}")


def replace_process(command: Sequence[str | Path]) -> NoReturn:
    sys.stdout.flush()
    os.execv(str(command[0]), [str(part) for part in command])
