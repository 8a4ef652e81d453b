"""The record of what happened to kernels, by jupyter_events: the plugin ``events``.

Where it goes is ``c.EventLogger.handlers``, as in jupyter_server. Without a handler nothing is recorded, and
jupyter_events (a second and 20 MiB) is not even imported.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from traitlets import Int

from eg_core import aio
from eg_core.config import Plugin
from eg_core.errors import GatewayError
from eg_core.hookspecs import hookimpl
from eg_core.types import GatewayInfo, KernelEvent

SCHEMA_ID = "urn:eg:events:kernel:v1"
SCHEMA = Path(__file__).parent / "kernel_event.yaml"


class KernelEvents(Plugin):
    """The record of what happened to kernels (EventLogger.handlers says where it goes)."""

    max_threads = Int(1, min=1, max=64, help="Events that may be written at the same time; 1 keeps their order.").tag(
        config=True
    )

    _logger: Any = None

    @hookimpl
    async def eg_startup(self, gateway: GatewayInfo) -> None:
        if self.config.get("EventLogger", {}).get("handlers"):
            self._logger = await aio.run_blocking(self.threads, self._open)

    @hookimpl
    async def eg_shutdown(self) -> None:
        self._logger = None

    @hookimpl
    async def eg_observe_event(self, event: KernelEvent) -> None:
        if self._logger is not None:
            await aio.run_blocking(self.threads, self._write, self._logger, event)

    def _open(self) -> Any:
        from jupyter_events import EventLogger  # noqa: PLC0415 - see the module's docstring
        from traitlets import TraitError  # noqa: PLC0415

        try:
            logger = EventLogger(parent=self)
        except (TraitError, OSError) as error:
            raise GatewayError(f"EventLogger.handlers cannot be used: {error}", reason="events") from error
        logger.register_event_schema(SCHEMA)
        return logger

    @staticmethod
    def _write(logger: Any, event: KernelEvent) -> None:
        data = {
            "event": event.name,
            "kernel_id": event.kernel_id,
            "kernelspec": event.kernelspec,
            "backend": event.backend,
            "owner": event.owner,
        }
        data |= {name: value for name in ("reason", "message") if (value := getattr(event, name)) is not None}
        # jupyter_events puts a Z behind whatever isoformat() gives, so the time must not name its zone itself
        when = datetime.fromtimestamp(event.at, timezone.utc).replace(tzinfo=None)
        logger.emit(schema_id=SCHEMA_ID, data=data, timestamp_override=when)
