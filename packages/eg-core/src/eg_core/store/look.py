"""Look at a store without changing it: for ``eg doctor``."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from eg_core.store import migrate
from eg_core.store.cipher import Cipher
from eg_core.store.engine import READ_ONLY, describe_url, make_engine, parse_url
from eg_core.store.errors import StoreError, StoreUnavailable
from eg_core.store.keys import KEY_FILE, load_key
from eg_core.store.schema import REVISION


def look(url: str, data_dir: Path, environ_key: str | None) -> str:
    """A sentence about what is there. Blocking. Raises StoreError or StoreUnavailable in words."""
    parsed = parse_url(url)
    where = describe_url(parsed)
    is_file = parsed.get_backend_name() == "sqlite"
    if is_file and (not parsed.database or not Path(parsed.database).exists()):
        return f"There is no store yet; {where} will be made."
    engine = make_engine(parsed)
    try:
        return _look(engine, where, data_dir, environ_key)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise StoreUnavailable(f"The store ({where}) does not answer: {cause}") from error
    finally:
        engine.dispose()


def _look(engine: Engine, where: str, data_dir: Path, environ_key: str | None) -> str:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        revision = migrate.current_revision(connection)
        if revision is None:
            return f"The store ({where}) answers and is empty."
        if not environ_key and not (data_dir / KEY_FILE).exists():
            raise StoreError(
                f"The store ({where}) was made with a key that is gone: there is no {data_dir / KEY_FILE}, and "
                "EG_STORE_KEY is not set.",
                reason="store_key",
            )
        migrate.check(connection, Cipher(load_key(data_dir, environ_key)), revision)
        newer = "" if revision == REVISION else f"; its schema {revision} will be brought to {REVISION}"
        return f"The store ({where}) answers and the key is its own{newer}."
