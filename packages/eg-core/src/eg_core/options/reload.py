"""Dynamic configuration: the configuration files are looked at every ``dynamic_config_interval`` seconds.

A second application is made from the changed files as the first one was at start: files, below them the environment,
above them the command line. If that works, what differs is taken over, also where an option is no longer in the file;
if not, everything stays as it is and the log says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from traitlets.config import Configurable

from eg_core.options.configured import ConfiguredApp

AT_START = frozenset(
    {
        "ip", "port", "port_retries", "base_url", "data_dir", "store_url", "backends", "keep_kernels", "lease",
        "trust_xheaders", "certfile", "keyfile", "client_ca", "ssl_version", "api", "allow_unauthenticated",
        "dynamic_config_interval", "config_file", "config_file_name",
    }
)  # fmt: skip
"""Options that are read once; a change of them is said and waits for the next start."""


class Reloader:
    """``followers``: what else has options, with the application as its parent. ``taken``: called after a change."""

    def __init__(self, app: ConfiguredApp, followers: Iterable[Configurable], taken: Callable[[], None]) -> None:
        self._app = app
        self._followers = tuple(followers)
        self._taken = taken
        self._seen = self._stamps()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._app.dynamic_config_interval)
            self.look()

    def look(self) -> bool:
        """Whether something was taken over."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        log = self._app.log
        try:
            fresh = self._app.fresh()
            others = [type(follower)(parent=fresh) for follower in self._followers]
        except Exception as error:  # noqa: BLE001 - a configuration file is a program, and may do anything
            log.error("The configuration has changed and cannot be used; nothing is taken over: %s", error)  # noqa: TRY400
            return False
        changed = _take(self._app, fresh)
        for follower, other in zip(self._followers, others, strict=True):
            changed += _take(follower, other)
        late = sorted(AT_START.intersection(changed))
        if late:
            log.warning("The configuration has changed; at the next start count: %s", ", ".join(late))
        now = sorted(set(changed).difference(AT_START))
        if now:
            self._taken()
            log.info("The configuration has changed: %s", ", ".join(now))
        return bool(now)

    def _stamps(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for file in self._app.config_file_candidates():
            try:
                status = Path(file).stat()
            except OSError:
                continue
            found.append((file, status.st_mtime_ns, status.st_size))
        return tuple(found)


def _take(old: Configurable, new: Configurable) -> list[str]:
    """Set what differs, unless it counts at start only; the names of all that differs."""
    changed = [name for name in old.trait_names(config=True) if getattr(old, name) != getattr(new, name)]
    for name in changed:
        if name not in AT_START:
            setattr(old, name, getattr(new, name))
    return changed
