"""When kernels are ended that nobody needs, and what the launchers limit; under all names that files know them by."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Float, Integer, TraitError, Unicode, validate

from eg_core.kernels.culling import CullPolicy
from eg_core.options.names import KernelManagerNames
from eg_core.traits import Names

CULL_INTERVAL = 300.0


class CullingOptions(KernelManagerNames):
    cull_idle_timeout = Float(
        0.0,
        min=0.0,
        help="Seconds without activity after which a kernel is ended; 0: never. A kernelspec's own value "
        "(metadata.cull_idle_timeout, or metadata.eg.cull_idle_timeout) wins (EG_CULL_IDLE_TIMEOUT).",
    ).tag(config=True)
    cull_interval = Float(
        CULL_INTERVAL, help="Seconds between two looks for kernels that are to be ended (EG_CULL_INTERVAL)."
    ).tag(config=True)
    cull_connected = Bool(
        True,
        help="End an idle kernel also while clients are connected to it: an open tab is not use. Enterprise Gateway's "
        "default was False (EG_CULL_CONNECTED).",
    ).tag(config=True)
    cull_busy = Bool(
        False, help="End a kernel also while it runs a cell, when nothing was heard of it for so long (EG_CULL_BUSY)."
    ).tag(config=True)
    cull_busy_timeout = Float(
        0.0,
        min=0.0,
        help="Seconds that one cell may run, whatever it puts out, until its kernel is ended; 0: any "
        "(EG_CULL_BUSY_TIMEOUT).",
    ).tag(config=True)
    cull_max_age = Float(
        0.0,
        min=0.0,
        help="Seconds after its start at which a kernel is ended, whatever it does; 0: never (EG_CULL_MAX_AGE).",
    ).tag(config=True)

    @validate("cull_interval")
    def _valid_interval(self, proposal: Any) -> float:
        """As in Jupyter Server, one that cannot be is the default."""
        return float(proposal["value"]) if proposal["value"] > 0 else CULL_INTERVAL

    def cull_policy(self) -> CullPolicy:
        return CullPolicy(
            idle_timeout=self.cull_idle_timeout,
            busy_timeout=self.cull_busy_timeout,
            max_age=self.cull_max_age,
            connected=self.cull_connected,
            busy=self.cull_busy,
        )


class LimitOptions(KernelManagerNames):
    """Kernels that are started from now on get them."""

    allow_tracebacks = Bool(True, help="Whether clients see the tracebacks of errors (EG_ALLOW_TRACEBACKS).").tag(
        config=True
    )
    traceback_replacement_message = Unicode(
        "An exception occurred at runtime, which is not shown due to security reasons.",
        help="What they see instead, without allow_tracebacks.",
    ).tag(config=True)
    allowed_message_types = Names(
        help="Types of messages that clients may send to kernels; default: all (EG_ALLOWED_MESSAGE_TYPES)."
    ).tag(config=True)
    iopub_msg_rate_limit = Float(
        0.0, min=0.0, help="Outputs a second of one kernel that are shown; 0: all (EG_IOPUB_MSG_RATE_LIMIT)."
    ).tag(config=True)
    iopub_data_rate_limit = Float(
        0.0, min=0.0, help="Bytes of text a second that are shown; 0: all (EG_IOPUB_DATA_RATE_LIMIT)."
    ).tag(config=True)
    rate_limit_window = Float(3.0, help="Seconds over which these rates are counted (EG_RATE_LIMIT_WINDOW).").tag(
        config=True
    )
    ws_ping_interval = Integer(
        30,
        min=0,
        max=3600,
        help="Seconds between pings to a client; three without an answer, and 90 s at least, end its connection; "
        "0: none (EG_WS_PING_INTERVAL_SECS).",
    ).tag(config=True)

    @validate("rate_limit_window")
    def _valid_window(self, proposal: Any) -> float:
        if not 0 < proposal["value"] <= 3600:
            raise TraitError(f"rate_limit_window must be seconds up to 3600, not {proposal['value']!r}.")
        return float(proposal["value"])

    def limits(self) -> dict[str, Any]:
        """The launcher protocol's *limits*."""
        names = sorted(LimitOptions.class_own_traits(config=True))
        return {name: getattr(self, name) for name in names}
