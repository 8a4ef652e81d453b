"""Fixtures: one JupyterLab for a module's tests, its kernels from the gateway, and a browser of its own for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer
from eg_integration.lab import CHROMIUM_FLAGS, LabNotebook, find_chromium, write_notebook
from playwright import sync_api as playwright


@pytest.fixture(scope="module")
def module_server(module_gateway: Gateway, needs: Callable[..., None]) -> Iterator[JupyterServer]:
    needs("chromium", find_chromium(), "install chromium, or set EG_CHROMIUM to a Chrome or Chromium")
    with JupyterServer(module_gateway, lab=True) as server:
        yield server


@pytest.fixture
def server(module_server: JupyterServer, gateway: Gateway) -> JupyterServer:
    assert gateway is module_server.gateway
    return module_server


@pytest.fixture(scope="module")
def browser(module_server: JupyterServer) -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=find_chromium(), headless=True, args=CHROMIUM_FLAGS)
        yield made
        made.close()


@pytest.fixture
def open_notebook(
    browser: playwright.Browser,
    server: JupyterServer,
    artifacts: Path,
    screenshot_name: Callable[[str], str],
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., LabNotebook]]:
    """Opens a notebook in a browser of its own (no cookies, no storage). A last screenshot is always kept."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    page = context.new_page()
    page.set_default_timeout(30_000)

    def open_it(cells: list[str], kernelspec: str = "python3") -> LabNotebook:
        path = f"{request.node.originalname}-{kernelspec}.ipynb"
        write_notebook(server.root / path, cells, kernelspec)
        return LabNotebook(page, server, path, lambda part: artifacts / screenshot_name(part)).open()

    yield open_it
    page.screenshot(path=artifacts / screenshot_name("last"))
    context.close()
