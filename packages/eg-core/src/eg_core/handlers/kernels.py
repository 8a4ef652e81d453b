"""``/api/kernels``: start, list, look at, interrupt, restart, end."""

from __future__ import annotations

import asyncio
import re

from eg_core.errors import InvalidRequest
from eg_core.handlers.base import GatewayHandler
from eg_core.handlers.starting import StartingHandler, raise_for

MAX_NAME = 256
_OFFSET = re.compile(r"[0-9]{1,18}\Z")


class KernelsHandler(StartingHandler):
    async def get(self) -> None:
        self.check_listing()
        self.write_json([kernel.model() for kernel in self.registry.kernels()])

    async def post(self) -> None:
        request = self.kernel_request(self.json_body())
        kernel = await self.begin(request)
        await self.settle(kernel, request.env)
        self.set_header("Location", f"{self.base_url}api/kernels/{kernel.id}")
        self.write_json(kernel.model(), 201)


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
            await asyncio.wait_for(kernel.settled(), self.settings["launch_wait"])
        except asyncio.TimeoutError:
            pass  # 200 and `restarting`: it goes on
        raise_for(kernel)
        self.write_json(kernel.model())


class KernelOutputsHandler(GatewayHandler):
    """What a request, or a notebook's cell, has put out: for a page that was reloaded."""

    async def get(self, kernel_id: str) -> None:
        which = {name: said for name in ("parent", "cell") if (said := self.get_query_argument(name, ""))}
        if len(which) != 1:
            raise InvalidRequest("Name either a request by 'parent', its msg_id, or a notebook's cell by 'cell'.")
        ((name, said),) = which.items()
        if len(said) > MAX_NAME:
            raise InvalidRequest(f"'{name}' must have at most {MAX_NAME} characters.")
        self.write_json(await self.registry.outputs_of(kernel_id.lower(), which))


class KernelLogHandler(GatewayHandler):
    """What the kernel's process has written to stdout and stderr, from byte ``after`` on."""

    async def get(self, kernel_id: str) -> None:
        after = self.get_query_argument("after", "0")
        if not _OFFSET.match(after):
            raise InvalidRequest("'after' must be a whole number of bytes, as told in 'next'.")
        self.write_json(await self.registry.log_of(kernel_id.lower(), int(after)))
