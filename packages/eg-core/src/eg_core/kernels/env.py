"""Which variables of a request reach a kernel, and which values are refused. Pure.

The order is Enterprise Gateway's contract: inherited variables, the client's ``KERNEL_*`` and allowed ones, the
kernelspec's ``env`` (``$NAME`` substituted from those two, then from what stands before it in the kernelspec), those
two again on top, then what the gateway itself says. The launcher puts the result on top of the remote user's own base
environment; nothing of the gateway's own environment travels unless it is named in ``inherited_envs``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from string import Template
from typing import Any

from eg_core.errors import InvalidRequest

MAX_ENTRIES = 1024
MAX_NAME = 255
MAX_VALUE = 32 * 1024
MAX_BYTES = 128 * 1024 - 1
"""Of a name, ``=`` and a value: more, and Linux executes nothing."""
MAX_PATH = 4095
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

SECRETS = frozenset({"EG_AUTH_TOKEN", "KG_AUTH_TOKEN", "EG_STORE_KEY", "PYTHONEXECUTABLE"})
"""Never reach a kernel, even when named in ``inherited_envs`` or ``client_envs``."""


def check_client_env(env: Any) -> dict[str, str]:
    """The ``env`` object of a request, checked. Raises InvalidRequest that names the entry and the limit."""
    if env is None:
        return {}
    if not isinstance(env, dict):
        raise InvalidRequest("'env' must be an object of strings.")
    if len(env) > MAX_ENTRIES:
        raise InvalidRequest(f"'env' has {len(env)} entries; at most {MAX_ENTRIES} are allowed.")
    for name, value in env.items():
        if not _NAME.match(name):
            raise InvalidRequest(f"env name {name[:80]!r} must be letters, digits and '_', not starting with a digit.")
        if len(name) > MAX_NAME:
            raise InvalidRequest(f"env name {name[:80]!r}… has {len(name)} characters; at most {MAX_NAME} are allowed.")
        if not isinstance(value, str):
            raise InvalidRequest(f"env value of {name} must be a string, not {type(value).__name__}.")
        if "\0" in value:
            raise InvalidRequest(f"env value of {name} contains a NUL byte.")
        if len(value) > MAX_VALUE:
            raise InvalidRequest(f"env value of {name} has {len(value)} characters; at most {MAX_VALUE} are allowed.")
        if not is_encodable(value):
            raise InvalidRequest(f"env value of {name} holds half of a surrogate pair, which is no character.")
    _check_user(env.get("KERNEL_USERNAME", ""))
    size = len(env.get("KERNEL_WORKING_DIR", "").encode())
    if size > MAX_PATH:
        raise InvalidRequest(f"env value of KERNEL_WORKING_DIR has {size} bytes; a path has at most {MAX_PATH}.")
    return dict(env)


def is_encodable(text: str) -> bool:
    """JSON can write what UTF-8, and so a file system or a process, cannot take."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_user(name: str) -> None:
    """No name that looks like another's, or that a program which is given it could take for an option or a number."""
    if name.strip() != name or name.startswith(("-", "#")):
        raise InvalidRequest("KERNEL_USERNAME must not begin or end with a blank, nor begin with '-' or '#'.")


def kernel_env(
    *,
    client: Mapping[str, str],
    kernelspec: Mapping[str, str],
    gateway: Mapping[str, str],
    inherited_envs: Collection[str],
    client_envs: Collection[str],
    own: Mapping[str, str],
) -> dict[str, str]:
    """The environment that is sent to the launcher.

    ``gateway`` is the gateway's own environment, of which only ``inherited_envs`` are taken; ``own`` is what the
    gateway says (KERNEL_ID, KERNEL_USERNAME …) and wins over all. Raises InvalidRequest for what no process can have.
    """
    anything = "*" in client_envs
    from_client = {
        name: value for name, value in client.items() if name.startswith("KERNEL_") or name in client_envs or anything
    }
    inherited = {name: gateway[name] for name in inherited_envs if name in gateway}
    given = {**inherited, **from_client}
    given = {name: value for name, value in given.items() if name not in SECRETS}
    given.update({"KERNEL_GATEWAY": "1", **own})
    env: dict[str, str] = {}
    for name, value in kernelspec.items():
        env[name] = Template(value).safe_substitute({**env, **given})
    env.update(given)
    for name in SECRETS:
        env.pop(name, None)
    for name, value in env.items():
        if len(name.encode()) + 1 + len(value.encode()) > MAX_BYTES:
            raise InvalidRequest(f"The kernel's variable {name} has more than {MAX_BYTES} bytes, its name included.")
    return env
