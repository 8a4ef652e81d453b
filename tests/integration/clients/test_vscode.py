"""The way of VS Code's Jupyter extension: @jupyterlab/services in Node with a WebSocket class of the `ws` package and
node-fetch, credentials from a provider of servers (headers) or from a pasted URL (query); to the gateway itself and
to a jupyter_server before it. Its two generations: services 6, which knows the default sub-protocol only, and 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from eg_integration.gateway import Gateway
from eg_integration.jupyter_server import JupyterServer
from eg_integration.waiting import wait_until

pytestmark = pytest.mark.timeout(100)

GENERATIONS = pytest.mark.parametrize(
    ("services", "credentials"),
    [("@jupyterlab/services", "header"), ("services-6", "query")],
    ids=["services7-header", "services6-query"],
)


@pytest.fixture(scope="module")
def module_server(module_gateway: Gateway) -> Iterator[JupyterServer]:
    with JupyterServer(module_gateway) as server:
        yield server


@GENERATIONS
def test_directly(gateway: Gateway, node_test: Callable[..., None], services: str, credentials: str) -> None:
    node_test(
        "vscode.test.cjs",
        timeout=80,
        SERVICES=services,
        CREDENTIALS=credentials,
        SERVER_URL=gateway.url,
        SERVER_TOKEN=gateway.token,
    )
    _nothing_is_left(gateway)


@GENERATIONS
def test_through_jupyter_server(
    gateway: Gateway,
    module_server: JupyterServer,
    node_test: Callable[..., None],
    services: str,
    credentials: str,
) -> None:
    node_test(
        "vscode.test.cjs",
        timeout=80,
        SERVICES=services,
        CREDENTIALS=credentials,
        SERVER_URL=module_server.url,
        SERVER_TOKEN=module_server.token,
        HAS_CONTENTS="yes",
    )
    _nothing_is_left(gateway)


def _nothing_is_left(gateway: Gateway) -> None:
    """The client has shut down its sessions: no kernel, no session, no process."""
    wait_until(lambda: not gateway.list_kernels(), "no kernel to be left at the gateway")
    wait_until(lambda: not gateway.kernels(), "no kernel process to be left")
    assert gateway.request("GET", "/api/sessions").json == []
