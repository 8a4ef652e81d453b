"""Options of the programs that this one succeeds which mean nothing here, or something else: taken, and said so.

Configuration files, command lines and environments that name them start the gateway unchanged; one warning each says
what replaces them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from traitlets import Any as AnyTrait
from traitlets.config import Config

from eg_core.errors import GatewayError
from eg_core.options.names import EnterpriseGatewayConfigMixin
from eg_core.traits import Names

_ONE_PORT = "kernels need no ports of the gateway's choice: each launcher has one port that the system gives it"
_BACKEND = 'it belongs to the backend of that kind: backends = {{"NAME": {{"type": "{}", …}}}}'
_OWN_CLASS = "the gateway's parts are replaced by plugins, not by classes"
_STORE = "kernels are always recorded in the store (store_url), and outlive the gateway"

IGNORED: Mapping[str, str] = MappingProxyType(
    {
        "port_range": _ONE_PORT,
        "remote_hosts": _BACKEND.format("ssh"),
        "load_balancing_algorithm": _BACKEND.format("ssh"),
        "yarn_endpoint": _BACKEND.format("yarn"),
        "alt_yarn_endpoint": _BACKEND.format("yarn"),
        "yarn_endpoint_security_enabled": _BACKEND.format("yarn"),
        "conductor_endpoint": _BACKEND.format("conductor"),
        "kernel_headers": _BACKEND.format("conductor"),
        "impersonation_enabled": "whether kernels run as their users is the backend's business",
        "availability_mode": _STORE,
        "authorizer_class": _OWN_CLASS,
        "kernel_manager_class": _OWN_CLASS,
        "kernel_info_timeout": "a launch has one deadline (kernel_launch_timeout)",
        "shutdown_wait_time": "a kernel has 5 s to end",
        "buffer_offline_messages": "nothing that a kernel says is lost, client or not",
        "shared_context": "the gateway holds no ZMQ context",
        "kernel_spec_manager_class": _OWN_CLASS,
        "kernel_spec_cache_class": _OWN_CLASS,
        "kernel_session_manager_class": _OWN_CLASS,
        "kernel_websocket_connection_class": _OWN_CLASS,
        "kernel_spec_manager": _OWN_CLASS,
        "identity_provider_class": _OWN_CLASS,
        "prespawn_count": "kernels start when they are asked for",
        "seed_uri": "no notebook is run in new kernels; let the kernelspec's argv or its startup files do it",
        "cookie_secret": "no cookie is set",
        "cookie_secret_file": "no cookie is set",
    }
)
"""Options of the application, under each of its names, and why they do nothing."""

IGNORED_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "KernelSpecCache.cache_enabled": "kernelspecs are always cached, and changes seen at once",
        "FileKernelSessionManager": _STORE,
        "WebhookKernelSessionManager": _STORE,
        "KernelSessionManager": _STORE,
        "AsyncIOLoopKernelRestarter": "a kernel that died is not started again behind its user's back",
        "KernelSpecManager.kernel_spec_class": _OWN_CLASS,
        "NotebookHTTPPersonality": "there is no notebook-http mode",
    }
)
"""Sections and options of other classes."""

IGNORED_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "EG_PORT_RANGE": _ONE_PORT,
        "EG_MIN_PORT_RANGE_SIZE": _ONE_PORT,
        "EG_MAX_PORT_RANGE_RETRIES": _ONE_PORT,
        "EG_ENABLE_TUNNELING": _ONE_PORT,
        "EG_REMOTE_HOSTS": IGNORED["remote_hosts"],
        "EG_LOAD_BALANCING_ALGORITHM": IGNORED["load_balancing_algorithm"],
        "EG_YARN_ENDPOINT": IGNORED["yarn_endpoint"],
        "EG_ALT_YARN_ENDPOINT": IGNORED["yarn_endpoint"],
        "EG_YARN_ENDPOINT_SECURITY_ENABLED": IGNORED["yarn_endpoint"],
        "EG_CONDUCTOR_ENDPOINT": IGNORED["conductor_endpoint"],
        "EG_KERNEL_HEADERS": IGNORED["kernel_headers"],
        "EG_IMPERSONATION_ENABLED": IGNORED["impersonation_enabled"],
        "EG_AVAILABILITY_MODE": _STORE,
        "EG_KERNEL_SESSION_PERSISTENCE": _STORE,
        "EG_PERSISTENCE_ROOT": _STORE,
        "EG_WEBHOOK_URL": _STORE,
        "EG_AUTHORIZER_CLASS": _OWN_CLASS,
        "EG_KERNELSPEC_CACHE_ENABLED": IGNORED_ELSEWHERE["KernelSpecCache.cache_enabled"],
        "EG_MAX_POLL_ATTEMPTS": "launches are watched, not polled",
        "EG_POLL_INTERVAL": "launches are watched, not polled",
        "EG_RESTART_STATUS_POLL_INTERVAL": "restarts are watched, not polled",
        "EG_SOCKET_TIMEOUT": "it has no such socket",
        "EG_SENSITIVE_ENV_KEYS": "values of variables are in no log",
        "EG_REDACTION_MASK": "values of variables are in no log",
        "EG_ZMQ_MAX_SOCKETS": "the gateway holds no ZMQ context",
        "EG_ZMQ_IO_THREADS": "the gateway holds no ZMQ context",
        "KG_PRESPAWN_COUNT": IGNORED["prespawn_count"],
        "KG_SEED_URI": IGNORED["seed_uri"],
    }
)

_WEBSOCKET_API = ("kernel_gateway.jupyter_websocket", "jupyter-websocket")


_Ignored: Any = type(
    "_Ignored",
    (EnterpriseGatewayConfigMixin,),
    {
        "__module__": __name__,
        **{
            name: AnyTrait(None, allow_none=True, help=f"Ignored: {why}.").tag(config=True)
            for name, why in IGNORED.items()
        },
    },
)


class LegacyOptions(_Ignored, EnterpriseGatewayConfigMixin):  # type: ignore[misc]
    env_whitelist = Names(help="Deprecated: client_envs.").tag(config=True)
    env_process_whitelist = Names(help="Deprecated: inherited_envs.").tag(config=True)
    api = AnyTrait(_WEBSOCKET_API[0], help="Kernel Gateway's mode; only its websocket mode is served (KG_API).").tag(
        config=True
    )

    def legacy_warnings(self, environ: Mapping[str, str]) -> Iterator[str]:
        """One sentence for each thing that was set and does nothing. Raises GatewayError for what cannot be served."""
        if self.api not in _WEBSOCKET_API:
            raise GatewayError(
                f"api is {self.api!r}; of Kernel Gateway's modes only {_WEBSOCKET_API[0]} is served here."
            )
        for name, why in IGNORED.items():
            if getattr(self, name) is not None:
                yield f"{name} is ignored: {why}."
        yield from _sections(self.config)
        for name, why in IGNORED_VARIABLES.items():
            if environ.get(name):
                yield f"{name} is ignored: {why}."


def _sections(config: Config) -> Iterator[str]:
    for section, values in sorted(config.items()):
        if not isinstance(values, Config):
            continue
        if section in IGNORED_ELSEWHERE and values:
            yield f"{section} is ignored: {IGNORED_ELSEWHERE[section]}."
            continue
        for name in sorted(values):
            why: Any = IGNORED_ELSEWHERE.get(f"{section}.{name}")
            if why is not None:
                yield f"{section}.{name} is ignored: {why}."
