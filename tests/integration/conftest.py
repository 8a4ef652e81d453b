"""Fixtures: gateways under test. A test that fails prints the logs of those it used."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from eg_integration.gateway import Gateway

GATEWAYS = pytest.StashKey[list[Gateway]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[GATEWAYS] = []


@pytest.fixture(scope="session")
def gateway_factory(pytestconfig: pytest.Config) -> Callable[..., Gateway]:
    """Makes gateways that are not started yet; whoever asks ends them."""

    def make(name: str = "gw") -> Gateway:
        made = Gateway.new(pytestconfig.getoption("--gateway-command", None), name=name)
        pytestconfig.stash[GATEWAYS].append(made)
        return made

    return make


@pytest.fixture
def new_gateway(
    gateway_factory: Callable[..., Gateway], pytestconfig: pytest.Config
) -> Iterator[Callable[..., Gateway]]:
    """Gateways of one test's own, ended after it."""
    mine: list[Gateway] = []

    def make(name: str = "gw") -> Gateway:
        mine.append(gateway_factory(name))
        return mine[-1]

    yield make
    for one in mine:
        one.end()
        pytestconfig.stash[GATEWAYS].remove(one)


@pytest.fixture(scope="module")
def module_gateway(gateway_factory: Callable[..., Gateway], pytestconfig: pytest.Config) -> Iterator[Gateway]:
    made = gateway_factory()
    try:
        yield made.start()
    finally:
        made.end()
        pytestconfig.stash[GATEWAYS].remove(made)


@pytest.fixture
def gateway(module_gateway: Gateway) -> Iterator[Gateway]:
    """The gateway that a module's tests share; no test leaves a kernel behind."""
    yield module_gateway
    module_gateway.delete_all()


@pytest.fixture(scope="session")
def artifacts(pytestconfig: pytest.Config) -> Path:
    folder = Path(pytestconfig.getoption("--artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def screenshot_name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    return lambda part: re.sub(r"\W+", "-", f"{request.node.name}-{part}").strip("-") + ".png"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        for gateway in item.config.stash[GATEWAYS]:
            for name, text in gateway.logs().items():
                report.sections.append((f"{gateway.folder.name}/{name}", text[-20_000:]))
            running = "\n".join(f"{one.pid} (of {one.parent}) {one.command[:200]}" for one in gateway.processes())
            report.sections.append((f"{gateway.folder.name}: processes", running))
    return report
