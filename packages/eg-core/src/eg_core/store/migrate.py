"""Brings a store to the newest schema when it is opened, and gives it its identity and its key check.

All of it is one transaction under one lock, so processes that open a new store at the same time get the same identity,
and a killed one leaves nothing half done. A store that is up to date is opened without loading alembic.
"""

from __future__ import annotations

import base64
import threading
import uuid
from pathlib import Path

from sqlalchemy import Connection, Engine, Text, column, insert, inspect, select, table, text

from eg_core.store.cipher import Cipher
from eg_core.store.engine import READ_ONLY, describe_url
from eg_core.store.errors import StoreError
from eg_core.store.schema import REVISION, VERSION_TABLE, MetaRow

MIGRATIONS = Path(__file__).parent / "migrations"
_POSTGRESQL_LOCK = 0x65675F73746F7265  # "eg_store", as pg_advisory_xact_lock's number
_KEY_CHECK = "key_check"
_GATEWAY_ID = "gateway_id"

# alembic's `op` and `context` are globals of the process: one migration at a time.
_alembic_lock = threading.Lock()


def prepare(engine: Engine, cipher: Cipher) -> str:
    """Returns the gateway id. Blocking. Raises StoreError for a newer schema or another key."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        if current_revision(connection) == REVISION:
            return _check_identity(connection, cipher)
    with _alembic_lock, engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _POSTGRESQL_LOCK})
        revision = current_revision(connection)
        if revision is not None:
            check(connection, cipher, revision)
        upgrade(connection)
        if revision is None:
            _give_identity(connection, cipher)
        return _check_identity(connection, cipher)


def check(connection: Connection, cipher: Cipher, revision: str) -> None:
    """Raises StoreError for a newer schema or another key."""
    _refuse_unknown(connection, revision)
    _check_identity(connection, cipher)


def current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    versions = table(VERSION_TABLE, column("version_num", Text))
    return connection.execute(select(versions.c.version_num)).scalar()


def upgrade(connection: Connection) -> None:
    """Run the migrations inside the connection's transaction."""
    from alembic import command  # noqa: PLC0415 - costs 0.1 s, and almost no start needs it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _refuse_unknown(connection: Connection, revision: str) -> None:
    known = {path.stem.split("_")[0].removeprefix("v") for path in (MIGRATIONS / "versions").glob("v*.py")}
    if revision not in known:
        raise StoreError(
            f"The store ({describe_url(connection.engine.url)}) has schema {revision}, made by a newer version of this "
            f"program; this one knows schemas up to {REVISION}. Upgrade this gateway, or give it a store of its own."
        )


def _give_identity(connection: Connection, cipher: Cipher) -> None:
    check = base64.b64encode(cipher.seal(_KEY_CHECK.encode(), _place())).decode()
    rows = [{"name": _GATEWAY_ID, "value": uuid.uuid4().hex}, {"name": _KEY_CHECK, "value": check}]
    connection.execute(insert(MetaRow), rows)


def _check_identity(connection: Connection, cipher: Cipher) -> str:
    meta: dict[str, str] = {row.name: row.value for row in connection.execute(select(MetaRow.name, MetaRow.value))}
    where = describe_url(connection.engine.url)
    try:
        cipher.unseal(base64.b64decode(meta[_KEY_CHECK]), _place())
        return meta[_GATEWAY_ID]
    except KeyError as error:
        raise StoreError(f"The store ({where}) lacks its {error.args[0]}.") from error
    except (StoreError, ValueError) as error:
        raise StoreError(
            f"The store ({where}) was written with another key. Give this gateway the key that the store was made with "
            "(EG_STORE_KEY, or store.key in its data folder); if that is lost, move the store away and start anew: its "
            "kernels then end when their lease is over.",
            reason="store_key",
        ) from error


def _place() -> str:
    return f"meta/{_KEY_CHECK}"
