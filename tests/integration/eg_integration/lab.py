"""A notebook in JupyterLab, as somebody at the screen sees and uses it: clicks, keys, and what the page shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import v4
from playwright.sync_api import Locator, Page, expect

from eg_integration.jupyter_server import JupyterServer

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

WITHIN_VIEW = """(dialog, words) => {
  const nodes = document.createTreeWalker(dialog, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode()) {
    const at = nodes.currentNode.data.indexOf(words);
    if (at >= 0) {
      const range = document.createRange();
      range.setStart(nodes.currentNode, at);
      range.setEnd(nodes.currentNode, at + words.length);
      const [inner, outer] = [range.getBoundingClientRect(), dialog.getBoundingClientRect()];
      return inner.left >= outer.left && inner.right <= outer.right && inner.bottom <= outer.bottom;
    }
  }
  return false;
}"""


def find_chromium() -> str | None:
    return os.environ.get("EG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def write_notebook(path: Path, cells: list[str], kernelspec: str = "python3") -> None:
    made = v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells])
    made.metadata["kernelspec"] = {"name": kernelspec, "display_name": kernelspec, "language": "python"}
    nbformat.write(made, path)


class LabNotebook:
    def __init__(self, page: Page, server: JupyterServer, path: str, keep: Callable[[str], Path]) -> None:
        self.page = page
        self.server = server
        self.path = path
        self._keep = keep

    def open(self) -> LabNotebook:
        self.page.goto(f"{self.server.url}/lab/tree/{self.path}?token={self.server.token}&reset")
        expect(self.page.locator(".jp-NotebookPanel")).to_be_visible(timeout=60_000)
        return self

    def screenshot(self, part: str) -> None:
        self.page.screenshot(path=self._keep(part))

    # -- the kernel, as the page shows it

    def expect_kernel(self, status: str, timeout: float = 60) -> None:
        """``Idle``, ``Busy`` … in the status bar, beside the kernel's name (the toolbar's circle also shows idle
        while there is no kernel yet)."""
        bar = self.page.locator("#jp-main-statusbar")
        expect(bar).to_contain_text(f"| {status}", timeout=timeout * 1000)

    def toolbar(self, item: str) -> None:
        self.page.locator(f".jp-NotebookPanel-toolbar [data-jp-item-name={item}] >> css=[data-command]").click()

    def interrupt(self) -> None:
        self.toolbar("interrupt")

    def restart(self) -> None:
        self.toolbar("restart")
        self.accept()

    def accept(self) -> None:
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def dialog_shows(self, words: str) -> bool:
        """Whether the words are within the dialog's visible part, not only somewhere to the right of it."""
        return bool(self.page.locator(".jp-Dialog-content").evaluate(WITHIN_VIEW, words))

    def close_and_shut_down(self) -> None:
        """File → Close and Shut Down Notebook."""
        self.page.get_by_role("menuitem", name="File", exact=True).click()
        self.page.get_by_role("menuitem", name="Close and Shut Down Notebook").click()
        self.accept()
        expect(self.page.locator(".jp-NotebookPanel")).to_have_count(0, timeout=20_000)

    # -- cells

    def cell(self, index: int) -> Locator:
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')

    def start(self, index: int) -> Locator:
        """Run a cell as a user does (click into it, Ctrl+Enter); the cell, not finished yet."""
        cell = self.cell(index)
        cell.scroll_into_view_if_needed()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        return cell

    def prompt(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-InputPrompt").first

    def run(self, index: int, count: int, timeout: float = 30) -> Locator:
        """Run a cell to its end: its prompt shows ``[count]``. The area of its outputs."""
        cell = self.start(index)
        expect(self.prompt(index)).to_have_text(f"[{count}]:", timeout=timeout * 1000)
        return cell.locator(".jp-OutputArea").first
