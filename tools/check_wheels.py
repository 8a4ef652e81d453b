"""Build every package, look into what was built, and run its tests from the wheel in an empty environment.

    python tools/check_wheels.py [PACKAGE …] [--python VERSION] [--require-python] [-- PYTEST ARGUMENTS]

``--python oldest`` is each package's own oldest. An interpreter that this machine lacks is left out in words;
``--require-python`` makes that a failure. Needs ``uv``.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from _lanes import LaneError, Package, build, find_python, packages, run_lane, wheel_of


def parse(doc: str) -> tuple[argparse.Namespace, list[str]]:
    argv = sys.argv[1:]
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="*", help="only these (default: all)")
    parser.add_argument("--python", metavar="VERSION", default=None, help="3.13, oldest, … (default: this one)")
    parser.add_argument("--require-python", action="store_true", help="an absent interpreter is a failure")
    return parser.parse_args(argv[:at]), argv[at + 1 :]


def oldest(package: Package) -> str:
    match = re.search(r">=\s*(\d+\.\d+)", package.table()["project"]["requires-python"])
    if match is None:
        raise LaneError(f"{package.name}: requires-python names no oldest version")
    return match.group(1)


def findings(package: Package, wheel: Path) -> Iterator[str]:
    """What is wrong with a wheel's contents."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    for needed in (f"{package.module}/__about__.py", f"{package.module}/py.typed"):
        if needed not in names:
            yield f"{wheel.name} has no {needed}"
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        yield f"{wheel.name} has no LICENSE"
    strange = {name.split("/")[0] for name in names} - {package.module, metadata.split("/")[0]}
    if strange:
        yield f"{wheel.name} installs more than {package.module}: {', '.join(sorted(strange))}"
    source = package.folder / "src"
    missing = {path.relative_to(source).as_posix() for path in source.rglob("*.py")} - names
    if missing:
        yield f"{wheel.name} lacks {', '.join(sorted(missing))}"
    if len(text.partition("\n\n")[2].strip()) < 200:
        yield f"{wheel.name} has no README"


def lane(package: Package, wheels: Path, args: argparse.Namespace, rest: list[str]) -> bool:
    version = oldest(package) if args.python == "oldest" else args.python
    python = Path(sys.executable) if version is None else find_python(version)
    if python is None:
        print(f"{package.name}: left out, for Python {version} is not on this machine", flush=True)
        return not args.require_python
    print(f"{package.name}: from its wheel, with {python}", flush=True)
    return run_lane(package, wheels, python, pytest_args=rest) == 0


def main() -> int:
    args, rest = parse(__doc__ or "")
    failed = []
    try:
        with tempfile.TemporaryDirectory(prefix="eg-wheels-") as folder:
            wheels = Path(folder)
            build(wheels, packages())
            for package in packages(args.package):
                wrong = list(findings(package, wheel_of(package, wheels)))
                print("".join(f"{line}\n" for line in wrong), end="")
                if not lane(package, wheels, args, rest) or wrong:
                    failed.append(package.name)
    except LaneError as error:
        print(error)
        return 1
    print(f"wheels: failed for {', '.join(failed)}" if failed else "wheels: all is well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
