"""Each rule of tools/check_shape.py is broken once, and found; a house that keeps them all is clean."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import check_shape

LICENSE = "BSD 3-Clause License\n\nAll of it.\n"
PYPROJECT = """\
[project]
name = "eg-core"
dynamic = ["version"]
license = "BSD-3-Clause"
dependencies = ["tornado>=6.4"]
"""
FILES = {
    "LICENSE": LICENSE,
    "packages/eg-core/LICENSE": LICENSE,
    "packages/eg-core/pyproject.toml": PYPROJECT,
    "packages/eg-core/README.md": "# eg-core\n\n- `tornado`: the HTTP server.\n",
    "packages/eg-core/src/eg_core/__about__.py": '__version__ = "0.1.0"\n',
    "packages/eg-core/src/eg_core/app.py": '"""The application."""\n',
    "packages/eg-core/changes/first.added.md": "It is there.\n",
}


def git(folder: Path, *args: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *who, *args], check=True, capture_output=True)


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., check_shape.House]:
    def make(since: str | None = None, **changes: str | None) -> check_shape.House:
        """A clean house with these files changed; ``None`` leaves one out."""
        for name, text in {**FILES, **changes}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(text)
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", "x")
        return check_shape.House(tmp_path, since)

    return make


def test_a_house_that_keeps_all_rules_is_clean(house) -> None:
    assert check_shape.check(house()) == []


APP = "packages/eg-core/src/eg_core/app.py"
BREACHES = [
    ({APP: '"""Long."""\n' + "x = 1\n" * 400}, "401 lines"),
    ({APP: '"""One."""\n\n\ndef f():\n' + "    x = 1\n" * 50}, "f has 51 lines"),
    ({APP: "x = 1\n"}, "no docstring"),
    ({"packages/eg-core/src/eg_core/__about__.py": None}, "no __about__.py"),
    ({"packages/eg-core/pyproject.toml": PYPROJECT.replace('dynamic = ["version"]', 'version = "1"')}, "one place"),
    ({"packages/eg-core/pyproject.toml": PYPROJECT.replace(">=6.4", "==6.4")}, "exact pin"),
    ({"packages/eg-core/pyproject.toml": PYPROJECT.replace("BSD-3-Clause", "MIT")}, "license is not BSD-3-Clause"),
    ({"packages/eg-core/LICENSE": None}, "not a copy"),
    ({"LICENSE": "MIT\n", "packages/eg-core/LICENSE": "MIT\n"}, "not the BSD 3-Clause"),
    ({"packages/eg-core/README.md": "# eg-core, with tornado\n"}, "says why it needs tornado"),
    ({"packages/eg-core/changes/first.added.md": None}, "no fragment"),
    ({"packages/eg-core/changes/news.md": "x\n"}, "a fragment is called"),
    ({"docs/x.md": "cd /ro" + "ot/project\n"}, "a path of one machine"),
    ({"docs/x.md": "cd /home/so" + "meone/project\n"}, "a path of one machine"),
    ({"docs/x.md": "https://py" + "pi.org/simple\n"}, "a registry's host"),
    (
        {
            "packages/eg-yarn/pyproject.toml": PYPROJECT.replace("eg-core", "eg-yarn"),
            "packages/eg-yarn/README.md": "- tornado: it is needed here.\n",
            "packages/eg-yarn/LICENSE": LICENSE,
            "packages/eg-yarn/src/eg_yarn/__about__.py": '__version__ = "0.1.0"\n',
            "packages/eg-yarn/src/eg_yarn/backend.py": '"""Hooks."""\n',
            "packages/eg-yarn/src/eg_yarn/client.py": '"""Client."""\n',
            "packages/eg-yarn/src/eg_yarn/submit.py": '"""Submit."""\n',
            "packages/eg-yarn/src/eg_yarn/states.py": '"""States."""\n',
            "packages/eg-yarn/changes/first.added.md": "x\n",
        },
        "no doctor.py",
    ),
]


@pytest.mark.parametrize(("changes", "words"), BREACHES, ids=[words for _, words in BREACHES])
def test_a_breach_is_found(house, changes: dict[str, str | None], words: str) -> None:
    findings = check_shape.check(house(**changes))
    assert len(findings) == 1, findings
    assert words in findings[0]


def test_paths_that_are_everybodys_are_no_breach(house) -> None:
    text = "/home/alice/x /home/jovyan/work/ ~/work/x $HOME/work/ docs/work/x https://example.org/work/x /tmp/x\n"
    assert check_shape.check(house(**{"docs/x.md": text})) == []


def test_a_docstring_does_not_lengthen_a_function(house) -> None:
    text = '"""One."""\n\n\ndef f():\n    """' + "words\n" * 60 + '    """\n' + "    x = 1\n" * 49
    assert check_shape.check(house(**{APP: text})) == []


def test_what_is_allowed_is_no_breach(house, monkeypatch) -> None:
    monkeypatch.setitem(check_shape.ALLOWED, APP, "generated")
    assert check_shape.check(house(**{APP: '"""Long."""\n' + "x = 1\n" * 400})) == []


def test_a_fragment_is_due_for_what_changed_since_a_commit(house, tmp_path: Path) -> None:
    clean = house()
    clean.since = "HEAD~1"
    (tmp_path / APP).write_text('"""The application, changed."""\n')
    git(tmp_path, "commit", "-q", "-a", "-m", "y")
    assert ["no fragment" in finding for finding in check_shape.check(clean)] == [True]
    (tmp_path / "packages/eg-core/changes/second.fixed.md").write_text("x\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "z")
    clean.since = "HEAD~2"
    assert check_shape.check(clean) == []


def test_a_release_s_tag_is_where_changes_are_counted_from(house, tmp_path: Path) -> None:
    clean = house()
    git(tmp_path, "rm", "-q", "packages/eg-core/changes/first.added.md")
    git(tmp_path, "commit", "-q", "-m", "release")
    git(tmp_path, "tag", "eg-core-v0.1.0")
    assert check_shape.check(clean) == []
    (tmp_path / APP).write_text('"""The application, changed."""\n')
    git(tmp_path, "commit", "-q", "-a", "-m", "y")
    assert ["since eg-core-v0.1.0" in finding for finding in check_shape.check(clean)] == [True]


def test_no_git_is_a_finding_not_a_pass(house, tmp_path: Path) -> None:
    clean = house()
    (tmp_path / ".git").rename(tmp_path / "elsewhere")
    findings = check_shape.check(clean)
    assert findings
    assert all("cannot be checked" in finding for finding in findings)
