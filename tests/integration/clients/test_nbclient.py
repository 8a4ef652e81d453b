"""nbclient (papermill, nbconvert --execute) through jupyter_server's gateway client classes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from eg_integration.gateway import Gateway
from eg_integration.waiting import wait_until
from nbformat import v4

SCRIPT = Path(__file__).with_name("nbclient_run.py")

CELLS = [
    "import os, sys\nprint('text'); print('to stderr', file=sys.stderr); 40 + 2",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);",
    "from IPython.display import HTML, clear_output\nprint('gone'); clear_output(); HTML('<b>bold</b>')",
    "1 / 0",
    "print('after the error')",
    "print(os.getcwd())",
]


def _run(gateway: Gateway, folder: Path, how: str) -> tuple[subprocess.CompletedProcess[str], nbformat.NotebookNode]:
    path = folder / "notebook.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(source) for source in CELLS]), path)
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "JUPYTER_GATEWAY_URL": gateway.url,
        "JUPYTER_GATEWAY_AUTH_TOKEN": gateway.token,
    }
    command = [sys.executable, str(SCRIPT), str(path), how]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done, nbformat.read(path, as_version=4)


def _check(notebook: nbformat.NotebookNode) -> None:
    outputs = [cell["outputs"] for cell in notebook["cells"]]
    assert [cell["execution_count"] for cell in notebook["cells"]] == [1, 2, 3, 4, 5, 6]
    assert {(o["name"], o["text"]) for o in outputs[0] if o["output_type"] == "stream"} == {
        ("stdout", "text\n"),
        ("stderr", "to stderr\n"),
    }
    assert outputs[0][-1]["data"]["text/plain"] == "42"
    assert outputs[1][0]["data"]["image/png"].startswith("iVBOR")
    assert [o["output_type"] for o in outputs[2]] == ["execute_result"]
    assert outputs[2][0]["data"]["text/html"] == "<b>bold</b>"
    assert outputs[3][0]["ename"] == "ZeroDivisionError"
    assert outputs[4][0]["text"] == "after the error\n"


def test_a_notebook_with_the_header_that_is_left_out(gateway: Gateway, tmp_path: Path) -> None:
    done, notebook = _run(gateway, tmp_path, "header")
    assert done.returncode == 0, done.stderr
    _check(notebook)
    wait_until(lambda: not gateway.list_kernels(), "nbclient's kernel to be gone")


def test_a_stock_one_and_a_gateway_without_token(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway = new_gateway("open").start(env={"EG_AUTH_TOKEN": ""})
    done, notebook = _run(gateway, tmp_path, "stock")
    assert done.returncode == 0, done.stderr
    _check(notebook)
    wait_until(lambda: not gateway.list_kernels(), "nbclient's kernel to be gone")


def test_a_stock_one_and_a_gateway_with_token(gateway: Gateway, tmp_path: Path) -> None:
    """A defect of jupyter_server 2.21's, held here so that the day of its repair is noticed: no credentials on the
    WebSocket. The gateway refuses it, and nothing is left behind that nbclient does not know of."""
    done, _ = _run(gateway, tmp_path, "stock")
    assert done.returncode != 0
    assert "Handshake status 401" in done.stderr or "Handshake status 403" in done.stderr
