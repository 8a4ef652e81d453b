"""The same notebook in two JupyterLabs that can be cut off: straight at the gateway, and behind jupyter_server.

```
straight:  page ── front ──┬─ kernels, sessions, kernelspecs ── gateway
                           └─ everything else ── jupyter_server
behind:    page ── front ── jupyter_server ── back ── gateway
```

*front* and *back* are cutting proxies. Both pages are of one JupyterLab, whose server has its kernels through *back*.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import CDPSession, Locator, Page, expect

from eg_integration.cutting_proxy import CuttingProxy, Upstream
from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer
from eg_integration.lab import LabNotebook
from eg_integration.waiting import wait_until

KERNELS = re.compile(r"/api/(kernels|sessions|kernelspecs)\b|/kernelspecs/")


def straight(gateway: Gateway, server: JupyterServer) -> Callable[[str], Upstream]:
    """Kernels at the gateway, all else at the jupyter_server."""
    return lambda path: Upstream(gateway.url, gateway.token) if KERNELS.match(path) else Upstream(server.url)


def through(gateway: Gateway, proxy: CuttingProxy) -> Gateway:
    """The gateway as a client has it that knows the proxy's address only."""
    seen = copy.copy(gateway)
    seen.url = proxy.url
    return seen


def calm(server: JupyterServer) -> None:
    """JupyterLab saves when it is told to, and has every cell in the page, not only what can be seen."""
    settings = server.folder / "home" / "lab-settings" / "@jupyterlab"
    said = {
        "docmanager-extension/plugin": {"autosave": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, content in said.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


class CutNotebook(LabNotebook):
    """``legs``: the proxies between the page and the gateway, the page's own first."""

    def __init__(
        self, page: Page, server: JupyterServer, name: str, keep: Callable[[str], Path], legs: list[CuttingProxy]
    ) -> None:
        super().__init__(page, server, f"{name}.ipynb", keep)
        self.name = name
        self.legs = legs
        self.count = 0
        """Executions since the kernel's start."""

    @property
    def front(self) -> CuttingProxy:
        return self.legs[0]

    @property
    def behind(self) -> bool:
        return len(self.legs) > 1

    @property
    def file(self) -> Path:
        return self.server.root / self.path

    def open(self) -> CutNotebook:
        super().open()
        self.count = 0
        self.expect_kernel("Idle")
        return self

    def idle(self) -> bool:
        """Whether its kernel is, or is within some seconds."""
        try:
            self.expect_kernel("Idle", 5)
        except AssertionError:
            return False
        return True

    def devtools(self) -> CDPSession:
        return self.page.context.new_cdp_session(self.page)

    def dismiss(self) -> None:
        """JupyterLab's word that it has lost its server, which stands there until somebody has read it."""
        lost = self.page.locator(".jp-Dialog").filter(has_text="Server Connection Error")
        if lost.count():
            lost.locator(".jp-Dialog-footer button").last.click()
            expect(lost).to_have_count(0)

    # -- what the page shows

    def outputs(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-Cell-outputArea > .jp-OutputArea-child > .jp-OutputArea-output")

    def text(self, index: int) -> str:
        """All that a cell's output shows."""
        return "".join(self.outputs(index).all_text_contents())

    def widget_text(self, index: int) -> str:
        """What was printed into a widget among a cell's output."""
        return "".join(self.cell(index).locator(".widget-output .jp-OutputArea-output").all_text_contents())

    def begin(self, index: int) -> None:
        """Run a cell; it is running when this returns."""
        self.count += 1
        self.start(index)
        expect(self.prompt(index)).to_have_text("[*]:", timeout=20_000)

    def wait_shown(self, index: int, words: str, timeout: float = 30) -> None:
        wait_until(lambda: words in self.text(index), f"{words!r} in cell {index} of {self.path}", timeout)

    def wait_over(self, index: int, timeout: float = 60) -> None:
        """Its prompt has the number that it should have."""
        expect(self.prompt(index)).to_have_text(f"[{self.count}]:", timeout=timeout * 1000)

    # -- what the notebook holds

    def saved(self) -> Any:
        """The notebook, as it is when it is saved now."""
        before = self.file.stat().st_mtime_ns
        self.page.locator(".jp-NotebookPanel-toolbar [data-jp-item-name=save] >> css=[data-command]").click()
        wait_until(lambda: self.file.stat().st_mtime_ns != before, f"{self.path} to be saved", 30)
        return wait_until(self._read, f"{self.path} to be whole", 30)

    def _read(self) -> Any:
        try:
            return nbformat.read(self.file, as_version=4)
        except (ValueError, nbformat.reader.NotJSONError):
            return None


def text_of(cell: Any) -> str:
    """What a saved cell's output says, as text."""
    return "".join(
        output.text if output.output_type == "stream" else str(output.get("data", {}).get("text/plain", ""))
        for output in cell.outputs
    )


def printing(word: str, lines: int, pause: float = 0.02) -> str:
    """A cell's source that prints numbered lines, each a message of its own."""
    return f"import time\nfor n in range({lines}):\n    print('{word}', n, flush=True)\n    time.sleep({pause})"
