"""Finds kernelspecs on disk, in Jupyter's folders and by Jupyter's rules: earlier folders win, names are lower-case.

Blocking, and cheap when nothing has changed: folders and files are looked at again (``stat``), and only what has
another time, size or inode is read again. A broken kernelspec is left out and said once per change; it still hides
one of the same name in a later folder, so that a typing error never runs something else. Safe to call from threads.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path
from traitlets import Bool, List, Unicode, default
from traitlets.config import LoggingConfigurable

from eg_core.errors import NoSuchKernelspec
from eg_core.kernelspecs.spec import KERNEL_FILE, NAME, Kernelspec, is_inside, make_kernelspec, read_kernelspec
from eg_core.traits import Names

__all__ = ["Kernelspec", "KernelspecFinder"]

NATIVE = "python3"

_Stamp = tuple[int, ...]
_COARSE_CLOCK = 2.0  # seconds; something that changed so recently may change again without another time


@dataclass(frozen=True)
class _Folder:
    """What one of the kernel_dirs held when it had this stamp."""

    stamp: _Stamp
    settled: bool
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """What one kernelspec's folder held; ``spec`` is None when it is none, or broken (``problem``)."""

    stamp: _Stamp
    settled: bool
    spec: Kernelspec | None
    problem: str | None = None


class KernelSpecManager(LoggingConfigurable):
    """The name of the section in Jupyter's configuration files."""


class KernelspecFinder(KernelSpecManager):
    kernel_dirs: List[str] = List(
        Unicode(), help="Folders that hold kernelspecs; earlier ones win. Default: Jupyter's."
    ).tag(config=True)
    allowed_kernelspecs = Names(help="Names of the kernelspecs to offer. Default: all.").tag(config=True)
    whitelist = Names(help="Deprecated: allowed_kernelspecs.").tag(config=True)
    ensure_native_kernel = Bool(
        True, help="Offer the ipykernel of the gateway's own Python as python3 if there is no kernelspec of that name."
    ).tag(config=True)

    @default("kernel_dirs")
    def _default_kernel_dirs(self) -> list[str]:
        return jupyter_path("kernels")

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._lock = threading.Lock()
        self._folders: dict[str, _Folder] = {}
        self._entries: dict[Path, _Entry] = {}
        self._native: Kernelspec | None = None
        self._said: dict[Path, tuple[_Stamp, str]] = {}

    # -- for others -----------------------------------------------------------------------------------------

    def find_all(self) -> dict[str, Kernelspec]:
        """By name, sorted."""
        with self._lock:
            entries: dict[str, _Entry] = {}
            for folder in self.kernel_dirs:
                for name, entry in self._look_into(folder).items():
                    entries.setdefault(name, entry)
            specs = {name: entry.spec for name, entry in entries.items() if entry.spec is not None}
            if self.ensure_native_kernel and NATIVE not in entries and (native := self._native_kernel()) is not None:
                specs[NATIVE] = native
        allowed = {name.lower() for name in self.allowed_kernelspecs or self.whitelist}
        return {name: specs[name] for name in sorted(specs) if not allowed or name in allowed}

    def get(self, name: str) -> Kernelspec:
        """A copy of one, whatever the case of its name. Raises NoSuchKernelspec."""
        return copy.deepcopy(self._get(name))

    def metadata(self, name: str) -> dict[str, Any]:
        """A kernelspec's metadata; empty when there is none of that name any more."""
        try:
            return self.get(name).metadata
        except NoSuchKernelspec:
            return {}

    def resource(self, name: str, path: str) -> Path:
        """The file behind a declared resource. Raises NoSuchKernelspec, and KeyError for what is not declared."""
        spec = self._get(name)
        if path not in spec.resources.values() or not is_inside(spec.resource_dir, path):
            raise KeyError(path)
        return spec.resource_dir / path

    def problems(self) -> dict[str, str]:
        """What is wrong with the kernelspecs that ``find_all`` has left out, by their folders."""
        with self._lock:
            return {str(path): entry.problem for path, entry in self._entries.items() if entry.problem is not None}

    # -- looking --------------------------------------------------------------------------------------------

    def _get(self, name: str) -> Kernelspec:
        specs = self.find_all()
        try:
            return specs[name.lower()]
        except KeyError:
            known = ", ".join(specs) or "none"
            if len(known) > 512:
                known = known[:512] + "…"
            raise NoSuchKernelspec(f"There is no kernelspec named {name[:255]!r}; there are: {known}.") from None

    def _look_into(self, folder: str) -> dict[str, _Entry]:
        found: dict[str, _Entry] = {}
        for directory in self._names(folder):
            path = Path(folder, directory)
            entry = self._entries.get(path)
            stamp = _stamp(path, path / KERNEL_FILE)
            if entry is None or entry.stamp != stamp or not entry.settled:
                entry = self._entries[path] = self._read(directory.lower(), path, stamp)
            if entry.spec is not None or entry.problem is not None:
                found.setdefault(directory.lower(), entry)
        return found

    def _names(self, folder: str) -> tuple[str, ...]:
        stamp = _stamp(Path(folder))
        known = self._folders.get(folder)
        if known is None or known.stamp != stamp or not known.settled:
            try:
                with os.scandir(folder) as entries:
                    names = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
            except OSError as error:
                names = ()
                if not isinstance(error, FileNotFoundError):
                    self._say(Path(folder), stamp, f"Kernelspecs in {folder} cannot be read: {error.strerror}")
            known = self._folders[folder] = _Folder(stamp, _settled(stamp), names)
            for path in [path for path in self._entries if str(path.parent) == folder and path.name not in names]:
                del self._entries[path]
        return known.names

    def _read(self, name: str, path: Path, stamp: _Stamp) -> _Entry:
        settled = _settled(stamp)
        if len(stamp) < 8:  # no kernel.json: not a kernelspec (yet)
            return _Entry(stamp, settled, None)
        if not NAME.fullmatch(name):
            problem = "its name may only have the letters a to z, digits and ._-"
        else:
            try:
                spec = read_kernelspec(name, path)
                self._said.pop(path, None)
                return _Entry(stamp, settled, spec)
            except (OSError, ValueError) as error:
                problem = str(error)
        self._say(path, stamp, f"The kernelspec {path} is left out: {problem}")
        return _Entry(stamp, settled, None, problem)

    def _say(self, path: Path, stamp: _Stamp, sentence: str) -> None:
        if self._said.get(path) != (stamp, sentence):
            self._said[path] = (stamp, sentence)
            self.log.warning("%s", sentence)

    def _native_kernel(self) -> Kernelspec | None:
        """Found without importing it: that would cost time and memory that only the kernel needs."""
        if self._native is None and (package := importlib.util.find_spec("ipykernel")) is not None:
            document = {
                "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "metadata": {"debugger": True},
            }
            folder = Path((package.submodule_search_locations or [""])[0], "resources")
            if folder.is_dir():
                self._native = make_kernelspec(NATIVE, folder, document)
        return self._native


def _stamp(*paths: Path) -> _Stamp:
    """Four numbers for each of the paths up to the first that is not there."""
    numbers: list[int] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            break
        numbers += (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    return tuple(numbers)


def _settled(stamp: _Stamp) -> bool:
    """Whether every change was long enough ago for the next one to get another time."""
    times = stamp[1::4]
    return all(abs(time.time() - moment / 1e9) > _COARSE_CLOCK for moment in times)
