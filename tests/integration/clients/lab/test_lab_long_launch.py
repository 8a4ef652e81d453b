"""A launch that outlasts every proxy on its way, with a stock JupyterLab and its default options."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer
from eg_integration.lab import CHROMIUM_FLAGS, LabNotebook, find_chromium, write_notebook
from eg_integration.nginx import Nginx, find_nginx
from eg_integration.waiting import wait_until
from playwright import sync_api as playwright

LATE = "import time; time.sleep({seconds}); from ipykernel import kernelapp; kernelapp.launch_new_instance()"


@dataclass(frozen=True)
class Clock:
    """Seconds of the launch, and of a proxy's patience with requests and with silence. The gateway is set to it."""

    launch: int
    request: int
    idle: int
    options: tuple[str, ...] = ()


SHORT = Clock(25, 3, 10, ("--EnterpriseGatewayApp.launch_wait=1", "--EnterpriseGatewayApp.ws_ping_interval=3"))
WHOLE = Clock(20 * 60, 30, 60)


@pytest.fixture
def keep(artifacts: Path, screenshot_name: Callable[[str], str]) -> Callable[[str], Path]:
    return lambda part: artifacts / screenshot_name(part)


def add_late_kernelspec(gateway: Gateway, seconds: int) -> None:
    folder = gateway.folder / "jupyter/kernels/late"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-c", LATE.format(seconds=seconds), "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Late", "language": "python"}))


@pytest.mark.parametrize(
    "clock",
    [
        pytest.param(SHORT, id="short", marks=pytest.mark.timeout(180)),
        pytest.param(WHOLE, id="20 min", marks=[pytest.mark.full, pytest.mark.timeout(1500)]),
    ],
)
def test_a_long_launch_ends_in_a_working_notebook(
    new_gateway: Callable[..., Gateway],
    needs: Callable[..., None],
    keep: Callable[[str], Path],
    clock: Clock,
) -> None:
    needs("chromium", find_chromium(), "install chromium, or set EG_CHROMIUM to a Chrome or Chromium")
    needs("nginx", find_nginx(), "install nginx")
    gateway = new_gateway().start(*clock.options)
    add_late_kernelspec(gateway, clock.launch)
    with (
        Nginx(gateway.folder / "inner", gateway.url, request=clock.request, idle=clock.idle) as inner,
        JupyterServer(gateway, lab=True, gateway_url=inner.url) as server,
        Nginx(gateway.folder / "outer", server.url, request=clock.request, idle=max(60, clock.idle)) as outer,
        playwright.sync_playwright() as started,
    ):
        # The browser comes by the outer one; jupyter_server itself pings its clients every 30 s only.
        server.url = outer.url
        browser = started.chromium.launch(executable_path=find_chromium(), headless=True, args=CHROMIUM_FLAGS)
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        write_notebook(server.root / "late.ipynb", ["6 * 7"], "late")
        notebook = LabNotebook(page, server, "late.ipynb", keep)
        began = time.monotonic()
        notebook.open()

        # Meanwhile it is told how far it has come.
        model = wait_until(lambda: next(iter(gateway.list_kernels()), None), "the launch to begin", 60)
        model = wait_until(lambda: (m := gateway.model(model["id"])).get("phase") == "answer" and m, "its last phase")
        assert model["execution_state"] == "starting"
        assert "answer" in model["reason"]
        notebook.expect_kernel("Starting", clock.launch)
        notebook.start(0)  # waits for the kernel
        playwright.expect(notebook.prompt(0)).to_have_text("[*]:")
        notebook.screenshot("meanwhile")

        playwright.expect(notebook.prompt(0)).to_have_text("[1]:", timeout=(clock.launch + 60) * 1000)
        assert time.monotonic() - began > clock.launch > 2 * clock.idle
        playwright.expect(notebook.cell(0).locator(".jp-OutputArea").first).to_contain_text("42")
        notebook.expect_kernel("Idle")
        notebook.screenshot("ready")
        assert [kernel["id"] for kernel in gateway.list_kernels()] == [model["id"]]
        # Nothing was cut, for nothing took too long or was silent.
        assert [line for proxy in (inner, outer) for line in proxy.seen() if '" 504 ' in line or '" 502 ' in line] == []
        assert "Lost connection" not in server.log_file.read_text()
        browser.close()
