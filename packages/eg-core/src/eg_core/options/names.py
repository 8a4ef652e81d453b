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
