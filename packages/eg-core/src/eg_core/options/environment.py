"""Options from the environment: defaults below the configuration file and the command line.

``EG_NAME`` counts before ``KG_NAME``, which counts only where Kernel Gateway or Enterprise Gateway knew it. The
environment itself is read in ``app``; here it is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from traitlets import TraitError
from traitlets.config import Configurable

from eg_core.traits import split


def flag(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Variable:
    """``names`` in the order in which they count; ``deprecated`` ones are said."""

    trait: str
    cast: Callable[[str], Any]
    names: tuple[str, ...]
    deprecated: tuple[str, ...] = ()


def _both(trait: str, cast: Callable[[str], Any] = str, name: str = "") -> Variable:
    name = name or trait.upper()
    return Variable(trait, cast, (f"EG_{name}", f"KG_{name}"))


def _ours(trait: str, cast: Callable[[str], Any] = str, name: str = "") -> Variable:
    return Variable(trait, cast, (f"EG_{name or trait.upper()}",))


VARIABLES: tuple[Variable, ...] = (
    _both("port", int),
    _both("port_retries", int),
    _both("ip"),
    _both("base_url"),
    _both("auth_token"),
    _both("allow_credentials"),
    _both("allow_headers"),
    _both("allow_methods"),
    _both("allow_origin"),
    _both("expose_headers"),
    _both("max_age"),
    _both("trust_xheaders", flag),
    _both("certfile"),
    _both("keyfile"),
    _both("client_ca"),
    _both("ssl_version", int),
    _ours("authorized_origin"),
    _both("max_kernels", int),
    _ours("max_kernels_per_user", int),
    _ours("authorized_users", split),
    _ours("unauthorized_users", split),
    _both("default_kernel_name"),
    Variable("force_kernel_name", str, ("KG_FORCE_KERNEL_NAME",)),
    Variable("api", str, ("KG_API",)),
    _both("list_kernels", flag),
    Variable(
        "client_envs",
        split,
        ("EG_CLIENT_ENVS", "EG_ENV_WHITELIST", "KG_ENV_WHITELIST"),
        deprecated=("EG_ENV_WHITELIST", "KG_ENV_WHITELIST"),
    ),
    Variable(
        "inherited_envs",
        split,
        ("EG_INHERITED_ENVS", "EG_ENV_PROCESS_WHITELIST", "KG_ENV_PROCESS_WHITELIST"),
        deprecated=("EG_ENV_PROCESS_WHITELIST", "KG_ENV_PROCESS_WHITELIST"),
    ),
    _ours("dynamic_config_interval", int),
    _ours("root_dir"),
    _ours("kernel_launch_timeout", float),
    _ours("data_dir"),
    _ours("store_url"),
    _ours("keep_kernels", flag),
    _ours("cull_idle_timeout", float),
    _ours("cull_interval", float),
    _ours("cull_connected", flag),
    _ours("cull_busy", flag),
    _ours("cull_busy_timeout", float),
    _ours("cull_max_age", float),
    _ours("allow_tracebacks", flag),
    _ours("allowed_message_types", split),
    _ours("iopub_msg_rate_limit", float),
    _ours("iopub_data_rate_limit", float),
    _ours("rate_limit_window", float),
    _ours("ws_ping_interval", int, "WS_PING_INTERVAL_SECS"),
    _ours("log_format"),
    _ours("authenticate_prometheus", flag),
)

EMPTY_COUNTS = frozenset({"client_envs", "inherited_envs", "authorized_users", "unauthorized_users"})
"""Options whose variable, set to nothing, is a value: an empty list."""


def is_configured(owner: Configurable, trait: str) -> bool:
    """Whether the configuration file or the command line has set it, under any of the class's names."""
    return any(trait in owner.config[name] for name in owner.section_names() if name in owner.config)


def apply(owner: Configurable, environ: Mapping[str, str]) -> Iterator[str]:
    """Set what the environment says; yields what is to be told. Raises ValueError that names the variable."""
    for variable in VARIABLES:
        for name in variable.names:
            value = environ.get(name)
            if value is None or (value == "" and variable.trait not in EMPTY_COUNTS):
                continue
            if is_configured(owner, variable.trait):
                break
            if name in variable.deprecated:
                yield f"{name} is deprecated: use {variable.names[0]}."
            try:
                setattr(owner, variable.trait, variable.cast(value))
            except (ValueError, TraitError) as error:
                raise ValueError(f"{name}: {error}") from error
            break


def apply_deprecated(owner: Configurable) -> Iterator[str]:
    """Options that had another name once. What is set under the present name counts."""
    for old, new in (("env_whitelist", "client_envs"), ("env_process_whitelist", "inherited_envs")):
        if is_configured(owner, old):
            yield f"{old} is deprecated: use {new}."
            if not is_configured(owner, new):
                setattr(owner, new, getattr(owner, old))
