"""The schema's history: complete, in one transaction, and never backwards."""

import contextlib
import sqlite3
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from eg_core.store import migrate
from eg_core.store.cipher import Cipher
from eg_core.store.engine import make_engine, parse_url
from eg_core.store.errors import StoreError
from eg_core.store.schema import REVISION, VERSION_TABLE, Base
from eg_core.store.store import Store

KEY = bytes(32)


@pytest.fixture
def engine(tmp_path):
    engine = make_engine(parse_url(f"sqlite:///{tmp_path}/eg 100%.db"))
    yield engine
    engine.dispose()


def edit(tmp_path, *statements):
    with contextlib.closing(sqlite3.connect(tmp_path / "eg 100%.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_migrations_make_the_tables_of_the_models(engine):
    with engine.begin() as connection:
        migrate.upgrade(connection)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert migrate.current_revision(connection) == REVISION


def test_there_is_one_line_of_revisions_and_the_code_knows_its_end():
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [REVISION]
    for revision in script.walk_revisions():
        assert revision.module.__name__.split("_")[0] == f"v{revision.revision}"


def test_a_prepared_store_stays_as_it_is(engine):
    first = migrate.prepare(engine, Cipher(KEY))
    with engine.begin() as connection:
        migrate.upgrade(connection)
    assert migrate.prepare(engine, Cipher(KEY)) == first


def test_a_failed_migration_leaves_nothing(engine, monkeypatch):
    def fail(*_):
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_give_identity", fail)
        with pytest.raises(RuntimeError):
            migrate.prepare(engine, Cipher(KEY))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM sqlite_master").fetchall() == []
    assert len(migrate.prepare(engine, Cipher(KEY))) == 32


def test_a_newer_schema_is_refused_before_anything_is_read(engine, tmp_path):
    migrate.prepare(engine, Cipher(KEY))
    edit(tmp_path, f"UPDATE {VERSION_TABLE} SET version_num = '0999'", "DROP TABLE eg_meta")
    with pytest.raises(StoreError, match=r"eg 100%\.db\) has schema 0999.*newer version.*Upgrade this gateway"):
        migrate.prepare(engine, Cipher(KEY))


def test_an_older_store_with_another_key_is_left_alone(engine, tmp_path, monkeypatch):
    migrate.prepare(engine, Cipher(KEY))
    monkeypatch.setattr(migrate, "REVISION", "0998")
    monkeypatch.setattr(migrate, "upgrade", lambda _: pytest.fail("migrated with a wrong key"))
    with pytest.raises(StoreError, match="another key"):
        migrate.prepare(engine, Cipher(bytes(31) + b"x"))


@pytest.mark.parametrize("name", ["gateway_id", "key_check"])
def test_a_store_without_identity_is_refused(engine, tmp_path, name):
    migrate.prepare(engine, Cipher(KEY))
    edit(tmp_path, f"DELETE FROM eg_meta WHERE name = '{name}'")
    with pytest.raises(StoreError, match=f"lacks its {name}"):
        migrate.prepare(engine, Cipher(KEY))


def test_a_file_that_is_no_database_is_told_in_words(tmp_path):
    import asyncio

    (tmp_path / "eg.db").write_bytes(b"hello" * 1000)
    with pytest.raises(Exception, match="store") as caught:
        asyncio.run(Store(f"sqlite:///{tmp_path}/eg.db", KEY).open())
    assert "not a database" in caught.value.detail


def test_an_up_to_date_store_opens_without_alembic(tmp_path):
    code = f"""
import asyncio, sys
from eg_core.store.store import Store
async def main():
    store = Store("sqlite:///{tmp_path}/eg.db", bytes(32))
    await store.open()
    await store.close()
asyncio.run(main())
print("alembic" in sys.modules)
"""
    told = [subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True) for _ in (1, 2)]
    assert [process.stdout.strip() for process in told] == ["True", "False"]
