"""Where kernels run and are recorded, and for how long."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Dict, Float, TraitError, Unicode, validate

from eg_core.kernels.settings import Settings
from eg_core.options.names import EnterpriseGatewayConfigMixin


class KernelOptions(EnterpriseGatewayConfigMixin):
    backends = Dict(
        help='Named backends: {"gpu-eu": {"type": "kubernetes", …}}. Each installed type is also one of its own name.'
    ).tag(config=True)
    kernel_launch_timeout = Float(
        3600.0, help="Seconds a launch may take; a kernelspec's metadata.eg.launch_timeout wins."
    ).tag(config=True)
    launch_wait = Float(
        25.0,
        min=0.0,
        max=3600.0,
        help="Seconds in which a request that starts a kernel is answered, if need be with a kernel that is still "
        "starting: less than any proxy or client waits. Clients may ask for less, or by 'Prefer: wait=N' for more.",
    ).tag(config=True)
    dead_kernel_ttl = Float(600.0, help="Seconds a dead kernel's model stays, with the reason.").tag(config=True)
    poll_interval = Float(10.0, help="Seconds between two looks at what really runs.").tag(config=True)
    keep_kernels = Bool(
        False, help="Kernels on this machine live on without a gateway for ever, whatever the lease (EG_KEEP_KERNELS)."
    ).tag(config=True)
    lease = Float(
        Settings.lease, help="Seconds that kernels on this machine live on without a gateway, unless keep_kernels."
    ).tag(config=True)
    drain_timeout = Float(
        20.0,
        min=0.0,
        help="Seconds after SIGTERM in which launches may end and busy channels become quiet before they are closed.",
    ).tag(config=True)
    data_dir = Unicode(
        help="Folder of the store and its key; default: one per port in Jupyter's data folder (EG_DATA_DIR)."
    ).tag(config=True)
    store_url = Unicode(help="SQLAlchemy URL of the store; default: SQLite in data_dir (EG_STORE_URL).").tag(
        config=True
    )

    @validate("kernel_launch_timeout", "dead_kernel_ttl", "poll_interval", "lease")
    def _positive(self, proposal: Any) -> float:
        value = float(proposal["value"])
        if value <= 0:
            raise TraitError(f"{proposal['trait'].name} must be more than 0 seconds, not {value:g}.")
        return value
