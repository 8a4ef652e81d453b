"""Who may start kernels, and how many."""

from __future__ import annotations

from traitlets import Integer, Unicode

from eg_core.options.names import EnterpriseGatewayConfigMixin
from eg_core.traits import Names


class AccessOptions(EnterpriseGatewayConfigMixin):
    max_kernels = Integer(
        None,
        allow_none=True,
        min=0,
        help="How many kernels may start or run at the same time; default: any number (EG_MAX_KERNELS).",
    ).tag(config=True)
    max_kernels_per_user = Integer(
        -1, min=-1, help="The same of one user; -1: any number, 0: none (EG_MAX_KERNELS_PER_USER)."
    ).tag(config=True)
    authorized_users = Names(
        help="Users who may start kernels; default: all. A kernelspec's own list wins (EG_AUTHORIZED_USERS)."
    ).tag(config=True)
    unauthorized_users = Names(
        ["root"],
        help="Names under which nobody may start kernels; a kernelspec's own list adds to it (EG_UNAUTHORIZED_USERS).",
    ).tag(config=True)
    client_envs = Names(help="Variables clients may set besides KERNEL_*; '*' is all (EG_CLIENT_ENVS).").tag(
        config=True
    )
    inherited_envs = Names(help="Variables of the gateway's own environment that kernels get (EG_INHERITED_ENVS).").tag(
        config=True
    )
    default_kernel_name = Unicode(
        "python3", help="Kernelspec for requests that name none (EG_DEFAULT_KERNEL_NAME)."
    ).tag(config=True)
    force_kernel_name = Unicode("", help="Kernelspec for all requests, whatever they name (KG_FORCE_KERNEL_NAME).").tag(
        config=True
    )
    root_dir = Unicode(
        help="Folder that a request's relative path is in; default: where the gateway was started (EG_ROOT_DIR)."
    ).tag(config=True)
