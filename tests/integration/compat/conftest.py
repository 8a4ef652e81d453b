"""Each test here runs unchanged against each kind of gateway; ``agree`` compares what it saw with what is expected.

What a test says it expects is what ours does. Where an incumbent does otherwise, ``eg_compat/differences.py`` says so,
with the reason; any other difference fails, and so does a listed one that is none any more.

The incumbents are installed before the first test, as for the benchmarks. A gateway of the plain configuration is
started once a run for each kind, one of any other configuration once a module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parent))

from benchmarks import venvs
from eg_compat.differences import ABSENT, DIFFERENCES
from eg_compat.gateways import KINDS, CompatGateway, Config

AGAIN = pytest.mark.flaky(reruns=2)
"""An incumbent may be late or lose a message; the question is what it does when it does not. Ours has one try."""
RUNNING = pytest.StashKey[list[CompatGateway]]()
NOT_INSTALLED = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUNNING] = []
    config.stash[NOT_INSTALLED] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Installs what is needed: no fixture does, for it may take longer than a test may."""
    if session.config.option.collectonly:
        return
    kinds = {item.callspec.params.get("gateway_kind") for item in session.items if hasattr(item, "callspec")}
    for kind in sorted(kinds & {"eg", "kg"}):
        try:
            venvs.incumbent(kind.upper())
        except venvs.NotInstalled as error:
            session.config.stash[NOT_INSTALLED][kind] = str(error)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "gateway_kind" not in metafunc.fixturenames:
        return
    asked = str(metafunc.config.getoption("--compat")).split(",")
    if unknown := set(asked) - set(KINDS):
        raise pytest.UsageError(f"--compat knows {', '.join(KINDS)}; not {', '.join(unknown)}")
    absent = ABSENT.get(metafunc.function.__name__, {})
    kinds = [
        pytest.param(kind, marks=() if kind == "ours" else AGAIN)
        for kind in KINDS
        if kind in asked and kind not in absent
    ]
    metafunc.parametrize("gateway_kind", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def gateway_kind(request: pytest.FixtureRequest, needs: Callable[[str, object, str], None]) -> str:
    kind = str(request.param)
    why = request.config.stash[NOT_INSTALLED].get(kind)
    needs(kind, why is None, f"{why}; `python -m benchmarks.venvs` makes it")
    return kind


class Made:
    """Gateways that end together."""

    def __init__(self, config: pytest.Config) -> None:
        self._running = config.stash[RUNNING]
        self._made: list[CompatGateway] = []

    def new(self, kind: str, config: Config) -> CompatGateway:
        self._made.append(CompatGateway(kind, config))
        self._running.append(self._made[-1])
        return self._made[-1]

    def running(self, kind: str, config: Config) -> CompatGateway:
        for one in self._made:
            if (one.kind, one.config) == (kind, config):
                return one
        return self.new(kind, config).start()

    def end(self) -> None:
        for one in self._made:
            one.end()
            self._running.remove(one)


@pytest.fixture(scope="session")
def plain_gateways(pytestconfig: pytest.Config) -> Iterator[Callable[[str], CompatGateway]]:
    made = Made(pytestconfig)
    yield lambda kind: made.running(kind, Config())
    made.end()


@pytest.fixture(scope="module")
def gateways(
    gateway_kind: str, pytestconfig: pytest.Config, plain_gateways: Callable[[str], CompatGateway]
) -> Iterator[Callable[[Config], CompatGateway]]:
    """``gateways(config)``: a running gateway of this kind, shared by the tests that ask for this configuration."""
    made = Made(pytestconfig)
    yield lambda config: plain_gateways(gateway_kind) if config == Config() else made.running(gateway_kind, config)
    made.end()


@pytest.fixture
def fresh(gateway_kind: str, pytestconfig: pytest.Config) -> Iterator[Callable[[Config], CompatGateway]]:
    """``fresh(config)``: a gateway of one test's own, not started."""
    made = Made(pytestconfig)
    yield lambda config: made.new(gateway_kind, config)
    made.end()


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
