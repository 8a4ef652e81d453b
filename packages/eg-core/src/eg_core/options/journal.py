"""How much of what a kernel has said its launcher keeps, for clients that come back."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Float, Integer

from eg_core.options.names import EnterpriseGatewayConfigMixin

MEBIBYTE = 1024 * 1024


class JournalOptions(EnterpriseGatewayConfigMixin):
    """Kernels that are started from now on get them."""

    journal_memory = Integer(
        32 * MEBIBYTE, min=0, help="Bytes of a kernel's messages that its launcher keeps in memory."
    ).tag(config=True)
    journal_disk = Integer(
        1024 * MEBIBYTE, min=0, help="Bytes that it keeps on disk beyond that, before the oldest are lost; 0: none."
    ).tag(config=True)
    journal_age = Float(7 * 86400.0, min=1.0, help="Seconds that it keeps them.").tag(config=True)
    replay = Bool(
        True, help="Whether a client that comes back gets what it may have missed; False: only what is live."
    ).tag(config=True)

    def journal(self) -> dict[str, Any]:
        """The launcher protocol's *journal*."""
        return {
            "memory": self.journal_memory,
            "disk": self.journal_disk,
            "age": self.journal_age,
            "replay": self.replay,
        }
