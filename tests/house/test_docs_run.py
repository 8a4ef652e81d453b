"""What the pages tell to do is done: blocks below a line ``<!-- run -->`` are executed, page by page, in their order.

``bash`` and ``python`` blocks run against a gateway that is there (EG_URL, EG_AUTH_TOKEN), in one folder a page. A
``python`` block below ``<!-- run: config -->`` is a configuration file: a gateway starts with it. A ``yaml``
block must be YAML. Every language a page marks must be one of these.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from eg_core.testing.plugin import GatewayProcess, make_gateway  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^<!-- run(?:: (\w+))? -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FOLDERS = ("/var/log/jupyter",)
"""Folders that pages name and a test must not need: each is one of its own."""
TIMEOUT = 100

BLOCKS = {
    path.relative_to(ROOT).as_posix(): found
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")]
    if (found := BLOCK.findall(path.read_text()))
}


def test_every_mark_has_a_block() -> None:
    marks = sum(path.read_text().count("\n<!-- run") for path in ROOT.glob("docs/**/*.md"))
    assert marks == sum(len(blocks) for page, blocks in BLOCKS.items() if page.startswith("docs/"))
    assert {"docs/operators/monitoring.md", "docs/operators/troubleshooting.md", "docs/users/first-notebook.md"} <= set(
        BLOCKS
    )


@pytest.mark.parametrize("page", sorted(BLOCKS))
def test_blocks_do_what_the_page_says(page: str, make_gateway: Callable[..., GatewayProcess], tmp_path: Path) -> None:  # noqa: F811
    gateway: GatewayProcess | None = None
    for kind, language, text in BLOCKS[page]:
        for folder in FOLDERS:
            text = text.replace(folder, str(tmp_path))  # noqa: PLW2901
        if kind == "config":
            _configured(make_gateway, text)
        elif language == "yaml":
            assert yaml.safe_load(text)
        else:
            gateway = gateway or make_gateway()
            _run(gateway, language, text, tmp_path)


def _configured(make_gateway: Callable[..., GatewayProcess], text: str) -> None:  # noqa: F811
    gateway = make_gateway()
    gateway.stop()
    folder = gateway.folder / "home" / ".jupyter"
    folder.mkdir()
    (folder / "jupyter_config.py").write_text(text)
    gateway.start()
    kernel_id = gateway.client.start("python3")["id"]
    gateway.client.shut_down(kernel_id)


def _run(gateway: GatewayProcess, language: str, text: str, folder: Path) -> None:
    argv = {"bash": ["bash", "-euo", "pipefail", "-c", text], "python": [sys.executable, "-W", "error", "-c", text]}
    hidden = ("JUPYTER", "EG_", "KG_", "XDG_", "KERNEL_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "HOME": str(gateway.folder / "home"),
        "XDG_RUNTIME_DIR": str(gateway.folder / "run"),
        "EG_URL": gateway.url,
        "EG_AUTH_TOKEN": gateway.token,
    }
    done = subprocess.run(
        argv[language], env=env, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, f"{text}\n---\n{done.stdout}\n{done.stderr}"
