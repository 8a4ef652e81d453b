"""``/api/swagger.json`` and ``.yaml``: the REST API's description, ``api.yaml``, with the gateway's version and URL."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eg_core import __version__
from eg_core.handlers.base import GatewayHandler

SOURCE = Path(__file__).parent / "api.yaml"


@cache
def description(base_url: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    document["info"]["version"] = __version__
    document["servers"] = [{"url": base_url.rstrip("/") or "/"}]
    return document


class OpenApiHandler(GatewayHandler):
    public = True

    async def get(self, form: str) -> None:
        document = description(self.base_url)
        if form == "json":
            self.write_json(document)
            return
        self.set_header("Content-Type", "text/x-yaml; charset=utf-8")
        self.finish(yaml.safe_dump(document, sort_keys=False))
