"""Sessions: which document uses which kernel. Recorded in the store, for kernels outlive the gateway.

A session lives as long as its kernel: what is found without one is forgotten at the next look. The same document of
the same owner is the same session.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from eg_core.errors import KernelGone
from eg_core.kernels.kernel import Kernel
from eg_core.kernels.registry import KernelRegistry
from eg_core.kernels.states import KernelState
from eg_core.store.records import SessionRecord


@dataclass(frozen=True)
class Session:
    record: SessionRecord
    kernel: Kernel

    @property
    def id(self) -> str:
        return self.record.session_id

    def model(self) -> dict[str, Any]:
        """Enterprise Gateway's fields (``id``, ``notebook.path``, ``kernel``) and Jupyter Server's."""
        record = self.record
        return {
            "id": record.session_id,
            "path": record.path,
            "name": record.name,
            "type": record.type,
            "notebook": {"path": record.path, "name": record.name},
            "kernel": self.kernel.model(),
        }


class Sessions:
    def __init__(self, registry: KernelRegistry) -> None:
        self._registry = registry
        self._store = registry.store
        self._lock = asyncio.Lock()

    async def all(self) -> list[Session]:
        """All whose kernel is there; the others are forgotten."""
        found = []
        for record in await self._store.sessions():
            session = self._session(record)
            if session is None:
                await self._store.remove_session(record.session_id)
            else:
                found.append(session)
        return found

    async def get(self, session_id: str) -> Session:
        """Raises KernelGone."""
        session = self._session(await self._record(session_id))
        if session is None:
            raise KernelGone(f"Session not found: session_id={session_id!r} (its kernel has ended).")
        return session

    async def open(
        self, *, path: str, name: str, kind: str, owner: str, kernel: Callable[[], Awaitable[Kernel]]
    ) -> tuple[Session, bool]:
        """The session of a document, made with what ``kernel`` gives if there is none; (session, made)."""
        async with self._lock:
            for session in await self.all():
                if (session.record.path, session.record.owner) != (path, owner):
                    continue
                if session.kernel.state is not KernelState.DEAD:
                    return session, False
                await self._store.remove_session(session.id)
            used = await kernel()
            record = SessionRecord(str(uuid.uuid4()), used.id, owner, path, name, kind, time.time())
            await self._store.add_session(record)
            return Session(record, used), True

    async def change(
        self, session_id: str, *, path: str | None, name: str | None, kind: str | None, kernel: Kernel | None
    ) -> Session:
        """Give it another path, name, type or kernel; a kernel that no session uses any more is ended."""
        async with self._lock:
            old = await self._record(session_id)
            new = replace(
                old,
                path=old.path if path is None else path,
                name=old.name if name is None else name,
                type=old.type if kind is None else kind,
                kernel_id=old.kernel_id if kernel is None else kernel.id,
            )
            if not await self._store.update_session(new):
                raise self._unknown(session_id)
            if new.kernel_id != old.kernel_id and not any(s.kernel.id == old.kernel_id for s in await self.all()):
                await self._end(old.kernel_id)
        return await self.get(session_id)

    async def close(self, session_id: str) -> bool:
        """End it and its kernel; False if the kernel was ended before."""
        record = await self._record(session_id)
        await self._store.remove_session(session_id)
        return await self._end(record.kernel_id)

    async def forget(self, session: Session) -> None:
        """Its kernel never came to life."""
        await self._store.remove_session(session.id)

    async def _end(self, kernel_id: str) -> bool:
        try:
            await self._registry.end(kernel_id)
        except KernelGone:
            return False
        return True

    async def _record(self, session_id: str) -> SessionRecord:
        for record in await self._store.sessions():
            if record.session_id == session_id:
                return record
        raise self._unknown(session_id)

    def _session(self, record: SessionRecord) -> Session | None:
        try:
            return Session(record, self._registry.kernel(record.kernel_id))
        except KernelGone:
            return None

    @staticmethod
    def _unknown(session_id: str) -> KernelGone:
        return KernelGone(f"Session not found: session_id={session_id!r}", reason="no_such_session")
