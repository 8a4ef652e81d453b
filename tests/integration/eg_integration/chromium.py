"""A Chromium of the test's own, whose tabs can be frozen.

Playwright pretends that each page has the focus, and a page that has it cannot be frozen: so Playwright only visits
here, and is away while a tab is frozen.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request

import websocket
from playwright.sync_api import Browser, Page, Playwright

from eg_integration.gateway import Gateway
from eg_integration.lab import CHROMIUM_FLAGS, find_chromium
from eg_integration.waiting import wait_until

SAY_FROZEN = "document.addEventListener('freeze', () => { window.egFrozen = (window.egFrozen || 0) + 1; })"


class Chromium:
    """Lives in the gateway's folder and ends with it at the latest."""

    def __init__(self, playwright: Playwright, gateway: Gateway) -> None:
        self._playwright = playwright
        self._log = gateway.folder / "chromium.log"
        command = [find_chromium() or "", *CHROMIUM_FLAGS, "--headless=new", "--remote-debugging-port=0"]
        command += [f"--user-data-dir={gateway.folder / 'chromium'}", "--window-size=1280,1000", "about:blank"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._browser: Browser | None = None
        self._port = ""

    def __enter__(self) -> Chromium:
        self._port = wait_until(self._said_where, "Chromium to say its port", 40)
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        if self._browser is not None:
            self._browser.close()
        self._process.kill()
        self._process.wait(10)

    def _said_where(self) -> str | None:
        said = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", self._log.read_text(errors="replace"))
        return said[1] if said else None

    def _targets(self) -> list[dict[str, str]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/json", timeout=20) as answer:
            return list(json.load(answer))

    def _connect(self) -> None:
        self._browser = self._playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{self._port}", timeout=40_000)

    def new_page(self) -> Page:
        """In a window of its own: a tab behind another one is never painted."""
        assert self._browser is not None
        context = self._browser.contexts[0]
        tools = self._browser.new_browser_cdp_session()
        with context.expect_page() as opened:
            tools.send("Target.createTarget", {"url": "about:blank", "newWindow": True})
        tools.detach()
        opened.value.set_default_timeout(30_000)
        return opened.value

    def freeze(self, pages: list[Page], seconds: float) -> list[Page]:
        """Freeze these tabs for a while, all at once. What stands for them afterwards."""
        assert self._browser is not None
        for page in pages:
            page.evaluate(f"window.egFrozen = 0; {SAY_FROZEN}")
        urls = [page.url for page in pages]
        self._browser.close()  # Playwright goes; the tabs stay
        tabs = [tab for tab in self._targets() if tab["url"] in urls]
        tools = [websocket.create_connection(tab["webSocketDebuggerUrl"], suppress_origin=True) for tab in tabs]
        for one in tools:
            _say(one, "frozen")
        time.sleep(seconds)
        for one in tools:
            _say(one, "active")
            one.close()
        self._connect()
        found = {page.url: page for page in self._browser.contexts[0].pages}
        for url in urls:
            found[url].set_default_timeout(30_000)
            assert found[url].evaluate("window.egFrozen") == 1, f"{url} was not frozen"
        return [found[url] for url in urls]


def _say(tools: websocket.WebSocket, state: str) -> None:
    tools.send(json.dumps({"id": 1, "method": "Page.setWebLifecycleState", "params": {"state": state}}))
    while (answer := json.loads(tools.recv())).get("id") != 1:
        pass
    assert "error" not in answer, answer
