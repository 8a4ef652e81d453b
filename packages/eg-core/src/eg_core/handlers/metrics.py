"""``/metrics``, for Prometheus. With the token like everything else, unless the configuration opens it."""

from __future__ import annotations

from eg_core.handlers.base import GatewayHandler
from eg_core.metrics import Metrics


class MetricsHandler(GatewayHandler):
    @property
    def public(self) -> bool:  # type: ignore[override]
        return not self.settings.get("authenticate_prometheus", True)

    async def get(self) -> None:
        metrics: Metrics = self.settings["metrics"]
        body, content_type = metrics.exposition(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(body)
