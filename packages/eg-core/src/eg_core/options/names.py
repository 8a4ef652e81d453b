"""The names under which configuration files know the application: its own, and those of the programs it succeeds.

traitlets applies the sections of all base classes, so ``c.KernelGatewayApp.port`` and ``--KernelGatewayApp.port`` mean
the same here as ``c.EnterpriseGatewayApp.port``.
"""

from __future__ import annotations

from traitlets.config import Configurable


class JupyterWebsocketPersonality(Configurable):
    """Kernel Gateway's: ``list_kernels``, ``env_whitelist``."""


class KernelGatewayApp(JupyterWebsocketPersonality):
    """Kernel Gateway's application."""


class EnterpriseGatewayConfigMixin(KernelGatewayApp):
    """Enterprise Gateway's second name of its application."""


class MappingKernelManager(Configurable):
    """Jupyter Server's manager of kernels: ``cull_*``, ``allow_tracebacks``, ``allowed_message_types``."""


class AsyncMappingKernelManager(MappingKernelManager):
    """The same, asynchronous."""


class RemoteMappingKernelManager(AsyncMappingKernelManager):
    """Enterprise Gateway's."""


class SeedingMappingKernelManager(AsyncMappingKernelManager):
    """Kernel Gateway's."""


class RemoteKernelManager(Configurable):
    """Enterprise Gateway's manager of one kernel; its documentation writes ``RemoteKernelManager.cull_*``, too."""


class ZMQChannelsWebsocketConnection(Configurable):
    """Jupyter Server's channels: ``iopub_msg_rate_limit`` and the like."""


class KernelManagerNames(
    RemoteMappingKernelManager, SeedingMappingKernelManager, RemoteKernelManager, ZMQChannelsWebsocketConnection
):
    """All of them."""
