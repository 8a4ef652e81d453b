"""Options of the whole suite under tests/, and the account of what was left out.

A test that needs a system which is not on this machine skips in words; ``--require NAME`` turns that into a failure,
so that CI cannot lose a check unnoticed. What was left out is said once more at the end of the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

LEFT_OUT = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("eg", "real systems")
    group.addoption(
        "--require",
        action="append",
        default=[],
        metavar="NAME",
        help="fail instead of skipping when this system is absent (chromium, node, eg, kg, notebook6, nb2kg, "
        "nginx, postgresql, systemd, ipywidgets, netns, mount, loop-mount, memory-cgroup); repeatable",
    )
    group.addoption(
        "--artifacts",
        type=Path,
        default=Path(".ci-artifacts"),
        metavar="DIR",
        help="where screenshots and the like are kept (default: %(default)s)",
    )
    group.addoption(
        "--gateway-command",
        default=None,
        metavar="COMMAND",
        help="the gateway under test, instead of this environment's `eg`",
    )
    group.addoption(
        "--full",
        action="store_true",
        help="run what is marked as full too, and whole what is a sample otherwise (hatch run ci-full)",
    )
    group.addoption(
        "--seed",
        type=int,
        default=None,
        metavar="N",
        help="of all that is chosen at random; the one in use is printed at the beginning",
    )
    group.addoption(
        "--compat",
        default="ours,eg,kg",
        metavar="KINDS",
        help="which gateways the tests in tests/integration/compat run against (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = {}
    config.addinivalue_line("markers", "full: too long for every run; --full runs it")
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1 << 30)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.full:
        full = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in full]
        config.hook.pytest_deselected(items=full)


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """Of all that a test chooses at random; ``--seed`` gives it."""
    return pytestconfig.option.seed


@pytest.fixture(scope="session")
def needs(pytestconfig: pytest.Config) -> Callable[[str, object, str], None]:
    """``needs("chromium", found, "how to get it")``: go on, skip in words, or fail, as the command line says."""

    def check(name: str, found: object, how: str) -> None:
        if found:
            return
        words = f"{name} is not here: {how}"
        if name in pytestconfig.getoption("--require"):
            pytest.fail(f"required with --require {name}, but {words}", pytrace=False)
        pytestconfig.stash[LEFT_OUT][name] = how
        pytest.skip(words)

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(LEFT_OUT, {})
    if left_out:
        terminalreporter.section("left out, for want of a system")
        for name, how in sorted(left_out.items()):
            terminalreporter.line(f"{name}: {how} (--require {name} makes this a failure)")
