"""The page on the hooks against the specifications: names, arguments and kinds."""

import inspect
import re
from pathlib import Path

import pytest

from eg_core import hookspecs
from eg_core.plugins import REQUIRED, _kind, _kind_of_spec

PAGE = Path(__file__).parents[3] / "docs" / "developers" / "hooks.md"
SPECS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("eg_")}

if not PAGE.exists():
    pytest.skip("the docs are not beside the tests: they are compared in a checkout only", allow_module_level=True)

SECTION = re.compile(
    r"^### `(async def|async generator|def) (eg_\w+)\(([\w, ]*)\)`\n(.*?)(?=^#|\Z)", re.DOTALL | re.MULTILINE
)
SECTIONS = {name: (kind, arguments, text) for kind, name, arguments, text in SECTION.findall(PAGE.read_text())}


def test_every_hook_has_a_section_and_every_section_a_hook():
    assert set(SECTIONS) == set(SPECS)
    assert list(SECTIONS) == list(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_a_sections_signature_is_the_specifications(name):
    kind, arguments, text = SECTIONS[name]
    assert [argument.strip() for argument in arguments.split(",") if argument] == list(
        inspect.signature(SPECS[name]).parameters
    )
    assert kind == _kind_of_spec(SPECS[name]).removeprefix("an ")
    assert ("Required." in text) == (name in REQUIRED) == ("Required" in inspect.getdoc(SPECS[name]))


def test_kinds_are_told_apart():
    async def generator():
        yield

    async def coroutine():
        pass

    assert [_kind(f) for f in (generator, coroutine, len)] == ["an async generator", "async def", "def"]
