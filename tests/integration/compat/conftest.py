"""Each test here runs unchanged against each kind of gateway; ``agree`` compares what it saw with what is expected.

What a test says it expects is what ours does. Where an incumbent does otherwise, ``eg_compat/differences.py`` says so,
with the reason; any other difference fails, and so does a listed one that is none any more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from eg_compat.differences import ABSENT, DIFFERENCES
from eg_compat.gateways import KINDS, CompatGateway, Config
from eg_compat.incumbents import ensure

RUNNING = pytest.StashKey[list[CompatGateway]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUNNING] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "gateway_kind" not in metafunc.fixturenames:
        return
    asked = str(metafunc.config.getoption("--compat")).split(",")
    if unknown := set(asked) - set(KINDS):
        raise pytest.UsageError(f"--compat knows {', '.join(KINDS)}; not {', '.join(unknown)}")
    absent = ABSENT.get(metafunc.function.__name__, {})
    kinds = [kind for kind in KINDS if kind in asked and kind not in absent]
    metafunc.parametrize("gateway_kind", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def gateway_kind(request: pytest.FixtureRequest, needs: Callable[[str, object, str], None]) -> str:
    kind = str(request.param)
    why = None if kind == "ours" else ensure(kind)
    needs(kind, why is None, f"{why}; `python tests/integration/compat/eg_compat/incumbents.py` makes it")
    return kind


@pytest.fixture(scope="module")
def gateways(gateway_kind: str, pytestconfig: pytest.Config) -> Iterator[Callable[..., CompatGateway]]:
    """``gateways(config)``: a running gateway of this kind; a module's tests share those of equal configuration."""
    made: dict[str, CompatGateway] = {}

    def get(config: Config) -> CompatGateway:
        key = repr(config)
        if key not in made:
            made[key] = CompatGateway(gateway_kind, config)
            pytestconfig.stash[RUNNING].append(made[key])
            made[key].start()
        return made[key]

    yield get
    for one in made.values():
        one.end()
        pytestconfig.stash[RUNNING].remove(one)


@pytest.fixture
def fresh(gateway_kind: str, pytestconfig: pytest.Config) -> Iterator[Callable[..., CompatGateway]]:
    """``fresh(config)``: a gateway of one test's own, not started."""
    made: list[CompatGateway] = []

    def make(config: Config) -> CompatGateway:
        made.append(CompatGateway(gateway_kind, config))
        pytestconfig.stash[RUNNING].append(made[-1])
        return made[-1]

    yield make
    for one in made:
        one.end()
        pytestconfig.stash[RUNNING].remove(one)


@pytest.fixture
def agree(request: pytest.FixtureRequest, gateway_kind: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], None]:
    """``agree(observed, expected)``, once a test, both by name; the reviewed differences replace what is expected."""
    name = request.function.__name__
    parameters = [part for part in request.node.callspec.id.split("-") if part != gateway_kind]
    keys = (name, f"{name}[{'-'.join(parameters)}]")

    def check(observed: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        wanted = dict(expected)
        for key in keys:
            for difference in DIFFERENCES.get(key, ()):
                for what, value in (difference.of(gateway_kind) or {}).items():
                    assert what in expected, f"differences.py, {key}: {what!r} is nothing this test looks at"
                    assert value != expected[what], f"differences.py, {key}: {what!r} is no difference"
                    wanted[what] = value
        wrong = {what: (observed.get(what), wanted.get(what)) for what in {**observed, **wanted}}
        wrong = {what: pair for what, pair in wrong.items() if pair[0] != pair[1]}
        lines = [f"  {what}: saw {saw!r}, expected {want!r}" for what, (saw, want) in wrong.items()]
        assert not wrong, f"{gateway_kind} differs, and no reviewed difference says so:\n" + "\n".join(lines)

    return check


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    if report.failed:
        for gateway in item.config.stash[RUNNING]:
            report.sections += [
                (f"{gateway.folder.name}/{name}", text[-6000:]) for name, text in gateway.logs().items()
            ]
    return report
