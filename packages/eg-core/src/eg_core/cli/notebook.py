"""Run one notebook through a gateway and write it back with its outputs: nbclient over ``cli/remote``.

Whatever happens after the kernel has started, the notebook is written: what the cells have said until then stays.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError

from eg_core.cli.remote import RemoteError, RemoteKernel, RemoteKernelClient

READY_TIMEOUT = 3600.0
_SHOWN = 60  # characters of a cell's first line


class NotebookError(Exception):
    """The notebook cannot be read, or names a kernel that there is not."""


def read(path: Path) -> nbformat.NotebookNode:
    try:
        notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        return notebook
    except FileNotFoundError:
        raise NotebookError(f"There is no notebook {path}.") from None
    except OSError as error:
        raise NotebookError(f"The notebook {path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # nbformat raises what it likes for what is no notebook
        raise NotebookError(f"{path} is not a notebook: {error}") from error


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Replace the file whole, or not at all."""
    target = path.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        nbformat.write(notebook, partial)  # type: ignore[no-untyped-call]
        partial.chmod(target.stat().st_mode & 0o777)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@dataclass
class NotebookRun:
    """One run: the notebook is read when this is made, and written when ``run`` ends."""

    path: Path
    kernel_name: str | None = None
    notebook: nbformat.NotebookNode = field(init=False)
    _started: float = 0.0
    _interrupted: bool = False

    def __post_init__(self) -> None:
        self.notebook = read(self.path)

    def run(self, url: str, token: str) -> bool:
        """True when every cell ran without an error. NotebookError and RemoteError: no cell was run."""
        return asyncio.run(self._run(RemoteKernel(url, token)))

    async def _run(self, kernel: RemoteKernel) -> bool:
        name = await self._choose(kernel)
        print(f"Starting a kernel: {name}", flush=True)
        try:
            await kernel.start_kernel(name, str(self.path.resolve().parent))
            client = kernel.client()
            await client.start_channels()
            try:
                await client.wait_for_ready(READY_TIMEOUT)
                return await self._execute(kernel, client, name)
            finally:
                client.stop_channels()
        finally:
            await kernel.shutdown_kernel()

    async def _choose(self, kernel: RemoteKernel) -> str:
        """The kernelspec: asked for, else the notebook's, else the gateway's default."""
        answer = await kernel.kernelspecs()
        installed = sorted(answer["kernelspecs"])
        named = self.notebook.metadata.get("kernelspec", {}).get("name")
        name: str = self.kernel_name or named or answer["default"]
        if name not in installed:
            asked = "--kernel names" if self.kernel_name else f"{self.path} names" if named else "The default is"
            raise NotebookError(
                f"{asked} the kernelspec {name!r}, but the gateway has {', '.join(installed) or 'none at all'}."
                + (" Choose one with --kernel." if installed else " `pip install ipykernel` brings one.")
            )
        return name

    async def _execute(self, kernel: RemoteKernel, client: RemoteKernelClient, name: str) -> bool:
        runner = NotebookClient(
            self.notebook,
            km=kernel,  # type: ignore[arg-type] # the methods that nbclient calls
            kernel_name=name,
            timeout=None,
            on_cell_start=self._on_start,
            on_cell_execute=self._on_execute,
            on_cell_executed=self._on_executed,
        )
        runner.kc = client
        try:
            await runner.async_execute()
            print("Every cell ran.", flush=True)
        except CellExecutionError as error:
            print(f"A cell failed, and the run ends here: {error.ename}: {error.evalue}", flush=True)
            return False
        except (RemoteError, DeadKernelError, CellControlSignal) as error:
            if self._interrupted:
                print("Interrupted.", flush=True)
                raise KeyboardInterrupt from None
            print(f"The run ends here: {await self._why(kernel) or error}", flush=True)
            return False
        finally:
            write(self.notebook, self.path)
            print(f"Written: {self.path}", flush=True)
        return True

    async def _why(self, kernel: RemoteKernel) -> str | None:
        try:
            return (await kernel.model() or {}).get("reason")
        except RemoteError:
            return None

    def _on_start(self, **_: object) -> None:
        """Take the signals back: nbclient's own handlers end the kernel under the request that waits for it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, task)

    def _interrupt(self, task: asyncio.Task[Any] | None) -> None:
        self._interrupted = True
        if task is not None:
            task.cancel()

    def _on_execute(self, cell: Any, cell_index: int) -> None:
        self._started = time.monotonic()
        first = cell.source.strip().splitlines()[0]
        shown = first if len(first) <= _SHOWN else first[: _SHOWN - 1] + "…"
        print(f"[{cell_index + 1}/{len(self.notebook.cells)}] {shown}", end=" ", flush=True)

    def _on_executed(self, cell: Any, cell_index: int, execute_reply: dict[str, Any]) -> None:
        del cell, cell_index
        status = execute_reply["content"]["status"]
        print(f"· {status}, {time.monotonic() - self._started:.1f} s", flush=True)
