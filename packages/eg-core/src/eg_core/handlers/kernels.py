"""``/api/kernels``: start, list, look at, interrupt, restart, end."""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any

from eg_core import logs
from eg_core.errors import GatewayError, InvalidRequest, KernelGone, LaunchCancelled, LaunchDenied, LaunchFailed
from eg_core.handlers.base import GatewayHandler
from eg_core.kernels.env import check_client_env
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.requests import KernelRequest
from eg_core.kernels.states import KernelState

LAUNCH_WAIT = 25.0
"""Seconds a POST waits for the kernel: shorter than the stock client's 40."""
MAX_WAIT = 3600.0
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


class KernelsHandler(GatewayHandler):
    _cancel: str | None = None

    async def get(self) -> None:
        if not self.settings["list_kernels"]:
            raise LaunchDenied("Listing kernels is switched off here (EnterpriseGatewayApp.list_kernels).")
        self.write_json([kernel.model() for kernel in self.registry.kernels()])

    async def post(self) -> None:
        request = self._request()
        kernel_id = request.kernel_id or str(uuid.uuid4())
        logs.bind(kernel_id=kernel_id)
        kernel, made = await self.registry.start(self.settings["composer"].compose(request, kernel_id))
        if made and request.kernel_id is None:
            self._cancel = kernel.id  # nobody else can know the id: if the client goes away, so does the kernel
        try:
            await asyncio.wait_for(kernel.settled(), launch_wait(request.env, self.request.headers.get("Prefer")))
        except asyncio.TimeoutError:
            pass  # 201 and `starting`: the launch goes on
        self._cancel = None
        raise_for(kernel)
        self.set_header("Location", f"{self.base_url}api/kernels/{kernel.id}")
        self.write_json(kernel.model(), 201)

    def on_connection_close(self) -> None:
        kernel_id, self._cancel = self._cancel, None
        if kernel_id is not None:
            self.log.info("kernel %s: its client went away during the launch", kernel_id)
            self.registry.spawn(self._end(kernel_id))

    async def _end(self, kernel_id: str) -> None:
        try:
            await self.registry.end(kernel_id, "client_gone")
        except KernelGone:
            pass  # somebody else ended it

    def _request(self) -> KernelRequest:
        body = self.json_body()
        name, path = body.get("name"), body.get("path")
        for field, value in (("name", name), ("path", path)):
            if value is not None and not isinstance(value, str):
                raise InvalidRequest(f"{field!r} must be a string, not {type(value).__name__}.")
            if value is not None and (len(value) > 4096 or "\0" in value):
                raise InvalidRequest(f"{field!r} must have at most 4096 characters and no NUL byte.")
        env = check_client_env(body.get("env"))
        kernel_id = body.get("kernel_id") or env.get("KERNEL_ID")
        if kernel_id is not None and not (isinstance(kernel_id, str) and _UUID.match(kernel_id)):
            raise InvalidRequest("'KERNEL_ID' must be a UUID in its usual form, such as uuid4() gives.")
        key = self.request.headers.get("Idempotency-Key")
        if kernel_id is None and key:
            kernel_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.settings['gateway_id']}/{key}"))
        return KernelRequest(name=name, env=env, path=path, kernel_id=kernel_id and kernel_id.lower())


class KernelHandler(GatewayHandler):
    async def get(self, kernel_id: str) -> None:
        self.write_json(self.registry.kernel(kernel_id.lower()).model())

    async def delete(self, kernel_id: str) -> None:
        await self.registry.end(kernel_id.lower())
        self.set_status(204)


class KernelActionHandler(GatewayHandler):
    async def post(self, kernel_id: str, action: str) -> None:
        kernel_id = kernel_id.lower()
        if action == "interrupt":
            await self.registry.interrupt(kernel_id)
            self.set_status(204)
            return
        kernel = await self.registry.restart(kernel_id)
        try:
            await asyncio.wait_for(kernel.settled(), LAUNCH_WAIT)
        except asyncio.TimeoutError:
            pass  # 200 and `restarting`: it goes on
        raise_for(kernel)
        self.write_json(kernel.model())


class KernelLogHandler(GatewayHandler):
    """What the kernel's process has written to stdout and stderr, from byte ``after`` on."""

    async def get(self, kernel_id: str) -> None:
        try:
            after = int(self.get_query_argument("after", "0"))
        except ValueError:
            raise InvalidRequest("'after' must be a whole number of bytes.") from None
        self.write_json(await self.registry.log_of(kernel_id.lower(), max(0, after)))


def launch_wait(env: Mapping[str, str], prefer: str | None) -> float:
    """Seconds to wait for a launch: RFC 7240's ``Prefer``, else below the timeout that the client names."""
    for preference in (prefer or "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "respond-async":
            return 0.0
        if name.lower() == "wait" and value.strip().isdigit():
            return min(float(value), MAX_WAIT)
    try:
        timeout = float(env["KERNEL_LAUNCH_TIMEOUT"])
    except (KeyError, ValueError):
        return LAUNCH_WAIT
    return min(LAUNCH_WAIT, max(0.0, timeout - 2.0)) if math.isfinite(timeout) else LAUNCH_WAIT


def raise_for(kernel: Kernel) -> None:
    """Raise what a kernel that settled badly means to whoever waited for it."""
    state: Any = kernel.state
    if state is KernelState.ENDING:
        raise LaunchCancelled(f"Kernel {kernel.id} was deleted while it was starting.")
    if state is KernelState.DEAD:
        error: type[GatewayError] = LaunchFailed
        raise error(kernel.failure, reason=kernel.record.reason)
