"""A lane: one package's wheel and its tests, in an environment of its own, with no source tree in sight.

Used by ``check_wheels.py`` and ``check_floors.py``. Needs ``uv``. The tests run from a copy in a temporary folder; what
they need besides the package is its ``testing`` extra, where it has one, and its dependency group ``test``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # the environment brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
_REPORT_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


class LaneError(Exception):
    """A step of a lane went wrong; the message says which."""


@dataclass(frozen=True)
class Package:
    name: str

    @property
    def folder(self) -> Path:
        return ROOT / "packages" / self.name

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    def table(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())

    def extra(self) -> str:
        return "[testing]" if "testing" in self.table()["project"].get("optional-dependencies", {}) else ""

    def direct(self) -> list[str]:
        """The names of what it depends on, the packages of this tree left out."""
        project = self.table()["project"]
        names = [re.split(r"[^A-Za-z0-9._-]", one)[0] for one in project.get("dependencies", ())]
        return [name for name in names if not (ROOT / "packages" / name).is_dir()]


def packages(names: Sequence[str] = ()) -> list[Package]:
    found = [Package(path.parent.name) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))]
    unknown = set(names) - {package.name for package in found}
    if unknown:
        raise LaneError(f"there is no package {', '.join(sorted(unknown))}")
    return [package for package in found if not names or package.name in names]


def uv(*args: str | Path, cwd: Path = ROOT) -> str:
    command = [shutil.which("uv") or "uv", *map(str, args)]
    try:
        done = subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True, env=_environment())
    except FileNotFoundError:
        raise LaneError("uv is not on PATH; `pip install uv` brings it") from None
    if done.returncode:
        raise LaneError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Without what would let another environment in."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PYTHON", "EG_VENV")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def find_python(version: str) -> Path | None:
    """An interpreter of this version on this machine: on PATH, one of pyenv's, or one that uv knows."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    try:
        candidates.append(Path(uv("python", "find", "--no-python-downloads", version).strip()))
    except LaneError:
        pass  # uv knows none
    for candidate in candidates:
        try:
            said = subprocess.run([candidate, "-c", _REPORT_VERSION], check=False, capture_output=True, text=True)
        except OSError:
            continue
        if said.stdout.strip() == version:  # a shim of pyenv may be there and yet refuse
            return candidate
    return None


def build(into: Path, which: Sequence[Package]) -> None:
    """An sdist of each package, and a wheel from that sdist."""
    for package in which:
        uv("build", "--out-dir", into, package.folder)


def wheel_of(package: Package, wheels: Path) -> Path:
    (wheel,) = wheels.glob(f"{package.module}-*.whl")
    return wheel


def run_lane(
    package: Package,
    wheels: Path,
    python: Path,
    *,
    constraints: Path | None = None,
    pytest_args: Sequence[str] = (),
) -> int:
    """Install the wheel into an empty environment and run the package's tests there; pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix=f"lane-{package.name}-") as name:
        folder = Path(name).resolve()
        venv = folder / "venv"
        uv("venv", "--quiet", "--python", python, venv)
        requirements = [f"{wheel_of(package, wheels)}{package.extra()}"]
        requirements += package.table().get("dependency-groups", {}).get("test", [])
        limits = ["--constraint", str(constraints)] if constraints else []
        uv("pip", "install", "--quiet", "--python", venv, "--find-links", wheels, *limits, *requirements, cwd=folder)
        _see_only_the_wheel(package, venv, folder)
        shutil.copytree(package.folder / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)  # pytest's options
        environment = {**_environment(), "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        command = [
            str(venv / "bin" / "python"),
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--hypothesis-profile=ci",
            "-q",
            "tests",
            *pytest_args,
        ]
        return subprocess.run(command, check=False, cwd=folder, env=environment).returncode


def _see_only_the_wheel(package: Package, venv: Path, folder: Path) -> None:
    code = f"import {package.module}; print({package.module}.__file__)"
    said = subprocess.run(
        [venv / "bin" / "python", "-c", code],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        env=_environment(),
    )
    if said.returncode or not Path(said.stdout.strip()).resolve().is_relative_to(venv.resolve()):
        raise LaneError(f"{package.name}: the wheel does not import from its environment: {said.stdout}{said.stderr}")
