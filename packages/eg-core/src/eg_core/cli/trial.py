"""``eg doctor --launch``: one kernel by the real way (registry, backend, launcher), over a store that goes again."""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from pathlib import Path

from eg_core.app import EnterpriseGatewayApp
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.requests import KernelRequest
from eg_core.kernels.states import KernelState
from eg_core.kernelspecs.finder import KernelspecFinder
from eg_core.metrics import Metrics
from eg_core.types import CheckResult

END_TIMEOUT = 15.0
LEASE = 5.0
"""Seconds after which the launcher goes when this is over."""


async def launch(app: EnterpriseGatewayApp, name: str) -> CheckResult:
    """Raises GatewayError for a kernelspec that is not there, or may not be started."""
    app.store_url, app.keep_kernels, app.lease = "", False, LEASE
    composer = app.web_settings(KernelspecFinder(parent=app))["composer"]
    new = composer.compose(KernelRequest(name=name, env={}), str(uuid.uuid4()))
    with tempfile.TemporaryDirectory(prefix="eg-doctor-") as folder:
        async with contextlib.AsyncExitStack() as layers:
            registry, _ = await app.build(Path(folder), layers, Metrics())
            began = time.monotonic()
            try:
                kernel, _ = await registry.start(new)
                await kernel.settled()
                return _result(kernel, time.monotonic() - began)
            finally:
                await registry.end_all(END_TIMEOUT)


def _result(kernel: Kernel, seconds: float) -> CheckResult:
    if kernel.state is KernelState.READY:
        return CheckResult("ok", f"A kernel of {kernel.record.kernelspec} answered after {seconds:.2f} s.")
    return CheckResult(
        "fail", kernel.failure, f"Backend {kernel.record.backend}; the kernelspec's argv is what it runs."
    )
