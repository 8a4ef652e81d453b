"""alembic's way in: the store's own connection and transaction, or for a developer a database given with `-x url=…`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from eg_core.store.schema import VERSION_TABLE, Base


def run(connection: Connection) -> None:
    # SQLite's DDL is transactional, given a real BEGIN; alembic would not believe it by itself.
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        transactional_ddl=True,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as own:
        run(own)
