"""What can go wrong with the store, as types of the gateway's own tree."""

from __future__ import annotations

from eg_core.errors import BackendUnavailable, GatewayError
from eg_core.store.records import KernelRecord


class StoreError(GatewayError):
    """The store cannot be used as it is: another key, a newer schema, a damaged row. Trying again doesn't help."""

    reason = "store_unusable"


class StoreUnavailable(BackendUnavailable):
    """The database does not answer, is locked, or its disk is full. Trying again may help."""

    reason = "store_unavailable"


class DuplicateKernel(GatewayError):
    """The kernel id is taken; ``existing`` is by what (it may be another user's: show it to nobody)."""

    reason = "duplicate_kernel"

    def __init__(self, existing: KernelRecord) -> None:
        super().__init__(f"The kernel id {existing.kernel_id} is in use; choose another one.")
        self.existing = existing
