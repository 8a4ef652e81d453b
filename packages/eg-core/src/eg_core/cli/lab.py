"""``eg lab [NOTEBOOK]``: try it out on this machine.

Starts a gateway with a store, a token and a port of its own, and a JupyterLab that has its kernels from it; prints
the one URL to open. With a notebook's path there is no JupyterLab: the notebook is run through the gateway and written
back. However it ends, both programs and every kernel end with it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jupyter_core.paths import jupyter_runtime_dir

from eg_core.cli.children import Child, ChildError

READY_TIMEOUT = 120.0
INTERRUPTED = 130


def run(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    needed = "nbclient" if args.notebook else "jupyterlab"
    if importlib.util.find_spec(needed) is None:
        print(f'eg lab: {needed} is not installed; `pip install "eg-core[lab]"` brings it.', file=sys.stderr)
        return 2
    _interrupt_on(signal.SIGTERM, signal.SIGHUP)
    try:
        return _run_notebook(args.notebook, args.kernel) if args.notebook else _run_lab(args.port)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ChildError as error:
        print(f"eg lab: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eg lab",
        description="Start a gateway with local kernels and a JupyterLab connected to it, and print the URL to open. "
        "Ctrl-C ends both, and the kernels. With a notebook: run that through the gateway instead, and write it back "
        "with its outputs; the exit code is 1 if a cell failed.",
    )
    parser.add_argument("notebook", nargs="?", type=Path, metavar="NOTEBOOK", help="run this notebook, and end")
    parser.add_argument("--kernel", metavar="NAME", help="the kernelspec for NOTEBOOK (default: the one it names)")
    parser.add_argument("--port", type=int, default=8888, help="JupyterLab's port, or one near it (default: 8888)")
    return parser


def _interrupt_on(*signals: signal.Signals) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, interrupt)


@dataclass(frozen=True)
class Gateway:
    url: str
    token: str
    folder: Path
    child: Child

    def environment(self) -> dict[str, str]:
        """What makes a jupyter_server a client of this gateway."""
        return {"JUPYTER_GATEWAY_URL": self.url, "JUPYTER_GATEWAY_AUTH_TOKEN": self.token}


@contextlib.contextmanager
def _gateway() -> Iterator[Gateway]:
    token = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="eg-lab-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "eg_core.cli.main", "serve", "--ip=127.0.0.1", "--port=0"]
        print("Starting the gateway …", flush=True)
        # SIGINT ends the kernels too, at once: there is no terminal to confirm it at.
        with Child(
            "gateway",
            [*command, f"--data-dir={folder / 'gateway'}"],
            env={**_without(os.environ, "EG_", "KG_"), "EG_AUTH_TOKEN": token},
            log=folder / "gateway.log",
            end_signal=signal.SIGINT,
        ) as child:
            url = child.wait_until(lambda: child.find_in_log(r"is available at (http://\S+)"), READY_TIMEOUT)
            yield Gateway(url, token, folder, child)


def _without(environ: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(prefixes)}


def _run_notebook(path: Path, kernel: str | None) -> int:
    from eg_core.cli.notebook import NotebookError, NotebookRun  # noqa: PLC0415 - nbclient comes with the extra only
    from eg_core.cli.remote import RemoteError  # noqa: PLC0415

    try:
        notebook = NotebookRun(path, kernel)
        with _gateway() as gateway:
            return 0 if notebook.run(gateway.url, gateway.token) else 1
    except (NotebookError, RemoteError) as error:
        print(f"eg lab: {error}", file=sys.stderr)
        return 1


def _run_lab(port: int) -> int:
    token = secrets.token_urlsafe(32)
    argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    if os.geteuid() == 0:
        argv.append("--allow-root")
    with _gateway() as gateway:
        print("Starting JupyterLab …", flush=True)
        env = {**_without(os.environ, "JUPYTER_GATEWAY_"), **gateway.environment(), "JUPYTER_TOKEN": token}
        with Child("JupyterLab server", argv, env=env, log=gateway.folder / "jupyterlab.log") as server:
            info = Path(jupyter_runtime_dir()) / f"jpserver-{server.pid}.json"
            url = server.wait_until(lambda: _server_url(info), READY_TIMEOUT)
            print(
                f"\n    {url}lab?token={token}\n\n"
                f"Open this URL. The gateway is at {gateway.url}, the logs are in {gateway.folder}.\n"
                "Ctrl-C here ends JupyterLab, the gateway and the kernels.",
                flush=True,
            )
            _watch(server, gateway.child)
    return 0


def _watch(*children: Child) -> None:
    """Until Ctrl-C. Raises ChildError when one of them ends."""
    try:
        while True:
            for child in children:
                child.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nEnding JupyterLab, the gateway and the kernels …", flush=True)


def _server_url(info: Path) -> str | None:
    """The server's own note of where it listens, written once it does."""
    try:
        url: str = json.loads(info.read_text())["url"]
    except (OSError, ValueError):
        return None
    return url
