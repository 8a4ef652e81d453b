"""Thebe's way: a page from another origin, in Chromium, whose cells run in a kernel of the gateway.

The page is `services/page.mjs`, bundled with @jupyterlab/services by esbuild. It gives the token in the header of its
REST calls, for which a browser asks first (preflight), and in the WebSocket's query, where it cannot set a header.
"""

from __future__ import annotations

import functools
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from eg_integration.gateway import Gateway
from eg_integration.lab import CHROMIUM_FLAGS, find_chromium
from eg_integration.waiting import wait_until
from playwright import sync_api as playwright

pytestmark = pytest.mark.timeout(90)

HTML = """<!doctype html><meta charset="utf-8"><title>A book</title>
<textarea id="code" cols="80" rows="4"></textarea><br>
<button id="launch">launch</button> <button id="run">run</button> <button id="interrupt">interrupt</button>
<button id="restart">restart</button> <button id="stop">stop</button>
<p>status: <b id="status">not launched</b>, connection: <b id="connection">none</b></p>
<pre id="output"></pre><script src="page.js"></script>
"""
BUNDLE = """
const [esbuild, entry, outfile, modules] = process.argv.slice(1);
require(esbuild).buildSync({
  entryPoints: [entry], outfile, bundle: true, format: 'iife', nodePaths: [modules], logLevel: 'warning',
  define: { 'process.env.NODE_ENV': '"production"' }
});
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin(
    node_modules: Path, needs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Makes web servers with the book, each an origin of its own."""
    needs("chromium", find_chromium(), "install chromium, or set EG_CHROMIUM to a Chrome or Chromium")
    folder = tmp_path_factory.mktemp("book")
    (folder / "index.html").write_text(HTML)
    entry = Path(__file__).with_name("services") / "page.mjs"
    command = ["node", "-e", BUNDLE, str(node_modules / "esbuild"), str(entry), str(folder / "page.js")]
    done = subprocess.run([*command, str(node_modules)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve() -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield serve
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.fixture(scope="module")
def book(origin: Callable[[], str]) -> str:
    return origin()


@pytest.fixture(scope="module")
def open_gateway(
    gateway_factory: Callable[..., Gateway], book: str, pytestconfig: pytest.Config
) -> Iterator[Callable[..., Gateway]]:
    """A gateway that lets the book's pages in."""
    made = gateway_factory("book")
    try:
        yield made.start(
            f"--EnterpriseGatewayApp.allow_origin={book}",
            "--EnterpriseGatewayApp.allow_headers=Authorization,Content-Type",
            "--EnterpriseGatewayApp.allow_methods=GET,POST,PATCH,DELETE",
        )
    finally:
        made.end()


@pytest.fixture
def gateway(open_gateway: Gateway) -> Iterator[Gateway]:
    yield open_gateway
    open_gateway.delete_all()


@pytest.fixture(scope="module")
def browser(book: str) -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=find_chromium(), headless=True, args=CHROMIUM_FLAGS)
        yield made
        made.close()


class Page:
    def __init__(self, page: playwright.Page, gateway: Gateway) -> None:
        self.page, self.gateway = page, gateway
        self.console: list[str] = []
        self.sockets: list[str] = []
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self.console.append(message.text))
        page.on("websocket", lambda socket: self.sockets.append(socket.url))

    def open(self, origin: str, token: str | None = None) -> None:
        query = urlencode({"server": self.gateway.url, "token": token or self.gateway.token})
        self.page.goto(f"{origin}/index.html?{query}")

    def click(self, button: str) -> None:
        self.page.locator(f"#{button}").click()

    def expect(self, where: str, words: str) -> None:
        playwright.expect(self.page.locator(f"#{where}")).to_contain_text(words, timeout=20_000)

    def launch(self) -> None:
        self.click("launch")
        self.expect("status", "ready")

    def run(self, code: str) -> None:
        self.page.locator("#code").fill(code)
        self.click("run")


@pytest.fixture
def page(
    browser: playwright.Browser, gateway: Gateway, artifacts: Path, screenshot_name: Callable[[str], str]
) -> Iterator[Page]:
    context = browser.new_context()
    made = context.new_page()
    yield Page(made, gateway)
    made.screenshot(path=artifacts / screenshot_name("last"))
    context.close()


def test_a_cell_shows_its_output_in_the_page(page: Page, gateway: Gateway, book: str) -> None:
    page.open(book)
    page.launch()
    assert [one.split("?")[0] for one in page.sockets] == [gateway.channels_url(gateway.list_kernels()[0]["id"])]
    assert f"token={gateway.token}" in page.sockets[0]

    page.run("print('some text')\n6 * 7")
    page.expect("output", "some text\n42")
    page.run("from IPython.display import HTML\nHTML('<b id=\"bold\">HTML it is</b>')")
    page.expect("bold", "HTML it is")
    page.run("kept = 1 / 0")
    page.expect("output", "ZeroDivisionError: division by zero")

    page.run("import time\nprint('going to sleep', flush=True)\ntime.sleep(600)")
    page.expect("output", "going to sleep")
    page.click("interrupt")
    page.expect("output", "KeyboardInterrupt")

    page.click("restart")
    page.expect("status", "restarted")
    page.run("'HTML' in globals()")
    page.expect("output", "False")

    page.click("stop")
    page.expect("status", "stopped")
    wait_until(lambda: not gateway.list_kernels(), "no kernel to be left at the gateway")
    assert gateway.request("GET", "/api/sessions").json == []


def test_a_page_of_another_origin_is_refused_and_starts_nothing(
    page: Page, gateway: Gateway, origin: Callable[[], str], book: str
) -> None:
    other = origin()
    assert other != book
    page.open(other)
    page.click("launch")
    page.expect("status", "failed")
    # A browser tells the page nothing of what it was refused; its console and the gateway's log do.
    assert any("CORS policy" in said for said in page.console), page.console
    assert f"pages of '{other}' may not use the gateway" in gateway.log()
    assert not page.sockets
    assert gateway.list_kernels() == []
    assert gateway.kernels() == []


def test_a_websocket_of_another_origin_is_refused(page: Page, gateway: Gateway, origin: Callable[[], str]) -> None:
    """No preflight comes before a WebSocket: the gateway itself looks at its Origin."""
    kernel_id = gateway.start_kernel()
    page.open(origin())
    url = f"{gateway.channels_url(kernel_id)}?token={gateway.token}"
    connect = """url => new Promise(done => {
      const socket = new WebSocket(url);
      socket.onopen = () => done('open');
      socket.onclose = event => done(event.code);
    })"""
    assert page.page.evaluate(connect, url) == 1006
    assert any("403" in said for said in page.console), page.console
    assert gateway.model(kernel_id)["connections"] == 0


def test_a_simple_request_of_another_origin_starts_nothing(
    page: Page, gateway: Gateway, origin: Callable[[], str]
) -> None:
    """A form's POST is sent without asking first; with the token in its URL it would be as good as any."""
    other = origin()
    page.open(other)
    url = f"{gateway.url}/api/kernels?token={gateway.token}"
    post = "url => fetch(url, {method: 'POST', mode: 'no-cors', body: '{}'}).then(() => 'sent')"
    assert page.page.evaluate(post, url) == "sent"
    assert gateway.list_kernels() == []
    assert gateway.kernels() == []
    assert f"POST /api/kernels: pages of '{other}' may not" in gateway.log()


def test_a_wrong_token_is_said_in_the_page(page: Page, gateway: Gateway, book: str) -> None:
    page.open(book, token="wrong")
    page.click("launch")
    page.expect("status", "failed: Give the gateway's token")
    assert gateway.list_kernels() == []
