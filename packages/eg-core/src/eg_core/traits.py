"""Kinds of options that traitlets lacks."""

from __future__ import annotations

import ast
from typing import Any

from traitlets import List, TraitError, Unicode


class Names(List):  # type: ignore[type-arg]
    """A list of names. Takes any collection, and a string with commas between the names; empty names do not count."""

    info_text = "a list of names, or names with commas between them"

    def __init__(self, default_value: Any = (), **kwargs: Any) -> None:
        super().__init__(Unicode(), default_value=list(default_value), **kwargs)

    def validate(self, obj: Any, value: Any) -> Any:
        if isinstance(value, str):
            value = split(value)
        elif isinstance(value, (set, frozenset)):
            value = sorted(value)
        elif isinstance(value, tuple):
            value = list(value)
        return [name.strip() for name in super().validate(obj, value) or () if name.strip()]

    def from_string(self, s: str) -> Any:
        return self.from_string_list([s])

    def from_string_list(self, s_list: list[str]) -> Any:
        names: list[str] = []
        for item in s_list:
            if item[:1] in ("[", "{", "("):
                try:
                    literal = ast.literal_eval(item)
                except (ValueError, SyntaxError) as error:
                    raise TraitError(f"{item!r} is not {self.info_text}") from error
                names += [str(name) for name in literal]
            else:
                names += split(item)
        return names


def split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
