"""JupyterLab's debugger through the gateway, as a user sees it: its protocol runs over control while a cell stands."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer
from eg_integration.lab import LabNotebook
from eg_integration.waiting import wait_until
from playwright import sync_api as playwright

pytestmark = pytest.mark.timeout(180)

SLOW = 30_000  # milliseconds: an expectation's own five seconds are short on a busy machine
CELLS = ["x = 41\nx += 1\nprint('x is', x)", "print('x is still', x)"]


@pytest.fixture
def kernelspec(server: JupyterServer) -> str:
    """One that says that its kernel can be debugged, as ipykernel's own does; added to the gateway while it runs."""
    kernels = server.gateway.folder / "jupyter" / "kernels"
    spec = json.loads((kernels / "python3" / "kernel.json").read_text())
    spec |= {"display_name": "Debuggable", "metadata": {"debugger": True}}
    (kernels / "debuggable").mkdir(exist_ok=True)
    (kernels / "debuggable" / "kernel.json").write_text(json.dumps(spec))
    return "debuggable"


def test_a_breakpoint_on_the_page(open_notebook: Callable[..., LabNotebook], kernelspec: str, gateway: Gateway) -> None:
    expect = playwright.expect
    notebook = open_notebook(CELLS, kernelspec)
    notebook.expect_kernel("Idle")
    page, cell = notebook.page, notebook.cell(0)
    variables, callstack = page.locator(".jp-DebuggerVariables"), page.locator(".jp-DebuggerCallstack")

    bug = page.locator(".jp-DebuggerBugButton")
    # Not to_be_enabled(): a jp-button is none of the elements that Playwright knows to be disabled.
    expect(bug).to_have_attribute("aria-disabled", "false", timeout=SLOW)
    bug.click()
    expect(bug).to_have_attribute("aria-pressed", "true", timeout=SLOW)
    expect(page.locator(".jp-DebuggerSidebar")).to_be_visible()

    # The gutter's first element is its spacer: the second line's is the third.
    line = cell.locator(".cm-breakpoint-gutter > .cm-gutterElement").nth(2)
    expect(line).to_be_visible()
    line.click()
    expect(page.locator(".jp-DebuggerBreakpoint")).to_have_count(1, timeout=SLOW)

    notebook.start(0)
    expect(callstack.locator(".jp-DebuggerCallstackFrame").first).to_contain_text("<module>", timeout=SLOW)
    expect(cell.locator(".jp-DebuggerEditor-highlight")).to_have_text("x += 1", timeout=SLOW)
    expect(variables).to_contain_text("41", timeout=SLOW)
    expect(notebook.prompt(0)).to_have_text("[*]:")
    (model,) = gateway.list_kernels()
    assert model["execution_state"] == "busy"
    notebook.screenshot("stopped")

    page.locator('[data-command="debugger:next"]').click()
    expect(cell.locator(".jp-DebuggerEditor-highlight")).to_have_text("print('x is', x)", timeout=SLOW)
    expect(variables).to_contain_text("42", timeout=SLOW)

    page.locator('[data-command="debugger:continue"]').click()
    expect(notebook.prompt(0)).to_have_text("[1]:", timeout=SLOW)
    expect(cell.locator(".jp-OutputArea").first).to_contain_text("x is 42")
    notebook.screenshot("continued")

    bug.click()
    expect(bug).to_have_attribute("aria-pressed", "false", timeout=SLOW)
    expect(notebook.run(1, 2)).to_contain_text("x is still 42")
    wait_until(lambda: gateway.list_kernels()[0]["execution_state"] == "idle", "the kernel to be idle")
    notebook.close_and_shut_down()
    wait_until(lambda: not gateway.kernels(), "no kernel process to be left")
