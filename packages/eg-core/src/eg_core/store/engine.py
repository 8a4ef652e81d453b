"""An SQLAlchemy engine for SQLite or PostgreSQL, with the manners the store relies on.

SQLite: a file that only the gateway's user can read, WAL, foreign keys, transactions that really are (the driver's
own implicit BEGIN comes too late), and a write takes its lock at once, so that it waits instead of failing.
A write that was answered survives the death of the process; that of the machine may cost the last moments.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from eg_core.store.errors import StoreError

READ_ONLY = {"eg_read_only": True}
"""Execution options of a connection that only reads: in SQLite it takes no write lock."""

POSTGRESQL_POOL = 4
_BUSY_SECONDS = 5.0


def parse_url(text: str) -> URL:
    """Refuses, in words, what the store cannot use. Never repeats the URL, which may hold a password."""
    if text.startswith("postgres://"):  # as many platforms write it; SQLAlchemy does not know it
        text = "postgresql" + text.removeprefix("postgres")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise StoreError("The store's URL cannot be parsed; it looks like sqlite:////folder/eg.db.") from error
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(f"The store's URL names {url.get_backend_name()}; sqlite and postgresql are supported.")
    return url


def describe_url(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return url.database or "memory"
    return f"postgresql at {url.host or url.query.get('host') or 'localhost'}, database {url.database}"


def make_engine(url: URL) -> Engine:
    """Blocking. Does not connect yet."""
    try:
        if url.get_backend_name() == "sqlite":
            return _make_sqlite_engine(url)
        return create_engine(
            url,
            hide_parameters=True,
            pool_size=POSTGRESQL_POOL,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10},
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError(
            f"The driver for {url.drivername} is not installed; run: pip install 'eg-core[postgresql]'"
        ) from error


def check_file(engine: Engine) -> None:
    """Raises StoreError when a SQLite file is damaged, before anything is written to it. A few ms a MiB."""
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(**READ_ONLY) as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if found != "ok":
            raise StoreError(
                f"The store ({describe_url(engine.url)}) is damaged: {found[:200]}. It was left as it is. Bring back a "
                "copy, or move it away and start anew: its kernels then end when their lease is over.",
                reason="store_damaged",
            )


def _make_sqlite_engine(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        _prepare_file(Path(url.database))
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _prepare_file(path: Path) -> None:
    """The file exists with mode 0600 before SQLite opens it; the journals beside it inherit that."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"The store {path} cannot be opened: {error.strerror}.") from error


def _on_sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_on_sqlite_begin` does
    for pragma in ("foreign_keys=ON", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:  # two openers at once: SQLite does not wait for this lock by itself
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _on_sqlite_begin(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("eg_read_only")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
