"""The base class of plugins that have configuration.

A plugin's traits are its configuration: the config file (``c.LocalBackend.…``), the command line and a named instance's
own entries (``backends = {"gpu": {"type": "local", …}}``) all end up in them. Core makes the instances.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ClassVar

from traitlets import Int, Unicode
from traitlets.config import LoggingConfigurable

from eg_core.types import GatewayInfo


class Plugin(LoggingConfigurable):
    """One named instance of a plugin.

    ``gateway`` is set before ``eg_startup`` is called. ``environ`` is the gateway's own environment as it was at
    start: what starts processes takes from it what they need, by name; a kernel never gets it.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    """Words for what a backend can beyond the required: printed by the contract suite and by tools."""

    name = Unicode(help="The instance's name: what a kernelspec's metadata.eg.backend says.")
    max_threads = Int(4, min=1, max=64, help="Blocking calls of this plugin that may run at the same time.").tag(
        config=True
    )

    gateway: GatewayInfo
    environ: Mapping[str, str] = {}

    _threads: ThreadPoolExecutor | None = None

    @property
    def threads(self) -> Executor:
        """This plugin's own bounded pool, for ``aio.run_blocking``; made at its first use."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.max_threads, thread_name_prefix=f"eg-{self.name}")
        return self._threads

    def close_threads(self) -> None:
        """Let the pool go; calls that run are not waited for. Core calls it after ``eg_shutdown``."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
