"""What several test files need: everything of a gateway but the web, over a real store and real launchers."""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from traitlets.config import Config, LoggingConfigurable

from eg_core.hooks import Hooks
from eg_core.kernels.launchers import Launchers
from eg_core.kernels.registry import KernelRegistry, Settings
from eg_core.launchers.credentials import CertificateAuthority
from eg_core.plugins import PluginManager
from eg_core.store.store import Store
from eg_core.types import GatewayInfo

KEY = b"k" * 32


@contextlib.asynccontextmanager
async def gateway(folder: Path, runtime: Path, *, end: bool = True, **settings):
    """Everything but the web, over a store in ``folder``."""
    log = logging.getLogger("test-registry")
    parent = LoggingConfigurable(config=Config({"LocalBackend": {"runtime_dir": str(runtime)}}))
    hooks = Hooks(PluginManager(backends={}, parent=parent, log=log), log)
    store = Store(f"sqlite:///{folder / 'eg.db'}", KEY)
    gateway_id = await store.open()
    await hooks.startup(GatewayInfo(gateway_id=gateway_id, version="0", data_dir=folder))
    authority = CertificateAuthority.from_pem(await store.secret("ca", CertificateAuthority.create))
    launchers = Launchers(store=store, hooks=hooks, authority=authority, lease=20.0, log=log)
    registry = KernelRegistry(
        store=store, hooks=hooks, launchers=launchers, settings=Settings(grace=1.0, **settings), log=log
    )
    await registry.open()
    try:
        yield registry
    finally:
        if end:
            await registry.end_all(15.0)
        await registry.close()
        await hooks.shutdown()
        await store.close()


async def until(condition, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


def exists(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def running_with(mark):
    """Pids of living processes that have ``mark`` on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (folder / "cmdline").read_bytes().split(b"\0") and exists(folder.name):
                    found.append(int(folder.name))
    return found
