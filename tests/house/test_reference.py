"""docs/reference is what the code says."""

from __future__ import annotations

import pytest

from make_reference import PAGES, REFERENCE, stale


def test_every_page_is_up_to_date() -> None:
    assert stale() == [], "run: python tools/make_reference.py"


def test_every_page_is_made() -> None:
    assert sorted(path.name for path in REFERENCE.glob("*.md")) == sorted(PAGES)


@pytest.mark.parametrize("name", [name for name in PAGES if name != "rest.md"])
def test_no_cell_is_empty_where_there_must_be_words(name: str) -> None:
    rows = [line for line in PAGES[name]().splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_operation_is_there() -> None:
    text = PAGES["rest.md"]()
    for heading in ("### `POST /api/kernels`", "### `GET /api/sessions`", "### `GET /metrics`", "### Kernel"):
        assert f"{heading}\n" in text
