"""The tables. Their history is in ``migrations``; a test holds both together.

Names start with ``eg_``, for a PostgreSQL database may be shared. JSON is text (bounded and checked in ``rows``),
because nothing is ever looked up inside it; what may hold a secret is sealed bytes.
"""

from __future__ import annotations

from sqlalchemy import Double, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

REVISION = "0002"
"""The newest migration. A store that says so is opened without loading alembic."""

VERSION_TABLE = "eg_schema"

NAME_LENGTH = 255
PATH_LENGTH = 4096


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_name)s"})


class MetaRow(Base):
    """About the store itself. The first thing that is read; so this table never changes."""

    __tablename__ = "eg_meta"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class KernelRow(Base):
    __tablename__ = "eg_kernels"

    kernel_id: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    kernelspec: Mapped[str] = mapped_column(String(NAME_LENGTH))
    backend: Mapped[str] = mapped_column(String(NAME_LENGTH))
    owner: Mapped[str] = mapped_column(String(NAME_LENGTH))
    run_as: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    state: Mapped[str] = mapped_column(String(NAME_LENGTH))
    reason: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    message: Mapped[str | None] = mapped_column(Text)
    options: Mapped[bytes] = mapped_column(LargeBinary)
    labels: Mapped[str] = mapped_column(Text)
    start: Mapped[bytes] = mapped_column(LargeBinary)
    handle: Mapped[str | None] = mapped_column(Text)
    process: Mapped[str | None] = mapped_column(Text)
    exit: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[float] = mapped_column(Double)


class SessionRow(Base):
    __tablename__ = "eg_sessions"

    session_id: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    kernel_id: Mapped[str] = mapped_column(String(NAME_LENGTH))
    owner: Mapped[str] = mapped_column(String(NAME_LENGTH))
    path: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(String(NAME_LENGTH))
    created_at: Mapped[float] = mapped_column(Double)


class LauncherRow(Base):
    __tablename__ = "eg_launchers"

    launcher_id: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    backend: Mapped[str] = mapped_column(String(NAME_LENGTH))
    token: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[float] = mapped_column(Double)


class SecretRow(Base):
    __tablename__ = "eg_secrets"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)
