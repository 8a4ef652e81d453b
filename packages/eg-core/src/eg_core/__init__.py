"""The gateway: starts Jupyter kernels through backend plugins and carries their channels to clients.

Data flows one way, and import-linter holds it: ``handlers`` → ``kernels`` (the registry) → ``hooks``
→ plugin → remote. ``app`` is the only module that knows every layer. A plugin sees the seam
(``hookspecs``, ``types``, ``errors``, ``aio``, ``config``) and nothing else.
"""

from eg_core.__about__ import __version__

__all__ = ["__version__"]
