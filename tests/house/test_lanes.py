"""The tools that test what is built: interpreters, contents of wheels, arguments."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

import _lanes
import check_floors
import check_wheels

CORE = _lanes.Package("eg-core")
GOOD = [
    "eg_core/__about__.py",
    "eg_core/py.typed",
    "eg_core-1.dist-info/METADATA",
    "eg_core-1.dist-info/licenses/LICENSE",
]


def wheel(folder: Path, names: list[str], readme: str = "words " * 50) -> Path:
    path = folder / "eg_core-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in dict.fromkeys(names):
            archive.writestr(name, f"Name: eg-core\n\n{readme}" if name.endswith("METADATA") else "")
    return path


def sources() -> list[str]:
    source = CORE.folder / "src"
    return [path.relative_to(source).as_posix() for path in source.rglob("*.py")]


def test_a_whole_wheel_has_no_findings(tmp_path: Path) -> None:
    assert list(check_wheels.findings(CORE, wheel(tmp_path, [*GOOD, *sources()]))) == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([name for name in GOOD if "py.typed" not in name], "has no eg_core/py.typed"),
        ([name for name in GOOD if "LICENSE" not in name], "has no LICENSE"),
        ([*GOOD, "tests/test_x.py"], "installs more than eg_core: tests"),
    ],
)
def test_what_is_wrong_with_a_wheel_is_said(tmp_path: Path, names: list[str], words: str) -> None:
    assert any(words in line for line in check_wheels.findings(CORE, wheel(tmp_path, [*names, *sources()])))


def test_a_module_that_was_left_out_is_named(tmp_path: Path) -> None:
    names = [name for name in sources() if name != "eg_core/errors.py"]
    assert any(
        "lacks eg_core/errors.py" in line for line in check_wheels.findings(CORE, wheel(tmp_path, [*GOOD, *names]))
    )


def test_this_interpreter_is_found_by_its_version() -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    found = _lanes.find_python(version)
    assert found is None or f"{version}" in _lanes.subprocess.check_output([found, "--version"], text=True)


def test_an_interpreter_that_is_nowhere_is_none() -> None:
    assert _lanes.find_python("3.0") is None


def test_each_package_says_its_oldest_python() -> None:
    assert {package.name: check_wheels.oldest(package) for package in _lanes.packages()}["eg-core"] == "3.10"


def test_an_unknown_package_is_refused() -> None:
    with pytest.raises(_lanes.LaneError, match="no package eg-nothing"):
        _lanes.packages(["eg-nothing"])


@pytest.mark.parametrize(
    ("argv", "package", "rest"),
    [
        ([], [], []),
        (["eg-core", "--", "-x", "-k", "a b"], ["eg-core"], ["-x", "-k", "a b"]),
        (["--", "-x"], [], ["-x"]),
    ],
)
def test_what_follows_two_dashes_is_for_pytest(
    monkeypatch, argv: list[str], package: list[str], rest: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check", *argv])
    args, given = check_wheels.parse("words")
    assert (args.package, given) == (package, rest)


def test_the_tree_s_own_packages_have_no_floor_to_hold() -> None:
    assert "eg-launcher" not in CORE.direct()
    assert "tornado" in CORE.direct()
    assert check_floors._plain("Jupyter_Client") == "jupyter-client"
