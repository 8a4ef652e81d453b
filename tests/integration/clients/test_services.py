"""@jupyterlab/services, the client library of JupyterLab, in Node and straight to the gateway."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eg_integration.gateway import Gateway


@pytest.mark.timeout(240)
def test_services_with_the_v1_protocol(gateway: Gateway, node_test: Callable[..., None]) -> None:
    node_test("services.test.cjs", GATEWAY_URL=gateway.url, GATEWAY_TOKEN=gateway.token)
