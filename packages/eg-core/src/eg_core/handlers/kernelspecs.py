"""``/api/kernelspecs`` and the declared resources below ``/kernelspecs``."""

from __future__ import annotations

import asyncio
import mimetypes
from urllib.parse import unquote

from tornado import web

from eg_core.errors import NoSuchKernelspec
from eg_core.handlers.base import GatewayHandler
from eg_core.kernelspecs.finder import Kernelspec, KernelspecFinder

MAX_RESOURCE = 4 * 1024 * 1024


class _KernelspecsHandler(GatewayHandler):
    @property
    def finder(self) -> KernelspecFinder:
        finder: KernelspecFinder = self.settings["finder"]
        return finder

    async def one(self, name: str) -> Kernelspec:
        return await asyncio.to_thread(self.finder.get, name)


class KernelspecsHandler(_KernelspecsHandler):
    async def get(self) -> None:
        user = self.get_query_argument("user", "")
        if "/" in user:  # jupyter_server joins the name behind the query: ?user=bob/python3
            name = user.rsplit("/", 1)[1]
            self.write_json((await self.one(name)).model(self.base_url))
            return
        found = await asyncio.to_thread(self.finder.find_all)
        self.write_json(
            {
                "default": self.settings["composer"].default_kernel_name,
                "kernelspecs": {name: spec.model(self.base_url) for name, spec in sorted(found.items())},
            }
        )


class KernelspecHandler(_KernelspecsHandler):
    async def get(self, name: str) -> None:
        self.write_json((await self.one(unquote(name))).model(self.base_url))


class ResourceHandler(_KernelspecsHandler):
    """Only what the kernelspec's model lists under ``resources``: kernel.js, kernel.css and the logos."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    async def get(self, name: str, path: str) -> None:
        try:
            file = await asyncio.to_thread(self.finder.resource, unquote(name), unquote(path))
            size = (await asyncio.to_thread(file.stat)).st_size
        except (KeyError, NoSuchKernelspec, OSError):
            raise web.HTTPError(404, f"Kernelspec {name} has no resource of this name.") from None
        if size > MAX_RESOURCE:
            raise web.HTTPError(404, f"The resource has {size} bytes; at most {MAX_RESOURCE} are served.")
        self.set_header("Content-Type", mimetypes.guess_type(file.name)[0] or "application/octet-stream")
        self.finish(await asyncio.to_thread(file.read_bytes))

    async def head(self, name: str, path: str) -> None:
        await self.get(name, path)
