"""Pages and tables in Markdown, for ``make_reference.py``."""

from __future__ import annotations

from collections.abc import Sequence

NOTE = "<!-- Made by tools/make_reference.py; do not edit. -->"


def page(title: str, text: str) -> str:
    return f"# {title}\n\n{NOTE}\n\n{text.strip()}\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(map(cell, row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""
