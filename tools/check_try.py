"""Do what the README's first command promises, on what it promises: an empty environment, an empty home.

Runs a notebook through the gateway (its outputs are in the file), one with a failing cell (exit code 1, and written
all the same), and then a JupyterLab: the printed URL answers, a kernel starts through the gateway, Ctrl-C ends it all
and no process is left. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TRY = (sys.executable, str(ROOT / "tools" / "try.py"))
KEPT = re.compile(r"PATH|LANG|LC_.*|.*PROXY|.*proxy|(PIP|UV|SSL|CURL|REQUESTS)_.*|OPENBLAS_.*")
INSTALL_TIMEOUT = 480.0
ANSWER_TIMEOUT = 120.0


def notebook(*sources: str) -> str:
    common: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    cells = [{**common, "id": f"cell-{number}", "source": source} for number, source in enumerate(sources)]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in json.loads(path.read_text())["cells"] for output in cell["outputs"]]


def expect(true: object, words: str) -> None:
    if not true:
        raise SystemExit(f"check_try: {words}")
    print(f"  {words}: yes", flush=True)


def processes_of(venv: Path) -> list[str]:
    """What runs from this environment: the launchers and kernels, too, whose variables are their own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(bytes(1), b" ").decode(errors="replace")
        except OSError:
            continue
        if str(venv) in command and int(entry.name) != os.getpid():
            found.append(f"{entry.name} {command}")
    return found


def run_notebooks(folder: Path, env: dict[str, str]) -> None:
    good, bad = folder / "good.ipynb", folder / "bad.ipynb"
    good.write_text(notebook("x = 6 * 7\nprint('said')", "x"))
    bad.write_text(notebook("print('before')", "1/0", "print('after')"))
    done = subprocess.run([*TRY, str(good)], check=False, cwd=folder, env=env, timeout=INSTALL_TIMEOUT)
    expect(done.returncode == 0, "a notebook runs")
    expect(outputs(good)[0]["text"] == ["said\n"], "what it printed is in the file")
    expect(outputs(good)[1]["data"]["text/plain"] == ["42"], "its result is in the file")
    done = subprocess.run([*TRY, str(bad)], check=False, cwd=folder, env=env, timeout=ANSWER_TIMEOUT)
    expect(done.returncode == 1, "a failing cell is exit code 1")
    expect([one.get("ename") for one in outputs(bad)] == [None, "ZeroDivisionError"], "the error is in the file")


def run_lab(folder: Path, env: dict[str, str]) -> None:
    log = folder / "lab.txt"
    with log.open("wb") as output:
        lab = subprocess.Popen(
            TRY, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url, token = wait_for_url(lab, log)
        expect("JupyterLab" in call(f"{url}lab?token={token}"), "the printed URL answers with JupyterLab")
        specs = json.loads(call(f"{url}api/kernelspecs", token))
        expect("python3" in specs["kernelspecs"], "JupyterLab has the gateway's kernelspecs")
        model = json.loads(call(f"{url}api/kernels", token, {"name": "python3"}))
        expect(model["id"], "a kernel starts through the gateway")
        lab.send_signal(signal.SIGINT)
        expect(lab.wait(60) == 0, "Ctrl-C ends it")
    finally:
        if lab.poll() is None:
            lab.kill()
            lab.wait()
            print(log.read_text())


def wait_for_url(lab: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while time.monotonic() < deadline and lab.poll() is None:
        if found := re.search(r"(http://\S+/)lab\?token=(\S+)", log.read_text()):
            return found.group(1), found.group(2)
        time.sleep(0.1)
    raise SystemExit(f"check_try: no URL was printed:\n{log.read_text()}")


def call(url: str, token: str | None = None, body: object = None) -> str:
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        text: str = response.read().decode()
    return text


def wait_until_none(venv: Path) -> list[str]:
    deadline = time.monotonic() + 30
    while (left := processes_of(venv)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="eg-try-") as name:
        folder = Path(name)
        (folder / "home").mkdir()
        env = {key: value for key, value in os.environ.items() if KEPT.fullmatch(key)}
        env |= {"HOME": str(folder / "home"), "EG_VENV": str(folder / "venv")}
        run_notebooks(folder, env)
        left = wait_until_none(folder / "venv")
        expect(not left, "\n".join(["no process is left after the notebooks", *left]))
        run_lab(folder, env)
        left = wait_until_none(folder / "venv")
        expect(not left, "\n".join(["no process is left after JupyterLab", *left]))
    print("try: all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
