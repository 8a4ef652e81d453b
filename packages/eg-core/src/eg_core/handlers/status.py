"""``/api`` (versions), ``/healthz`` (is it well?) and the page at ``/`` that says what this is."""

from __future__ import annotations

from html import escape

from eg_core import __version__
from eg_core.handlers.base import GatewayHandler
from eg_core.store.store import StoreUnavailable


class ApiHandler(GatewayHandler):
    """The keys are those of Enterprise Gateway: probes and clients read them."""

    async def get(self) -> None:
        self.write_json({"version": __version__, "gateway_version": __version__})


class StatusHandler(GatewayHandler):
    """As in Jupyter Server: how busy it is."""

    async def get(self) -> None:
        models = [kernel.model() for kernel in self.registry.kernels()]
        started = str(self.settings["started"])
        self.write_json(
            {
                "started": started,
                "last_activity": max([started, *(model["last_activity"] for model in models)]),
                "kernels": len(models),
                "connections": sum(model["connections"] for model in models),
            }
        )


class HealthHandler(GatewayHandler):
    """For load balancers: no token, no details. 503 when the store does not answer, and when the gateway is to end."""

    public = True

    async def get(self) -> None:
        try:
            await self.registry.store.ping()
        except StoreUnavailable as error:
            self.log.warning("the store does not answer: %s", error.detail)
            self.write_json({"status": "store unavailable"}, 503)
            return
        if self.registry.draining:
            self.write_json({"status": "ending"}, 503)
        else:
            self.write_json({"status": "ok"})

    async def head(self) -> None:
        await self.get()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Jupyter kernel gateway</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#222}}
pre{{background:#f4f4f4;padding:.8rem;overflow:auto}}code{{background:#f4f4f4}}</style></head><body>
<h1>A Jupyter kernel gateway</h1>
<p>This is <b>eg {version}</b>. It starts Jupyter kernels and carries their channels to Jupyter clients; there is
nothing to edit or run on this page.</p>
<h2>Connect JupyterLab or Notebook</h2>
<pre>jupyter lab --gateway-url={url} --GatewayClient.auth_token=YOUR-TOKEN</pre>
<p>(or set <code>JUPYTER_GATEWAY_URL</code> and <code>JUPYTER_GATEWAY_AUTH_TOKEN</code>.) Leave the token out if your
administrator gave you none. Kernelspecs, and so the launcher's tiles, then come from here.</p>
<h2>Connect a program</h2>
<p>Jupyter's REST and WebSocket API for kernels: <code>{url}api/kernelspecs</code>, <code>{url}api/kernels</code>,
with the header <code>Authorization: token YOUR-TOKEN</code>.</p>
<h2>Is it well?</h2>
<p><a href="{base}healthz">{base}healthz</a> says so without a token.</p>
</body></html>
"""


class PageHandler(GatewayHandler):
    public = True

    async def get(self) -> None:
        url = f"{self.request.protocol}://{self.request.host}{self.base_url}"
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.finish(_PAGE.format(version=escape(__version__), url=escape(url), base=escape(self.base_url)))
