"""The incumbents, each in a virtual environment of its own: the one way to install them, for benchmarks and tests.

They are kept in ``$EG_INCUMBENTS``, else ``${XDG_CACHE_HOME:-~/.cache}/eg-incumbents``. Every version is pinned, those
of what they need by ``constraints/``; an environment is named for its Python and its pins, made under a lock, and
counts only once it is complete. ``python -m benchmarks.venvs`` makes both.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

INCUMBENTS = {
    "EG": ("jupyter_enterprise_gateway==3.3.0", "ipykernel==6.29.5"),
    "KG": ("jupyter_kernel_gateway==3.0.1", "ipykernel==6.31.0"),
}
SCRIPTS = {"EG": "jupyter-enterprisegateway", "KG": "jupyter-kernelgateway"}
NEWEST = {"EG": (3, 11), "KG": (3, 13)}
"""Enterprise Gateway 3.3.0 imports distutils, and pins a pyzmq that has wheels up to that Python."""
OLDEST = (3, 10)
PATIENCE = 900.0
"""Seconds that one step of an installation may take."""


class NotInstalled(Exception):
    """This incumbent cannot be had here; the message says why."""


def cache() -> Path:
    own = os.environ.get("EG_INCUMBENTS")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eg-incumbents"


@functools.cache
def incumbent(name: str) -> Path:
    """Its Python; installed first where it is not there yet. NotInstalled says why it cannot be."""
    interpreter, version = _python_for(name)
    constraints = Path(__file__).parent / "constraints" / f"{name}.txt"
    pins = [*INCUMBENTS[name], constraints.read_text()]
    tag = hashlib.sha256(json.dumps(pins).encode()).hexdigest()[:8]
    folder = cache() / f"{name}-py{version[0]}.{version[1]}-{tag}"
    python = folder / "bin" / "python"
    with _locked(folder) as lock:
        if not (folder / "complete").exists() or not _works(python):
            print(f"installing {' '.join(INCUMBENTS[name])} in {folder} …", file=sys.stderr, flush=True)
            if folder.exists():
                shutil.rmtree(folder)
            _install(interpreter, folder, [*INCUMBENTS[name], "--constraint", str(constraints)], lock)
            (folder / "complete").touch()
    return python


def script(name: str) -> Path:
    """The program of an incumbent that is installed."""
    return incumbent(name).with_name(SCRIPTS[name])


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


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Of several who want it, one installs and the others wait. The lock is also its installers', which it gets for
    that: of one that was killed they may go on for a while."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("w")
    except OSError as error:
        raise NotInstalled(f"nothing can be written in {folder.parent}: {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _install(interpreter: str, folder: Path, requirements: Sequence[str], lock: int) -> None:
    """With uv where it is, else with venv and pip. Raises NotInstalled."""
    folder.mkdir()
    python, uv = str(folder / "bin" / "python"), shutil.which("uv")
    steps = (
        ([uv, "venv", "--allow-existing", "--python", interpreter, str(folder)],
         [uv, "pip", "install", "--compile-bytecode", "--python", python, *requirements])
        if uv else
        ([interpreter, "-m", "venv", str(folder)],
         [python, "-m", "pip", "install", "--disable-pip-version-check", *requirements])
    )  # fmt: skip
    log = folder / "install.log"
    for step in steps:
        try:
            with log.open("ab") as output:
                done = subprocess.run(
                    step, stdout=output, stderr=output, pass_fds=(lock,), check=False, timeout=PATIENCE
                )
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"{' '.join(step)} took more than {PATIENCE:.0f} s; {log} says why") from None
        if done.returncode:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise NotInstalled(f"{' '.join(step)} failed ({' '.join(last)}); {log} has all of it")


def _python_for(name: str) -> tuple[str, tuple[int, int]]:
    """This Python if the incumbent runs on it, else the newest that it runs on: on PATH, of pyenv, or known to uv."""
    newest = NEWEST[name]
    here = sys.version_info[:2]
    if OLDEST <= here <= newest:
        return getattr(sys, "_base_executable", sys.executable), here
    for minor in range(newest[1], OLDEST[1] - 1, -1):
        for found in _interpreters(f"3.{minor}"):
            if _works(found):
                return found, (3, minor)
    raise NotInstalled(f"it needs a Python from {_dotted(OLDEST)} to {_dotted(newest)}, and there is none")


def _interpreters(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (str(found) for found in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True))
    uv = shutil.which("uv")
    if uv:
        command = [uv, "python", "find", "--no-python-downloads", version]
        yield subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()


def _works(python: Path | str) -> bool:
    if not str(python):
        return False
    try:
        done = subprocess.run([str(python), "-c", "import sys, venv"], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def main() -> None:
    failed = []
    for name in INCUMBENTS:
        try:
            print(incumbent(name))
        except NotInstalled as error:
            failed.append(f"{name}: {error}")
    sys.exit("\n".join(failed) or None)


if __name__ == "__main__":
    main()
