"""Who may start what: the gateway's lists and those of a kernelspec. Pure; whole names, never parts of them.

A name is judged when somebody gives it. A request without one is the gateway's own OS user's: the lists of those who
may judge it, too, but not the lists of those who may not, whose ``root`` is there to keep others from taking that name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from eg_core.errors import InvalidRequest, LaunchDenied


@dataclass(frozen=True)
class Access:
    """``authorized``: empty is everybody."""

    authorized: frozenset[str] = frozenset()
    unauthorized: frozenset[str] = frozenset()

    def why_not(self, user: str, options: Mapping[str, Any], *, named: bool = True) -> str | None:
        """A sentence if ``user`` may not use a kernelspec of these options. InvalidRequest: a list makes no sense."""
        if named and user in self.unauthorized | _names(options, "unauthorized_users"):
            return f"User {user!r} is not authorized to start kernels of this kernelspec (unauthorized_users)."
        authorized = _names(options, "authorized_users") or self.authorized
        if authorized and user not in authorized:
            hint = "" if named else " The request named no user: send KERNEL_USERNAME."
            return (
                f"User {user!r} is not in the set of users authorized to start kernels of this kernelspec "
                f"(authorized_users).{hint}"
            )
        return None

    def check(self, user: str, options: Mapping[str, Any], *, named: bool) -> None:
        """Raises LaunchDenied."""
        why = self.why_not(user, options, named=named)
        if why is not None:
            raise LaunchDenied(why, reason="user_not_authorized")


def names_of(value: Any) -> frozenset[str] | None:
    """Names from a list, or from a string with commas between them; None for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Collection) or isinstance(value, (bytes, Mapping)):
        return None
    if not all(isinstance(name, str) for name in value):
        return None
    return frozenset(name.strip() for name in value if name.strip())


def _names(options: Mapping[str, Any], key: str) -> frozenset[str]:
    value = options.get(key)
    if value is None:
        return frozenset()
    names = names_of(value)
    if names is None:  # nobody passes a list that cannot be read
        raise InvalidRequest(f"The kernelspec's {key} must be a list of names, or names with commas between them.")
    return names
