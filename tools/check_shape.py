"""The house's shape, checked: ``python tools/check_shape.py [--since COMMIT]``. Standard library only.

Each rule is a function that yields one line a finding; ``RULES`` is the table of them. What a rule must let through
stands in ``ALLOWED``, with the reason. A rule that cannot look (no git) says so and is a finding.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # the environment brings it
    import tomli as tomllib

MODULE_LINES = 400
FUNCTION_LINES = 50
PLUGIN_MODULES = (
    {"backend.py"},
    {"client.py"},
    {"manifest.py", "spec.py", "submit.py", "command.py"},
    {"states.py"},
    {"doctor.py"},
)
KINDS = "added|changed|deprecated|removed|fixed|security"
FRAGMENT = re.compile(rf"[A-Za-z0-9-]+\.({KINDS})\.md")
ALLOWED: dict[str, str] = {}
"""``"path"`` or ``"path:function"`` → why it may break a rule."""

# Letters in brackets, so that this file does not find itself.
HOST_PATHS = re.compile(r"(?<![\w.~$}/-])/(?:r[o]ot|w[o]rk|Us[e]rs|home/(?!(?:alice|bob|jovyan)\b)\w+)/")
REGISTRY_HOSTS = re.compile(
    r"\b(?:p[y]pi\.org|files\.p[y]thonhosted\.org|registry\.n[p]mjs\.org|registry\.y[a]rnpkg\.com|repo1\.m[a]ven\.org"
    r"|cr[a]tes\.io|proxy\.g[o]lang\.org|deb\.d[e]bian\.org|(?:registry-1\.|index\.)?d[o]cker\.io|ghc[r]\.io|qu[a]y\.io)\b"
)


class House:
    """A checkout: its packages, its tracked files, its history."""

    def __init__(self, root: Path, since: str | None = None) -> None:
        self.root = root
        self.since = since
        self.packages = sorted(path.parent for path in root.glob("packages/*/pyproject.toml"))

    def project(self, package: Path) -> dict[str, object]:
        project: dict[str, object] = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        return project

    def modules(self) -> list[Path]:
        sources = [path for package in self.packages for path in (package / "src").rglob("*.py")]
        return sorted([*sources, *self.root.glob("tools/*.py")])

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def git(self, *args: str) -> list[str]:
        done = subprocess.run(["git", "-C", self.root, *args], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()


def modules_are_short(house: House) -> Iterator[str]:
    for path in house.modules():
        lines = len(path.read_text().splitlines())
        if lines > MODULE_LINES and house.name(path) not in ALLOWED:
            yield f"{house.name(path)}: {lines} lines; {MODULE_LINES} are the most"


def functions_are_short(house: House) -> Iterator[str]:
    for path in house.modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            lines = _length(node)
            if lines > FUNCTION_LINES and f"{house.name(path)}:{node.name}" not in ALLOWED:
                yield f"{house.name(path)}:{node.lineno}: {node.name} has {lines} lines; {FUNCTION_LINES} are the most"


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, the docstring not counted."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return lines


def modules_say_what_they_are(house: House) -> Iterator[str]:
    for path in house.modules():
        tree = ast.parse(path.read_text())
        if path.name == "__about__.py":
            continue
        if tree.body and ast.get_docstring(tree) is None and house.name(path) not in ALLOWED:
            yield f"{house.name(path)}: no docstring says what this module is for"


def plugins_have_five_modules(house: House) -> Iterator[str]:
    for package in house.packages:
        if package.name in ("eg-core", "eg-launcher"):
            continue
        found = {path.name for path in (package / "src" / package.name.replace("-", "_")).glob("*.py")}
        for names in PLUGIN_MODULES:
            if not names & found:
                yield f"{house.name(package)}: no {' or '.join(sorted(names))}"


def versions_have_one_file(house: House) -> Iterator[str]:
    for package in house.packages:
        about = package / "src" / package.name.replace("-", "_") / "__about__.py"
        if not about.is_file() or "__version__" not in about.read_text():
            yield f"{house.name(package)}: no __about__.py with __version__"
        if "version" not in house.project(package).get("dynamic", ()):  # type: ignore[operator]
            yield f"{house.name(package)}/pyproject.toml: the version stands here, too; __about__.py is its one place"


def licences_are_bsd(house: House) -> Iterator[str]:
    text = (house.root / "LICENSE").read_text()
    if not text.startswith("BSD 3-Clause License"):
        yield "LICENSE: not the BSD 3-Clause License"
    for package in house.packages:
        copy = package / "LICENSE"
        if not copy.is_file() or copy.read_text() != text:
            yield f"{house.name(package)}: LICENSE is not a copy of the tree's"
        if house.project(package).get("license") != "BSD-3-Clause":
            yield f"{house.name(package)}/pyproject.toml: license is not BSD-3-Clause"


def dependencies_have_reasons(house: House) -> Iterator[str]:
    for package in house.packages:
        project, readme = house.project(package), (package / "README.md").read_text()
        extras = project.get("optional-dependencies", {})
        for requirement in [*project.get("dependencies", ()), *(one for extra in extras.values() for one in extra)]:  # type: ignore[misc,attr-defined]
            name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
            if "==" in requirement:
                yield f"{house.name(package)}/pyproject.toml: {requirement} is an exact pin; give a range"
            word = re.escape(name)
            if not re.search(rf"^[-|] *`?{word}\b.*\w+ \w+|\b{word}, because\b", readme, re.MULTILINE | re.IGNORECASE):
                yield f"{house.name(package)}/README.md: no list item, table row or 'because' says why it needs {name}"


def changes_have_fragments(house: House) -> Iterator[str]:
    for package in house.packages:
        folder = house.name(package)
        for path in (package / "changes").glob("*"):
            if not FRAGMENT.fullmatch(path.name) and path.name != "README.md":
                yield f"{house.name(path)}: a fragment is called NAME.({KINDS}).md"
        tags = house.git("tag", "--list", f"{package.name}-v*", "--sort=-creatordate", "--merged")
        since = house.since or (tags[0] if tags else None)
        source = _changed(house, since, f"{folder}/src")
        if source and not _changed(house, since, f"{folder}/changes", f"{folder}/CHANGELOG.md"):
            yield f"{folder}: src changed since {since or 'the beginning'}, and {folder}/changes has no fragment for it"


def _changed(house: House, since: str | None, *paths: str) -> list[str]:
    """Files under ``paths`` that changed since a commit; without one, all fragments and all sources there are."""
    if since is None:
        return [path for path in house.git("ls-files", "--", *paths) if not path.endswith("CHANGELOG.md")]
    return house.git("diff", "--name-only", "--diff-filter=d", f"{since}...HEAD", "--", *paths)


def nothing_names_a_machine(house: House) -> Iterator[str]:
    for name in house.git("ls-files"):
        path = house.root / name
        if name in ALLOWED or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for kind, pattern in (("a path of one machine", HOST_PATHS), ("a registry's host", REGISTRY_HOSTS)):
                if found := pattern.search(line):
                    yield f"{name}:{number}: {kind}, {found.group()!r}"


RULES: dict[str, Callable[[House], Iterator[str]]] = {
    "modules are short": modules_are_short,
    "functions are short": functions_are_short,
    "modules say what they are": modules_say_what_they_are,
    "plugins have five modules": plugins_have_five_modules,
    "versions have one file": versions_have_one_file,
    "licences are BSD": licences_are_bsd,
    "dependencies have reasons": dependencies_have_reasons,
    "changes have fragments": changes_have_fragments,
    "nothing names a machine": nothing_names_a_machine,
}


def check(house: House) -> list[str]:
    findings = []
    for title, rule in RULES.items():
        try:
            findings += [f"{title}: {finding}" for finding in rule(house)]
        except (OSError, subprocess.CalledProcessError) as error:
            findings.append(f"{title}: cannot be checked: {getattr(error, 'stderr', None) or error}")
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", metavar="COMMIT", help="changelog fragments are due for what changed since then")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    args = parser.parse_args()
    findings = check(House(args.root, args.since))
    print("\n".join(findings) or f"shape: {len(RULES)} rules kept")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
