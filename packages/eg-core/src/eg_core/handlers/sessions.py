"""``/api/sessions``, in both ways of writing: Jupyter Server's (``path``, ``type``) and the older ``notebook.path``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eg_core.errors import GatewayError, InvalidRequest
from eg_core.handlers.starting import StartingHandler, text_of
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.requests import KernelRequest
from eg_core.kernels.sessions import Session, Sessions

MAX_TYPE = 255


class _SessionHandler(StartingHandler):
    @property
    def sessions(self) -> Sessions:
        sessions: Sessions = self.settings["sessions"]
        return sessions

    def kernel_of(self, body: Mapping[str, Any]) -> tuple[Kernel | None, KernelRequest]:
        """The running kernel that a body names, if it names one, and what to start otherwise."""
        wanted = _object(body, "kernel")
        kernel_id = text_of(wanted, "id")
        kernel = self.registry.kernel(kernel_id.lower()) if kernel_id else None
        return kernel, self.kernel_request({"name": text_of(wanted, "name"), "env": body.get("env")})


class SessionsHandler(_SessionHandler):
    async def get(self) -> None:
        self.check_listing()
        self.write_json([session.model() for session in await self.sessions.all()])

    async def post(self) -> None:
        if not self.request.body.strip():
            raise InvalidRequest("No JSON data provided")
        body = self.json_body()
        path, name, kind = _document(body)
        kernel, request = self.kernel_of(body)
        owner = self.composer.owner(request.env) if kernel is None else kernel.record.owner

        async def used() -> Kernel:
            return kernel or await self.begin(request)

        session, made = await self.sessions.open(path=path, name=name, kind=kind, owner=owner, kernel=used)
        await self._settle(session, request, made=made)
        self.set_header("Location", f"{self.base_url}api/sessions/{session.id}")
        self.write_json(session.model(), 201)

    async def _settle(self, session: Session, request: KernelRequest, *, made: bool) -> None:
        try:
            await self.settle(session.kernel, request.env)
        except GatewayError:
            if made:
                await self.sessions.forget(session)
            raise


class SessionHandler(_SessionHandler):
    async def get(self, session_id: str) -> None:
        self.write_json((await self.sessions.get(session_id)).model())

    async def patch(self, session_id: str) -> None:
        if not self.request.body.strip():
            raise InvalidRequest("No JSON data provided")
        body = self.json_body()
        await self.sessions.get(session_id)
        notebook = _object(body, "notebook")
        kernel, request = self.kernel_of(body)
        path, name = (text_of(body, field) or text_of(notebook, field) for field in ("path", "name"))
        kind = _type(body) or None
        begun = kernel is None and bool(request.name)
        if begun:
            kernel = await self.begin(request)
            await self.settle(kernel, request.env)
        try:
            session = await self.sessions.change(session_id, path=path, name=name, kind=kind, kernel=kernel)
        except GatewayError:
            if begun and kernel is not None:  # the session was ended meanwhile
                self.registry.spawn(self.end_quietly(kernel.id, "request_failed"))
            raise
        self.write_json(session.model())

    async def delete(self, session_id: str) -> None:
        if await self.sessions.close(session_id):
            self.set_status(204)
        else:
            self.write_json({"reason": "Gone", "message": "Kernel deleted before session"}, 410)


def _document(body: Mapping[str, Any]) -> tuple[str, str, str]:
    """Path, name and type."""
    notebook = _object(body, "notebook")
    if "path" in notebook:
        path, kind = text_of(notebook, "path"), _type(body) or "notebook"
    else:
        path, kind = text_of(body, "path"), _type(body)
    if path is None:
        raise InvalidRequest("Missing field in JSON data: path")
    if not kind:
        raise InvalidRequest("Missing field in JSON data: type")
    return path, text_of(notebook, "name") or text_of(body, "name") or "", kind


def _type(body: Mapping[str, Any]) -> str:
    kind = text_of(body, "type") or ""
    if len(kind) > MAX_TYPE or not kind.isprintable():
        raise InvalidRequest(f"'type' must have at most {MAX_TYPE} characters, and none that cannot be printed.")
    return kind


def _object(body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{field!r} must be an object.")
    return value
