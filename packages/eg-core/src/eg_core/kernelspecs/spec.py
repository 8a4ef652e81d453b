"""One kernelspec: reads its folder, says in words what is wrong with it, and is what clients see of it."""

# ruff: noqa: TRY004 - a wrong type in JSON is a wrong value

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eg_core.kernelspecs.legacy import backend_of

KERNEL_FILE = "kernel.json"
MAX_KERNEL_FILE = 1024 * 1024
NAME = re.compile(r"[a-z0-9._-]{1,255}")
_LOGO = re.compile(r"logo-[^/]+")
_INTERRUPT_MODES = ("signal", "message")


@dataclass(frozen=True)
class Kernelspec:
    """Shared between requests: copy what is to be changed. ``resources`` is what clients may read, key to file name."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(repr=False)
    display_name: str
    language: str
    interrupt_mode: str
    metadata: dict[str, Any]
    resource_dir: Path
    backend: str
    options: dict[str, Any] = field(repr=False)
    resources: Mapping[str, str]
    kernel_protocol_version: str = ""

    def model(self, base_url: str) -> dict[str, Any]:
        """What Jupyter's clients expect; ``base_url`` is the gateway's, starting and ending with a slash."""
        spec: dict[str, Any] = {
            "argv": self.argv,
            "env": self.env,
            "display_name": self.display_name,
            "language": self.language,
            "interrupt_mode": self.interrupt_mode,
            "metadata": self.metadata,
        }
        if self.kernel_protocol_version:
            spec["kernel_protocol_version"] = self.kernel_protocol_version
        root = f"{base_url.rstrip('/')}/kernelspecs/{quote(self.name)}/"
        return {
            "name": self.name,
            "spec": spec,
            "resources": {key: root + quote(file) for key, file in self.resources.items()},
        }


def read_kernelspec(name: str, folder: Path) -> Kernelspec:
    """Raises ValueError or OSError in words."""
    if not (folder / KERNEL_FILE).is_file():
        raise ValueError(f"{KERNEL_FILE} is not a regular file")
    with (folder / KERNEL_FILE).open("rb") as file:
        data = file.read(MAX_KERNEL_FILE + 1)
    if len(data) > MAX_KERNEL_FILE:
        raise ValueError(f"{KERNEL_FILE} is larger than {MAX_KERNEL_FILE} bytes")
    try:
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{KERNEL_FILE} is nested too deeply") from None
    return make_kernelspec(name, folder, document)


def make_kernelspec(name: str, folder: Path, document: Any) -> Kernelspec:
    """Raises ValueError that names the field."""
    if not isinstance(document, dict):
        raise ValueError(f"{KERNEL_FILE} must hold an object")
    argv = document.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(argument, str) for argument in argv):
        raise ValueError("argv must be a list of strings that is not empty")
    env = document.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise ValueError("env must be an object of strings")
    if any("\0" in text for text in (*argv, *env, *env.values())) or any("=" in key or not key for key in env):
        raise ValueError("argv and env must not hold NUL characters, nor a variable's name '='")
    metadata = document.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ValueError("metadata must be an object")
    interrupt_mode = _text(document, "interrupt_mode", "signal").lower()
    if interrupt_mode not in _INTERRUPT_MODES:
        raise ValueError(f"interrupt_mode must be one of {', '.join(_INTERRUPT_MODES)}")
    backend, options = backend_of(metadata)
    return Kernelspec(
        name=name,
        argv=argv,
        env=env,
        display_name=_text(document, "display_name", name),
        language=_text(document, "language", ""),
        interrupt_mode=interrupt_mode,
        metadata=metadata,
        resource_dir=folder,
        backend=backend,
        options=options,
        resources=find_resources(folder),
        kernel_protocol_version=_text(document, "kernel_protocol_version", ""),
    )


def find_resources(folder: Path) -> dict[str, str]:
    """``kernel.js``, ``kernel.css`` and ``logo-*`` (whose key has no extension): regular files of this folder only."""
    resources: dict[str, str] = {}
    for file in sorted(os.listdir(folder)):  # noqa: PTH208 - names are wanted
        is_logo = _LOGO.fullmatch(file) is not None
        if (is_logo or file in ("kernel.js", "kernel.css")) and is_inside(folder, file):
            resources[Path(file).stem if is_logo else file] = file
    return resources


def is_inside(folder: Path, file: str) -> bool:
    """Whether that name leads to a regular file which is, all links followed, below the folder."""
    try:
        path = (folder / file).resolve(strict=True)
        return path.is_file() and path.is_relative_to(folder.resolve(strict=True))
    except (OSError, RuntimeError):  # gone, or links in a circle
        return False


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{KERNEL_FILE} holds {word}, which is not JSON")


def _text(document: dict[str, Any], key: str, default: str) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a string")
    return value
