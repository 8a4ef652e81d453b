"""JupyterLab in Chromium, its server connected to the gateway: what a user does and sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eg_integration.gateway import Gateway
from eg_integration.kernelspecs import FAREWELL
from eg_integration.lab import LabNotebook
from eg_integration.waiting import wait_until
from playwright import sync_api as playwright

pytestmark = pytest.mark.timeout(300)

CELLS = [
    "print('some text')\nkept = 41\nkept + 1",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
    "def fails():\n    return 1 / 0\nfails()",
    "name = input('Your name? ')\nprint('Hello', name)",
    "from IPython.display import HTML\nHTML('<b id=\"bold\">HTML it is</b>')",
    "import time\nprint('going to sleep', flush=True)\ntime.sleep(600)",
    "print('kept is still', kept)",
    "'kept' in globals()",
]


def test_a_notebook_from_open_to_close(open_notebook: Callable[..., LabNotebook], gateway: Gateway) -> None:
    expect = playwright.expect
    notebook = open_notebook(CELLS)
    notebook.expect_kernel("Idle")

    output = notebook.run(0, 1)
    expect(output).to_contain_text("some text")
    expect(output).to_contain_text("42")

    image = notebook.run(1, 2, 60).locator(".jp-RenderedImage img")
    wait_until(lambda: image.evaluate("image => image.naturalWidth") > 100, "the plot to be painted")
    notebook.screenshot("image")

    output = notebook.run(2, 3)
    expect(output).to_contain_text("ZeroDivisionError: division by zero")
    expect(output).to_contain_text("fails()")

    notebook.start(3)
    asked = notebook.cell(3).locator("input.jp-Stdin-input")
    expect(asked).to_be_visible()
    asked.fill("Ada")
    asked.press("Enter")
    expect(notebook.prompt(3)).to_have_text("[4]:")
    expect(notebook.cell(3).locator(".jp-OutputArea")).to_contain_text("Hello Ada")

    output = notebook.run(4, 5)
    expect(output.locator("#bold")).to_have_text("HTML it is")

    notebook.start(5)
    expect(notebook.cell(5).locator(".jp-OutputArea")).to_contain_text("going to sleep")
    notebook.expect_kernel("Busy")
    notebook.interrupt()
    expect(notebook.prompt(5)).to_have_text("[6]:")
    expect(notebook.cell(5).locator(".jp-OutputArea")).to_contain_text("KeyboardInterrupt")
    expect(notebook.run(6, 7)).to_contain_text("kept is still 41")
    notebook.screenshot("after-interrupt")

    notebook.restart()
    notebook.expect_kernel("Idle")
    expect(notebook.run(7, 1)).to_contain_text("False")
    notebook.screenshot("after-restart")

    assert len(gateway.list_kernels()) == 1
    notebook.close_and_shut_down()
    wait_until(lambda: not gateway.list_kernels(), "no kernel to be left at the gateway")
    wait_until(lambda: not gateway.kernels(), "no kernel process to be left")


@pytest.mark.parametrize(("kernelspec", "words"), [("absent", "/nowhere/to/be/found/python"), ("exits", FAREWELL)])
def test_why_a_kernel_cannot_start_is_on_the_page(
    open_notebook: Callable[..., LabNotebook], gateway: Gateway, kernelspec: str, words: str
) -> None:
    notebook = open_notebook(CELLS, kernelspec)
    dialog = notebook.page.locator(".jp-Dialog")
    playwright.expect(dialog).to_contain_text(words, timeout=60_000)
    notebook.screenshot("dialog")
    assert "Traceback" not in dialog.inner_text()
    wait_until(lambda: not gateway.kernels(), "no kernel process to be left")


@pytest.mark.xfail(reason="a dialog of JupyterLab does not wrap lines, and the gateway client's preface is long")
@pytest.mark.parametrize(("kernelspec", "words"), [("absent", "No such file"), ("exits", FAREWELL)])
def test_the_reason_can_be_read_without_scrolling(
    open_notebook: Callable[..., LabNotebook], kernelspec: str, words: str
) -> None:
    notebook = open_notebook(CELLS, kernelspec)
    playwright.expect(notebook.page.locator(".jp-Dialog")).to_contain_text(words, timeout=60_000)
    assert notebook.dialog_shows("Error from Gateway")
    assert notebook.dialog_shows(words)


def test_a_kernel_that_dies_says_why(open_notebook: Callable[..., LabNotebook], gateway: Gateway) -> None:
    notebook = open_notebook(["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"])
    notebook.expect_kernel("Idle")
    notebook.start(0)
    output = notebook.cell(0).locator(".jp-OutputArea").first
    playwright.expect(output).to_contain_text("SIGKILL", timeout=30_000)
    notebook.screenshot("died")
    wait_until(lambda: not gateway.kernels(), "no kernel process to be left")
