"""The list of differences itself."""

from __future__ import annotations

import re
from pathlib import Path

from eg_compat.differences import ABSENT, DIFFERENCES


def test_what_is_listed_is_of_a_test_and_says_why():
    here = Path(__file__).parent
    tests = {name for file in here.glob("test_*.py") for name in re.findall(r"(?m)^def (test_\w+)", file.read_text())}
    listed = {name.partition("[")[0] for name in (*DIFFERENCES, *ABSENT)}
    assert listed <= tests, f"no test has these names: {sorted(listed - tests)}"
    reasons = [one.why for several in DIFFERENCES.values() for one in several]
    reasons += [why for kinds in ABSENT.values() for why in kinds.values()]
    assert all(reason[-1:] in {".", "…"} for reason in reasons)
