"""How many kernels there may be, checked in the transaction that writes the row, so that racing starts cannot pass.

SQLite lets one writer in at a time anyway; PostgreSQL takes a lock that ends with the transaction.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

from eg_core.errors import LaunchDenied
from eg_core.store.records import Quota
from eg_core.store.schema import KernelRow

_POSTGRESQL_LOCK = 0x65675F71756F7461  # "eg_quota", as pg_advisory_xact_lock's number


def check_quota(connection: Connection, quota: Quota, kernel_id: str, owner: str | None) -> None:
    """Raises LaunchDenied if one more kernel, of ``owner`` (None: of whoever has this one), is one too many."""
    if not quota.limits:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _POSTGRESQL_LOCK})
    if owner is None:
        owner = connection.execute(select(KernelRow.owner).where(KernelRow.kernel_id == kernel_id)).scalar()
    others = (
        select(func.count())
        .select_from(KernelRow)
        .where(KernelRow.state.in_(sorted(quota.states)), KernelRow.kernel_id != kernel_id)
    )
    if quota.total is not None and (count := connection.execute(others).scalar_one()) >= quota.total:
        raise LaunchDenied(
            f"Resource Limit: {count} kernels run here and max_kernels is {quota.total}; end one and try again.",
            reason="max_kernels",
        )
    if quota.per_owner is not None:
        count = connection.execute(others.where(KernelRow.owner == owner)).scalar_one()
        if count >= quota.per_owner:
            raise LaunchDenied(
                f"Resource Limit: user {owner!r} has {count} kernels here and max_kernels_per_user is "
                f"{quota.per_owner}; end one and try again.",
                reason="max_kernels_per_user",
            )
