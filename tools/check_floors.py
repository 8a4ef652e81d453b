"""Run each package's tests with the oldest versions that its pyproject.toml allows, on its oldest Python.

    python tools/check_floors.py [PACKAGE …] [--require-python] [-- PYTEST ARGUMENTS]

Only what a package asks for by name is held at its floor; what those bring along is what fits. Warnings are no errors
here: old versions warn of what has been mended since. Needs ``uv``.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from _lanes import LaneError, Package, build, find_python, packages, run_lane, uv
from check_wheels import oldest, parse


def floors(package: Package, python: Path, wheels: Path) -> list[str]:
    """``name==version`` for each direct dependency, at the lowest version that can be had."""
    resolved = uv(
        "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", "lowest-direct",
        "--python", python, "--find-links", wheels, package.folder / "pyproject.toml",
    )  # fmt: skip
    direct = {_plain(name) for name in package.direct()}
    return [line for line in resolved.splitlines() if _plain(line.partition("==")[0]) in direct]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lane(package: Package, wheels: Path, required: bool, rest: list[str]) -> bool:
    version = oldest(package)
    python = find_python(version)
    if python is None:
        print(f"{package.name}: left out, for Python {version} is not on this machine", flush=True)
        return not required
    pins = floors(package, python, wheels)
    print(f"{package.name}: with Python {version}, {', '.join(pins)}", flush=True)
    constraints = wheels / f"{package.name}-floors.txt"
    constraints.write_text("\n".join(pins) + "\n")
    return run_lane(package, wheels, python, constraints=constraints, pytest_args=["-W", "default", *rest]) == 0


def main() -> int:
    args, rest = parse(__doc__ or "")
    try:
        with tempfile.TemporaryDirectory(prefix="eg-floors-") as folder:
            wheels = Path(folder)
            build(wheels, packages())
            failed = [one.name for one in packages(args.package) if not lane(one, wheels, args.require_python, rest)]
    except LaneError as error:
        print(error)
        return 1
    print(f"floors: failed for {', '.join(failed)}" if failed else "floors: all is well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
