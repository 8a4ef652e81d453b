"""README, CONTRIBUTING and docs say what is true: commands exist, links lead somewhere, tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = sorted(
    path.relative_to(Path(__file__).parents[2]).as_posix()
    for path in [
        *Path(__file__).parents[2].glob("*.md"),
        *Path(__file__).parents[2].glob("docs/**/*.md"),
        *Path(__file__).parents[2].glob("packages/*/README.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(root: Path, page: str) -> None:
    text = re.sub(r"```.*?```", "", (root / page).read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [one for one in targets if "://" not in one and not (root / page).parent.joinpath(one).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_scripts_that_are_named_exist(root: Path, page: str) -> None:
    names = re.findall(r"(?:python3|bash) ([\w./-]+/[\w.-]+)", (root / page).read_text())
    assert names
    assert [name for name in names if not (root / name).is_file()] == []


def test_hatch_scripts_that_are_named_exist(root: Path) -> None:
    hatch = (root / "hatch.toml").read_text()
    named = set(
        re.findall(r"hatch run ([\w-]+)", (root / "CONTRIBUTING.md").read_text() + (root / ".ci/run").read_text())
    )
    assert [name for name in named - {"pre-commit", "pytest"} if f"\n{name} = " not in hatch] == []


def test_the_readme_is_one_screen_and_lists_every_package(root: Path) -> None:
    text = (root / "README.md").read_text()
    assert len(text.splitlines()) <= 50
    packages = [path.parent.name for path in root.glob("packages/*/pyproject.toml")]
    assert [name for name in packages if f"| [{name}](packages/{name}) |" not in text] == []


def test_options_of_the_operators_page_are_the_application_s(root: Path) -> None:
    """Those that matter most; the generated reference has all."""
    from eg_core.app import EnterpriseGatewayApp
    from eg_core.options.environment import VARIABLES

    text = (root / "docs/operators/run-a-gateway.md").read_text()
    rows = [[_codes(column) for column in line.split("|")[1:3]] for line in text.splitlines() if line.startswith("| `")]
    assert [
        option for options, _ in rows for option in options if option not in EnterpriseGatewayApp.class_trait_names()
    ] == []
    first = {variable.trait: variable.names[0] for variable in VARIABLES}
    assert [(options, names) for options, names in rows if names and names != [first.get(one) for one in options]] == []


def _codes(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("tool", ["try", "test", "check_shape", "check_wheels", "check_floors", "make_reference"])
def test_every_tool_says_what_it_is_for(root: Path, tool: str) -> None:
    done = subprocess.run(
        [sys.executable, root / "tools" / f"{tool}.py", "--help"], check=True, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) > 5


def test_the_ci_script_is_a_script(root: Path) -> None:
    assert (root / ".ci/run").stat().st_mode & 0o111
    subprocess.run(["bash", "-n", root / ".ci/run"], check=True)
