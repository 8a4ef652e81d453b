"""The store: SQLAlchemy behind async methods.

Every call is one short transaction on a thread of the store's own (one for SQLite, a few for PostgreSQL), so
nothing here blocks the event loop. When a call is cancelled its transaction may still happen: who writes first and
acts later must be ready to find the row, which is what a reconciler does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from eg_core.errors import InvalidRequest
from eg_core.store import migrate, rows
from eg_core.store.cipher import Cipher
from eg_core.store.engine import POSTGRESQL_POOL, READ_ONLY, check_file, describe_url, make_engine, parse_url
from eg_core.store.errors import DuplicateKernel, StoreError, StoreUnavailable
from eg_core.store.quota import check_quota
from eg_core.store.records import KernelRecord, LauncherRecord, Quota, SessionRecord
from eg_core.store.schema import KernelRow, LauncherRow, SecretRow, SessionRow

__all__ = ["DuplicateKernel", "KernelRecord", "LauncherRecord", "Store", "StoreError", "StoreUnavailable"]

_Result = TypeVar("_Result")
_FIXED_FIELDS = ("kernel_id", "created_at")
_ATTEMPTS = 5


class Store:
    """``url`` is SQLAlchemy's (``sqlite:////folder/eg.db``, ``postgresql://…``); ``key`` is from ``keys.load_key``."""

    def __init__(self, url: str, key: bytes) -> None:
        self._url = parse_url(url)
        self._cipher = Cipher(key)
        self._engine: Engine | None = None
        self._executor: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<Store {describe_url(self._url)}>"

    async def open(self) -> str:
        """Bring the schema up to date; return the gateway id. Raises StoreError or StoreUnavailable in words."""
        threads = 1 if self._url.get_backend_name() == "sqlite" else POSTGRESQL_POOL
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="eg-store")
        try:
            return await self._run(self._open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what has begun and disconnect. Safe to call twice."""
        executor, self._executor = self._executor, None
        if executor is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, lambda: executor.shutdown(wait=True))
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.dispose)

    async def ping(self) -> None:
        """Raises StoreUnavailable if the database does not answer."""
        await self._run(lambda: self._read(select(1)))

    # -- kernels --------------------------------------------------------------------------------------------

    async def add_kernel(self, record: KernelRecord, *, quota: Quota | None = None) -> None:
        """Raises DuplicateKernel when the id exists, InvalidRequest for a field out of bounds, LaunchDenied when
        ``quota`` is used up."""
        values = rows.kernel_values(record, self._cipher)
        await self._run(lambda: self._add_kernel(record.kernel_id, values, quota))

    async def kernels(self) -> list[KernelRecord]:
        """All of them, oldest first."""
        return await self._run(self._kernels)

    async def update_kernel(
        self, kernel_id: str, *, expect: str | None = None, quota: Quota | None = None, **fields: Any
    ) -> KernelRecord | None:
        """Change fields and ``updated_at``; None if the row is gone or its state is not ``expect``. Raises
        LaunchDenied when ``quota`` is used up by others."""
        for name in fields:
            if name not in rows.KERNEL_FIELDS or name in _FIXED_FIELDS:
                raise TypeError(f"a kernel's {name} cannot be updated")
        fields.setdefault("updated_at", time.time())
        values = rows.changed_values(kernel_id, fields, self._cipher)
        return await self._run(lambda: self._update_kernel(kernel_id, expect, values, quota))

    async def remove_kernel(self, kernel_id: str) -> None:
        """Gone already is success."""
        await self._run(lambda: self._delete(KernelRow, KernelRow.kernel_id, kernel_id))

    # -- launchers ------------------------------------------------------------------------------------------

    async def add_launcher(self, record: LauncherRecord) -> None:
        values = rows.launcher_values(record, self._cipher)
        await self._run(lambda: self._add_launcher(values))

    async def launchers(self) -> list[LauncherRecord]:
        return await self._run(self._launchers)

    async def remove_launcher(self, launcher_id: str) -> None:
        """Gone already is success."""
        await self._run(lambda: self._delete(LauncherRow, LauncherRow.launcher_id, launcher_id))

    # -- sessions -------------------------------------------------------------------------------------------

    async def add_session(self, record: SessionRecord) -> None:
        values = rows.session_values(record)
        await self._run(lambda: self._write(insert(SessionRow).values(values)))

    async def sessions(self) -> list[SessionRecord]:
        """All of them, oldest first; also those whose kernel is gone."""
        return await self._run(self._sessions)

    async def update_session(self, record: SessionRecord) -> bool:
        """Write every field; False if the row is gone."""
        values = rows.session_values(record)
        where = SessionRow.session_id == record.session_id
        return bool(await self._run(lambda: self._write(update(SessionRow).where(where).values(values))))

    async def remove_session(self, session_id: str) -> bool:
        """False if it is gone already."""
        where = SessionRow.session_id == session_id
        return bool(await self._run(lambda: self._write(delete(SessionRow).where(where))))

    # -- secrets --------------------------------------------------------------------------------------------

    async def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The secret of that name; made by ``make`` (on the store's thread) if there is none. All callers,
        in all processes, get the same one."""
        rows.check_name("name", name)
        return await self._run(lambda: self._secret(name, make))

    # -- on the store's thread ------------------------------------------------------------------------------

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        if self._executor is None:
            raise StoreError("The store is not open.", reason="store_closed")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._translate, work)

    def _translate(self, work: Callable[[], _Result]) -> _Result:
        try:
            return work()
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise StoreUnavailable(
                "The gateway's store does not answer or cannot be written now; try again shortly.",
                detail=f"{describe_url(self._url)}: {type(cause).__name__}: {cause}",
            ) from error

    def _open(self) -> str:
        self._engine = make_engine(self._url)
        check_file(self._engine)
        return migrate.prepare(self._engine, self._cipher)

    @property
    def _opened(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def _add_kernel(self, kernel_id: str, values: dict[str, Any], quota: Quota | None) -> None:
        for _attempt in range(_ATTEMPTS):  # the row in the way may be removed before it is read
            try:
                with self._opened.begin() as connection:
                    if quota is not None:
                        check_quota(connection, quota, kernel_id, values["owner"])
                    connection.execute(insert(KernelRow).values(values))
                    return
            except IntegrityError:
                existing = self._read(select(KernelRow).where(KernelRow.kernel_id == kernel_id))
                if existing:
                    raise DuplicateKernel(rows.kernel_record(existing[0], self._cipher)) from None
        raise StoreUnavailable(f"The kernel id {kernel_id} is being taken and given up all the time; try again.")

    def _kernels(self) -> list[KernelRecord]:
        found = self._read(select(KernelRow).order_by(KernelRow.created_at, KernelRow.kernel_id))
        return [rows.kernel_record(row, self._cipher) for row in found]

    def _update_kernel(
        self, kernel_id: str, expect: str | None, values: dict[str, Any], quota: Quota | None
    ) -> KernelRecord | None:
        change = update(KernelRow).where(KernelRow.kernel_id == kernel_id)
        if expect is not None:
            change = change.where(KernelRow.state == expect)
        with self._opened.begin() as connection:
            if quota is not None:
                check_quota(connection, quota, kernel_id, None)
            if connection.execute(change.values(values)).rowcount == 0:
                return None
            row = connection.execute(select(KernelRow).where(KernelRow.kernel_id == kernel_id)).mappings().one()
            return rows.kernel_record(dict(row), self._cipher)

    def _add_launcher(self, values: dict[str, Any]) -> None:
        try:
            with self._opened.begin() as connection:
                connection.execute(insert(LauncherRow).values(values))
        except IntegrityError:
            raise InvalidRequest(f"The launcher id {values['launcher_id']} is in use.") from None

    def _launchers(self) -> list[LauncherRecord]:
        found = self._read(select(LauncherRow).order_by(LauncherRow.created_at, LauncherRow.launcher_id))
        return [rows.launcher_record(row, self._cipher) for row in found]

    def _sessions(self) -> list[SessionRecord]:
        found = self._read(select(SessionRow).order_by(SessionRow.created_at, SessionRow.session_id))
        return [SessionRecord(**row) for row in found]

    def _secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        place = f"secrets/{name}"
        for _attempt in range(_ATTEMPTS):
            found = self._read(select(SecretRow).where(SecretRow.name == name))
            if found:
                return self._cipher.unseal(found[0]["value"], place)
            secret = make()
            if len(secret) > rows.MAX_SECRET:
                raise ValueError(f"the secret {name} has {len(secret)} bytes; at most {rows.MAX_SECRET} are allowed")
            try:
                with self._opened.begin() as connection:
                    connection.execute(insert(SecretRow).values(name=name, value=self._cipher.seal(secret, place)))
            except IntegrityError:
                continue  # another process was first: theirs counts
            return secret
        raise StoreUnavailable(f"The secret {name} could not be read from the gateway's store; try again.")

    def _read(self, statement: Any) -> list[Mapping[str, Any]]:
        with self._opened.connect().execution_options(**READ_ONLY) as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def _delete(self, kind: type[Any], key: InstrumentedAttribute[str], value: str) -> None:
        self._write(delete(kind).where(key == value))

    def _write(self, statement: Any) -> int:
        """How many rows it touched."""
        with self._opened.begin() as connection:
            return int(connection.execute(statement).rowcount)
