"""Looking at a store changes nothing and says what is the matter."""

import base64
import sqlite3

import pytest

from eg_core.store.errors import StoreError, StoreUnavailable
from eg_core.store.keys import load_key
from eg_core.store.look import look
from eg_core.store.store import Store


@pytest.fixture
async def made(tmp_path):
    url = f"sqlite:///{tmp_path / 'eg.db'}"
    store = Store(url, load_key(tmp_path, None))
    await store.open()
    await store.close()
    return url


def test_no_store_yet(tmp_path):
    assert "will be made" in look(f"sqlite:///{tmp_path / 'no' / 'eg.db'}", tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_a_good_store(made, tmp_path):
    assert "the key is its own" in look(made, tmp_path, None)


def test_another_key_is_said(made, tmp_path):
    other = base64.b64encode(b"x" * 32).decode()
    with pytest.raises(StoreError, match="another key"):
        look(made, tmp_path, other)


def test_a_lost_key_is_said_and_no_new_one_made(made, tmp_path):
    (tmp_path / "store.key").unlink()
    with pytest.raises(StoreError, match="a key that is gone"):
        look(made, tmp_path, None)
    assert not (tmp_path / "store.key").exists()


def test_a_newer_schema_is_said(made, tmp_path):
    with sqlite3.connect(tmp_path / "eg.db") as connection:
        connection.execute("UPDATE eg_schema SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        look(made, tmp_path, None)


def test_what_is_no_database_is_said(tmp_path):
    (tmp_path / "eg.db").write_bytes(b"not a database, but long enough to look like a file of some kind" * 20)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        look(f"sqlite:///{tmp_path / 'eg.db'}", tmp_path, None)
