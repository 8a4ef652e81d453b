"""``/api/kernelspecs`` and the declared resources below ``/kernelspecs``."""

from __future__ import annotations

import asyncio
import mimetypes
from urllib.parse import unquote

from tornado import web

from eg_core.errors import InvalidRequest, NoSuchKernelspec
from eg_core.handlers.base import GatewayHandler
from eg_core.kernels.access import Access
from eg_core.kernelspecs.finder import Kernelspec, KernelspecFinder

MAX_RESOURCE = 4 * 1024 * 1024


class _KernelspecsHandler(GatewayHandler):
    @property
    def finder(self) -> KernelspecFinder:
        finder: KernelspecFinder = self.settings["finder"]
        return finder

    async def one(self, name: str, user: str = "") -> Kernelspec:
        """Raises NoSuchKernelspec, or LaunchDenied if ``user`` may not use it."""
        spec = await asyncio.to_thread(self.finder.get, name)
        if user:
            self.access.check(user, spec.options, named=True)
        return spec

    @property
    def access(self) -> Access:
        access: Access = self.settings["composer"].access
        return access

    def may_use(self, user: str, spec: Kernelspec) -> bool:
        try:
            return not user or self.access.why_not(user, spec.options) is None
        except InvalidRequest as error:
            self.log.warning("kernelspec %s is shown to nobody: %s", spec.name, error)
            return False


class KernelspecsHandler(_KernelspecsHandler):
    async def get(self) -> None:
        user = self.get_query_argument("user", "")
        if "/" in user:  # jupyter_server joins the name behind the query: ?user=bob/python3
            user, name = user.rsplit("/", 1)
            self.write_json((await self.one(unquote(name), user)).model(self.base_url))
            return
        found = await asyncio.to_thread(self.finder.find_all)
        self.write_json(
            {
                "default": self.settings["composer"].default_kernel_name,
                "kernelspecs": {
                    name: spec.model(self.base_url) for name, spec in sorted(found.items()) if self.may_use(user, spec)
                },
            }
        )


class KernelspecHandler(_KernelspecsHandler):
    async def get(self, name: str) -> None:
        self.write_json((await self.one(unquote(name), self.get_query_argument("user", ""))).model(self.base_url))


class ResourceHandler(_KernelspecsHandler):
    """Only what the kernelspec's model lists under ``resources``: kernel.js, kernel.css and the logos."""

    SUPPORTED_METHODS = ("GET", "HEAD", "OPTIONS")

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
