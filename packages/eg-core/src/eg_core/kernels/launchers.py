"""The launchers this gateway knows: their recorded credentials, and one link to each that is in use."""

from __future__ import annotations

import logging
import secrets
import time
import uuid
from typing import Any

from eg_core.errors import GatewayError
from eg_core.hooks import Hooks
from eg_core.kernels.links import LauncherLink, LinkOwner
from eg_core.launchers.client import LauncherClient
from eg_core.launchers.credentials import CertificateAuthority, make_credentials
from eg_core.launchers.stream import start_tls
from eg_core.store.records import LauncherRecord
from eg_core.store.store import Store
from eg_core.types import KernelHandle, LauncherFiles


class Launchers:
    def __init__(
        self, *, store: Store, hooks: Hooks, authority: CertificateAuthority, lease: float, log: logging.Logger | Any
    ) -> None:
        self._store = store
        self._hooks = hooks
        self._authority = authority
        self._tls = authority.client_context()
        self._lease = lease
        self._log = log
        self._records: dict[str, LauncherRecord] = {}
        self._links: dict[str, LauncherLink] = {}

    async def open(self) -> None:
        self._records = {record.launcher_id: record for record in await self._store.launchers()}

    async def close(self) -> None:
        for link in tuple(self._links.values()):
            await link.close()

    def ids(self) -> frozenset[str]:
        """Every launcher that may run: recorded before anything was started with its credentials."""
        return frozenset(self._records)

    def unused(self, backend: str, age: float) -> list[str]:
        """Launchers of a backend without a link that were recorded more than ``age`` seconds ago."""
        before = time.time() - age
        return [
            record.launcher_id
            for record in self._records.values()
            if record.backend == backend and record.created_at < before and record.launcher_id not in self._links
        ]

    async def new(self, backend: str) -> LauncherFiles:
        """Credentials for a launcher, recorded before anything is started with them."""
        launcher_id = uuid.uuid4().hex
        token = secrets.token_urlsafe(32)
        certificate, key = self._authority.issue(launcher_id)
        record = LauncherRecord(launcher_id=launcher_id, backend=backend, token=token, created_at=time.time())
        await self._store.add_launcher(record)
        self._records[launcher_id] = record
        return LauncherFiles(
            launcher_id=launcher_id,
            args=("--lease", f"{self._lease:g}"),
            credentials=make_credentials(launcher_id, token, certificate, key),
            lease=self._lease,
        )

    async def link(self, handle: KernelHandle, owner: LinkOwner) -> LauncherLink:
        """The link to a handle's launcher, opened if there is none yet. Raises GatewayError if it is unknown."""
        link = self._links.get(handle.launcher_id)
        if link is None:
            record = self._records.get(handle.launcher_id)
            if record is None:
                raise GatewayError(f"Launcher {handle.launcher_id} is not in the store, so its token is unknown.")
            client = LauncherClient(lambda: self._connect(handle), record.token)
            link = self._links[handle.launcher_id] = LauncherLink(handle, client, owner, self._log)
            link.open()
        return link

    async def unused_now(self, link: LauncherLink) -> None:
        """No kernel uses it any more: one of the version before gets none again, and ends when nobody is connected."""
        if link.client.outdated and self._links.get(link.launcher_id) is link:
            del self._links[link.launcher_id]
            await link.close()

    async def forget(self, launcher_id: str) -> None:
        """It has ended, or was never started: close the link, drop the record."""
        link = self._links.pop(launcher_id, None)
        self._records.pop(launcher_id, None)
        await self._store.remove_launcher(launcher_id)
        if link is not None:
            await link.close()

    async def _connect(self, handle: KernelHandle) -> Any:
        endpoint = await self._hooks.discover_connection(handle)
        sock = await self._hooks.connect_launcher(handle, endpoint)
        if endpoint.tls:
            return await start_tls(sock, self._tls, handle.launcher_id)
        return sock
