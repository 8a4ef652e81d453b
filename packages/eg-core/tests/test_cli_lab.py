"""``eg lab``: real gateways, launchers, kernels, and a real JupyterLab where it is installed; each in its own home."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

EG = [sys.executable, "-m", "eg_core.cli.main"]
DEADLINE = 90.0
v4 = nbformat.v4


@pytest.fixture(scope="module")
def homes() -> Iterator[list[str]]:
    """The tests' homes; when all have ended, nothing that ran in any of them is left (launchers linger a while)."""
    with contextlib.ExitStack() as stack:
        folders: list[str] = []
        yield folders
        for folder in folders:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for folder in folders:
            until(lambda: not processes_of(folder), lambda: f"left behind: {processes_of(folder)}", 30)  # noqa: B023


@pytest.fixture
def environment(homes: list[str]) -> dict[str, str]:
    """With an empty home. Its name is short, for sockets are made in it."""
    hidden = ("JUPYTER", "EG_", "KG_", "XDG_", "KERNEL_", "IPYTHONDIR")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    homes.append(tempfile.mkdtemp(prefix="eg-t-"))
    return {**env, "HOME": homes[-1], "TMPDIR": homes[-1]}


def processes_of(folder: str) -> list[str]:
    """Processes with the test's folder on their command line or in their environment (kernels have HOME and TMPDIR)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if folder.encode() in text and int(entry.name) != os.getpid():
                found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()!r}")
    return found


def until(true: Callable[[], object], words: Callable[[], str], seconds: float = DEADLINE) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, words()
        time.sleep(0.05)
    return value


def notebook(path: Path, *sources: str, kernel: str | None = None) -> Path:
    node = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
    if kernel:
        node.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(node, path)
    return path


def outputs(path: Path) -> list[list[Any]]:
    return [cell.outputs for cell in nbformat.read(path, as_version=4).cells]


def lab(environment: dict[str, str], *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EG, "lab", *map(str, args)],
        check=False,
        env=environment,
        cwd=environment["HOME"],
        timeout=DEADLINE,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@contextlib.contextmanager
def running(environment: dict[str, str], log: Path, *args: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*EG, "lab", *map(str, args)],
            env=environment,
            cwd=environment["HOME"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_notebook_is_run_and_written_back(environment: dict[str, str], tmp_path: Path) -> None:
    path = notebook(
        tmp_path / "a.ipynb",
        "import os\nprint('here:', os.getcwd())",
        "from IPython.display import HTML, display\nhandle = display(HTML('<b>1</b>'), display_id=True)",
        "handle.update(HTML('<b>2</b>'))\n6 * 7",
    )
    path.chmod(0o640)
    done = lab(environment, path)
    assert done.returncode == 0, done.stdout
    first, second, third = outputs(path)
    assert first[0].text == f"here: {tmp_path}\n"
    assert second[0].data["text/html"] == "<b>2</b>"
    assert third[0].data["text/plain"] == "42"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.glob("*.partial")] == []
    assert "[3/3]" in done.stdout


def test_a_failing_cell_ends_the_run_and_is_written(environment: dict[str, str], tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "print('before')", "1/0", "print('after')")
    done = lab(environment, path)
    assert done.returncode == 1, done.stdout
    before, failed, after = outputs(path)
    assert before[0].text == "before\n"
    assert failed[0].ename == "ZeroDivisionError"
    assert after == []
    assert "ZeroDivisionError: division by zero" in done.stdout


def test_a_kernel_that_dies_is_said_and_what_was_there_is_written(environment: dict[str, str], tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "print('before')", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = lab(environment, path)
    assert done.returncode == 1, done.stdout
    assert outputs(path)[0][0].text == "before\n"
    assert "SIGKILL" in done.stdout


def test_an_unknown_kernelspec_is_refused_with_those_there_are(environment: dict[str, str], tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "1", kernel="cobol")
    before = path.read_bytes()
    done = lab(environment, path)
    assert done.returncode == 1
    assert "names the kernelspec 'cobol', but the gateway has python3" in done.stdout
    assert path.read_bytes() == before
    assert lab(environment, path, "--kernel", "python3").returncode == 0


@pytest.mark.parametrize(("text", "words"), [(None, "There is no notebook"), ("{}", "is not a notebook")])
def test_what_is_no_notebook_is_refused_in_words(
    environment: dict[str, str], tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "a.ipynb"
    if text is not None:
        path.write_text(text)
    done = lab(environment, path)
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stdout


def test_ctrl_c_ends_a_run_and_writes_what_was_there(environment: dict[str, str], tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "print('before')", "import time\nprint('now', flush=True)\ntime.sleep(600)")
    log = tmp_path / "log.txt"
    with running(environment, log, path) as process:
        until(lambda: "[2/2]" in log.read_text(), log.read_text)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130, log.read_text()
    assert outputs(path)[0][0].text == "before\n"
    assert "Traceback" not in log.read_text()


def test_killed_it_leaves_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    """The fixture `homes` looks. That it takes less than a lease shows that the gateway was told."""
    path = notebook(tmp_path / "a.ipynb", "import time; time.sleep(600)")
    log = tmp_path / "log.txt"
    with running(environment, log, path) as process:
        until(lambda: "[1/1]" in log.read_text(), log.read_text)
        process.kill()
        process.wait()


def test_a_jupyterlab_has_its_kernels_from_the_gateway(environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed here; pip install 'eg-core[lab]' brings it")
    log = tmp_path / "log.txt"
    with running(environment, log, "--port", "0") as process:
        pattern = re.compile(r"(http://\S+/)lab\?token=(\S+)")
        url, token = until(lambda: pattern.search(log.read_text()), log.read_text).groups()
        assert "python3" in call(f"{url}api/kernelspecs", token)["kernelspecs"]
        kernel = call(f"{url}api/kernels", token, {"name": "python3"})
        gateway = re.search(r"The gateway is at (http://\S+?),", log.read_text())
        assert gateway
        assert call(f"{gateway[1]}healthz")
        assert kernel["id"]
        assert any("ipykernel_launcher" in one for one in processes_of(environment["HOME"]))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0, log.read_text()


def call(url: str, token: str | None = None, body: object = None) -> Any:
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"} if token else {}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=DEADLINE) as response:
        return json.loads(response.read())
