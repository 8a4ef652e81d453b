"""What every request that starts a kernel does: begin, wait as long as the client does, tell how it went."""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any

from eg_core import logs
from eg_core.errors import InvalidRequest, KernelGone, LaunchCancelled, LaunchDenied, LaunchFailed
from eg_core.handlers.base import GatewayHandler
from eg_core.kernels.env import check_client_env, is_encodable
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.requests import Composer, KernelRequest
from eg_core.kernels.states import KernelState

MAX_WAIT = 3600.0
MAX_TEXT = 4096
_DIGITS = re.compile(r"[0-9]+\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")


class StartingHandler(GatewayHandler):
    _cancel: str | None = None
    _left = False

    @property
    def composer(self) -> Composer:
        composer: Composer = self.settings["composer"]
        return composer

    def kernel_request(self, body: Mapping[str, Any]) -> KernelRequest:
        """The fields of a kernel to start, checked."""
        name, path = text_of(body, "name"), text_of(body, "path")
        env = check_client_env(body.get("env"))
        kernel_id = body.get("kernel_id") or env.get("KERNEL_ID")
        if kernel_id is not None and not (isinstance(kernel_id, str) and _UUID.match(kernel_id)):
            raise InvalidRequest("'KERNEL_ID' must be a UUID in its usual form, such as uuid4() gives.")
        key = self.request.headers.get("Idempotency-Key")
        if kernel_id is None and key:
            kernel_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.settings['gateway_id']}/{key}"))
        return KernelRequest(name=name, env=env, path=path, kernel_id=kernel_id and kernel_id.lower())

    async def begin(self, request: KernelRequest) -> Kernel:
        """Record the kernel and begin its launch. If the client goes away, the kernel goes, too, unless somebody else
        can know its id."""
        kernel_id = request.kernel_id or str(uuid.uuid4())
        logs.bind(kernel_id=kernel_id)
        kernel, made = await self.registry.start(self.composer.compose(request, kernel_id))
        if made and request.kernel_id is None:
            self._cancel = kernel.id
            if self._left:
                self.on_connection_close()
        return kernel

    async def settle(self, kernel: Kernel, env: Mapping[str, str]) -> None:
        """Wait for it, at most as long as the client does. Raises what a failed launch means."""
        try:
            await asyncio.wait_for(
                kernel.settled(), launch_wait(env, self.request.headers.get("Prefer"), self.settings["launch_wait"])
            )
        except asyncio.TimeoutError:
            pass  # `starting`: the launch goes on
        self._cancel = None
        raise_for(kernel)

    def on_connection_close(self) -> None:
        self._left = True
        kernel_id, self._cancel = self._cancel, None
        if kernel_id is not None:
            self.log.info("kernel %s: its client went away during the launch", kernel_id)
            self.registry.spawn(self.end_quietly(kernel_id, "client_gone"))

    def on_finish(self) -> None:
        """Nobody was told the id of what was begun: something else failed in between."""
        kernel_id, self._cancel = self._cancel, None
        if kernel_id is not None:
            self.registry.spawn(self.end_quietly(kernel_id, "request_failed"))

    async def end_quietly(self, kernel_id: str, reason: str) -> None:
        try:
            await self.registry.end(kernel_id, reason)
        except KernelGone:
            pass  # somebody else ended it

    def check_listing(self) -> None:
        if not self.settings["list_kernels"]:
            raise LaunchDenied("Listing kernels is switched off here (EnterpriseGatewayApp.list_kernels).")


def text_of(body: Mapping[str, Any], field: str) -> str | None:
    """A field that is absent, or a string of bounded length."""
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{field!r} must be a string, not {type(value).__name__}.")
    if value is not None and (len(value) > MAX_TEXT or "\0" in value):
        raise InvalidRequest(f"{field!r} must have at most {MAX_TEXT} characters and no NUL byte.")
    if value is not None and not is_encodable(value):
        raise InvalidRequest(f"{field!r} holds half of a surrogate pair, which is no character.")
    return value


def launch_wait(env: Mapping[str, str], prefer: str | None, most: float) -> float:
    """Seconds to wait for a launch: RFC 7240's ``Prefer``, else ``most``, or less if the client names its timeout."""
    for preference in (prefer or "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "respond-async":
            return 0.0
        if name.lower() == "wait" and _DIGITS.match(value.strip()):
            return min(float(value), MAX_WAIT)
    try:
        timeout = float(env["KERNEL_LAUNCH_TIMEOUT"])
    except (KeyError, ValueError):
        return most
    return min(most, max(0.0, timeout - 2.0)) if math.isfinite(timeout) else most


def raise_for(kernel: Kernel) -> None:
    """Raise what a kernel that settled badly means to whoever waited for it."""
    state: Any = kernel.state
    if state is KernelState.ENDING:
        raise LaunchCancelled(f"Kernel {kernel.id} was deleted while it was starting.")
    if state is KernelState.DEAD:
        if kernel.error is not None:
            raise kernel.error.with_traceback(None)
        raise LaunchFailed(kernel.failure, reason=kernel.record.reason)
