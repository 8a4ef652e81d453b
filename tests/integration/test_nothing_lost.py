"""Numbered lines while the client's connection is cut again and again, and the gateway killed: what is lost, and where?

Stock clients, an exact one, the incumbents, and ourselves with replay switched off, which must lose something.
Every run is a sample; ``--full`` is 100,000 lines and 20 cuts for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eg_integration.cut_clients import Client, Reader, Services, Site, run
from eg_integration.gateway import Gateway
from eg_integration.incumbents import NAMES, incumbent
from eg_integration.lines import BLACK_HOLE, HALF_OPEN, KILL, RESET, Account, Lines, table
from eg_integration.netns import Namespace
from eg_integration.node import installed_packages

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Size:
    lines: int
    every: int
    pause: float
    cuts: tuple[str, ...]
    timeout: float


SAMPLE = Size(4_000, 10, 0.006, (RESET, HALF_OPEN, BLACK_HOLE, RESET), 60)
FULL = Size(100_000, 20, 0.004, (RESET,) * 8 + (HALF_OPEN,) * 6 + (BLACK_HOLE,) * 6, 300)


@pytest.fixture(scope="module")
def size(pytestconfig: pytest.Config) -> Size:
    return FULL if pytestconfig.getoption("--full") else SAMPLE


@pytest.fixture(scope="module")
def network(needs: Callable[..., None]) -> Iterator[Namespace]:
    made = Namespace.create()
    needs("netns", made, "packages are dropped in a network namespace: run as root, with iproute2")
    assert made is not None
    yield made
    made.remove()


@pytest.fixture(scope="module")
def accounts(artifacts: Path, pytestconfig: pytest.Config) -> Iterator[list[Account]]:
    """All of the module; the table of them is shown at its end, and kept."""
    made: list[Account] = []
    yield made
    text = table(made)
    (artifacts / "nothing-lost.md").write_text(text)
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{text}")


@pytest.fixture
def lose(
    request: pytest.FixtureRequest, accounts: list[Account], size: Size, seed: int, needs: Callable[..., None]
) -> Callable[..., Account]:
    """``lose(site, client, name)``: what ``client`` has had when all is over at ``site``, called ``name``."""

    def measure(site: Site, client: str, name: str, *, kill: bool = True) -> Account:
        folder = site.gateway.folder / "tmp" / f"lines-{client}"
        lines = Lines(folder, size.lines, size.every, size.pause)
        kernel_id = site.gateway.start_kernel()

        def make() -> Client:
            if client == "services":
                return Services(site, kernel_id, lines, request.getfixturevalue("packages"), folder)
            return Reader(site, kernel_id, lines, exact=client == "exact")

        cuts = [*size.cuts, *([KILL] if kill else [])]
        accounts.append(run(make, name, cuts, seed, size.timeout))
        print(accounts[-1].row())
        site.gateway.delete_kernel(kernel_id)
        return accounts[-1]

    return measure


@pytest.fixture(scope="module")
def packages(needs: Callable[..., None]) -> Path:
    return installed_packages(needs)


@pytest.fixture(scope="module")
def ours(gateway_factory: Callable[..., Gateway], network: Namespace) -> Iterator[Site]:
    gateway = gateway_factory()
    try:
        yield Site(gateway, network).start()
    finally:
        gateway.end()


def test_an_exact_client_has_every_line_once_and_in_order(ours: Site, lose: Callable[..., Account]) -> None:
    account = lose(ours, "exact", "ours")
    assert account.exact, account
    assert not account.unasked


@pytest.mark.parametrize("client", ["websocket-client", "services"])
def test_a_stock_client_misses_no_line(ours: Site, lose: Callable[..., Account], client: str) -> None:
    account = lose(ours, client, "ours")
    assert account.missing == 0, account
    assert account.replied
    assert not account.unasked


def test_without_replay_lines_are_lost_or_these_tests_would_prove_nothing(
    new_gateway: Callable[..., Gateway], network: Namespace, lose: Callable[..., Account]
) -> None:
    site = Site(new_gateway(), network, "--EnterpriseGatewayApp.replay=False").start()
    account = lose(site, "websocket-client", "ours, replay off")
    assert account.missing > 0, account


@pytest.mark.timeout(900)  # to install it
@pytest.mark.parametrize("client", ["websocket-client", pytest.param("services", marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", ["eg", "kg"])
def test_the_incumbents_beside_it(
    kind: str, client: str, network: Namespace, lose: Callable[..., Account], needs: Callable[..., None]
) -> None:
    """They keep no kernel when they are killed, so their connections are only cut. What they lose is in the table."""
    gateway = incumbent(kind, needs)
    try:
        account = lose(Site(gateway, network).start(), client, NAMES[kind], kill=False)
        assert account.missing < account.count, "it was not measured: nothing came at all"
    finally:
        gateway.end()
