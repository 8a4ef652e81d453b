"""Write docs/reference from the code: ``python tools/make_reference.py [--check]``, in the developers' environment.

Every page has one function, and ``PAGES`` is the table of them. ``--check`` writes nothing and exits 1 when a page is
not what the code says; a test does the same on every run.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from jupyter_core.application import JupyterApp

import eg_core
from _reference_rest import rest
from _reference_tables import code, page, table
from eg_core.app import EnterpriseGatewayApp
from eg_core.builtin.events import SCHEMA
from eg_core.config import Plugin
from eg_core.errors import GatewayError
from eg_core.handlers.base import status_of
from eg_core.kernels.ends import EndReason
from eg_core.kernels.states import KernelState
from eg_core.kernelspecs.finder import KernelspecFinder
from eg_core.metrics import PHASES, KernelCount, Metrics, Watched
from eg_core.options.environment import VARIABLES
from eg_core.options.legacy import IGNORED
from eg_core.types import KERNEL_EVENTS, KernelEvent
from eg_launcher import wire

if sys.version_info >= (3, 11):
    import tomllib
else:  # the environment brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
BASE_OPTIONS = ("config_file", "log_level", "log_datefmt", "logging_config")
"""Of what every Jupyter application has, the options that matter here."""


# -- configuration ------------------------------------------------------------------------------------------------


def configuration() -> str:
    app = EnterpriseGatewayApp.class_traits(config=True)
    inherited = set(_jupyter_options())
    own = {name: trait for name, trait in app.items() if name not in inherited and name not in IGNORED}
    intro = (
        "Each option is a line of `jupyter_enterprise_gateway_config.py` (`c.CLASS.OPTION = VALUE`), an argument "
        "(`--CLASS.OPTION=VALUE`) or, where one is named, a variable. An argument wins over the file, the file over "
        "the variable. Of two variables the first counts. How they belong together: "
        "[Run a gateway](../operators/run-a-gateway.md)."
    )
    parts = [
        intro,
        "## EnterpriseGatewayApp",
        _options(own, _variables()),
        "Like every Jupyter application it has, among others:",
        _options({name: app[name] for name in BASE_OPTIONS}, {}),
    ]
    for kind in [KernelspecFinder, *_plugins()]:
        parts += [f"## {kind.__name__}", _first_sentences(kind), _options(kind.class_traits(config=True), {})]
    parts += [
        "## Taken, and ignored",
        "What configurations for Enterprise Gateway or Kernel Gateway may hold; one warning each says so at start.",
        table(("option", "why"), [(code(name), why) for name, why in sorted(IGNORED.items())]),
    ]
    return page("Configuration", "\n\n".join(part for part in parts if part))


def _jupyter_options() -> list[str]:
    ours = ("log_format",)
    return [name for name in JupyterApp.class_trait_names(config=True) if name not in ours]


def _variables() -> dict[str, list[str]]:
    return {each.trait: [name for name in each.names if name not in each.deprecated] for each in VARIABLES}


def _plugins() -> list[Any]:
    """The configurable classes of the plugins in this repository, whatever else is installed."""
    found = []
    for project in sorted(ROOT.glob("packages/*/pyproject.toml")):
        points = tomllib.loads(project.read_text())["project"].get("entry-points", {}).get("eg", {})
        for reference in points.values():
            module, _, name = reference.partition(":")
            kind = getattr(importlib.import_module(module), name)
            if isinstance(kind, type) and issubclass(kind, Plugin):
                found.append(kind)
    return found


def _options(traits: dict[str, Any], variables: dict[str, list[str]]) -> str:
    rows = []
    for name in sorted(traits):
        trait = traits[name]
        words = re.sub(r"\s*\((?:[EK]G_[A-Z_]+(?:, )?)+\)(?=\.?$)", "", str(trait.help).strip())
        named = ", ".join(code(each) for each in variables.get(name, ()))
        rows.append((code(name), code(type(trait).__name__), _default(trait), named, words))
    return table(("option", "type", "default", "variable", "meaning"), rows)


def _default(trait: Any) -> str:
    text = str(trait.default_value_repr())
    if text in ("", "''", "None", "traitlets.Undefined"):
        return ""
    return code(text if len(text) <= 60 else "…")


def _first_sentences(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


# -- metrics --------------------------------------------------------------------------------------------------------


def metrics() -> str:
    families = sorted(_families(), key=lambda family: family.name)
    own = [family for family in families if family.name.startswith("eg_")]
    rows = []
    for family in own:
        labels: dict[str, None] = {label: None for sample in family.samples for label in sample.labels if label != "le"}
        rows.append((code(_name(family)), family.type, ", ".join(map(code, labels)), family.documentation))
    process = ", ".join(code(_name(family)) for family in families if not family.name.startswith("eg_"))
    states = ", ".join(code(state.value) for state in KernelState)
    text = (
        f"What `/metrics` has for Prometheus; how to have it scraped: [Monitoring](../operators/monitoring.md).\n\n"
        f"{table(('metric', 'type', 'labels', 'meaning'), rows)}\n\n"
        f"`state` is one of {states}. `backend` is an instance's name, `reason` a reason code ([Errors](errors.md)) or "
        f"`other`, `event` an event's name ([Events](events.md)), `handler` the class that answered. Counters and "
        f"histograms have a `_created` series each.\n\n"
        f"Of the gateway's process, on Linux: {process}."
    )
    return page("Metrics", text)


def _name(family: Any) -> str:
    return str(family.name) + ("_total" if family.type == "counter" else "")


def _families() -> list[Any]:
    """All metrics, each with a sample, for without one a metric does not show its labels."""
    made = Metrics()
    for name in KERNEL_EVENTS:
        made.event(KernelEvent(name, "", "", "local", "", 0.0))
    for phase in PHASES:
        made.launch_phase("local", phase, 1.0)
    made.http("KernelsHandler", "GET", 200, 1.0)
    made.watch(Watched(("ready",), lambda: [KernelCount("ready", "local", 1)], lambda: (1, 1)))
    return list(made.registry.collect())


# -- events ---------------------------------------------------------------------------------------------------------


def events() -> str:
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    required = schema["required"]
    fields = [
        (code(name), "always" if name in required else "where there is one", field["description"])
        for name, field in schema["properties"].items()
    ]
    text = (
        f"What happened to kernels: for plugins by the hook `eg_observe_event`, for the record by jupyter_events "
        f"([Monitoring](../operators/monitoring.md#events)), counted in [Metrics](metrics.md).\n\n"
        f"{table(('event', 'what it says of the kernel'), [(code(k), v) for k, v in KERNEL_EVENTS.items()])}\n\n"
        f"## The record\n\nSchema `{schema['$id']}`, version {schema['version']}.\n\n"
        f"{table(('field', 'there', 'meaning'), fields)}\n\n"
        "jupyter_events adds `__timestamp__`, `__schema__`, `__schema_version__` and `__metadata_version__`."
    )
    return page("Events", text)


# -- errors ---------------------------------------------------------------------------------------------------------


def errors() -> str:
    for module in pkgutil.walk_packages(eg_core.__path__, "eg_core."):
        if not re.search(r"\.(testing|migrations|cli|__main__)", module.name):
            importlib.import_module(module.name)
    tree = dict(re.findall(r"^[ │├└─]*(\w+) {2,}(.+)$", sys.modules["eg_core.errors"].__doc__ or "", re.MULTILINE))
    rows = []
    for kind in _subclasses(GatewayError):
        status = status_of(kind.__new__(kind))
        words = tree.get(kind.__name__) or _first_sentences(kind)
        rows.append((code(kind.__name__), f"{status.value} {status.phrase}", code(kind.reason), words))
    closes = [(str(value), words) for value, words in sorted(_close_codes())]
    text = (
        "An error's body is JSON: `message` is a sentence that says what to do next, `reason_code` one word of a small "
        "set (also in a dead kernel's model, in the metrics and in the events). A 5xx has the message as `reason`, "
        "too, which is what stock clients show.\n\n"
        f"{table(('class', 'status', 'reason code', 'meaning'), rows)}\n\n"
        "Besides: 400 and 405 for what is no such request, 401 without the token, 404 (of a WebSocket 403) for a page "
        "of a foreign origin, 413 for a body of more than 1 MiB.\n\n"
        "## Why a kernel ended\n\nThe `reason_code` of a dead kernel's model, and the `reason` of its event and in the "
        "metrics:\n\n"
        f"{table(('code', 'meaning'), [(code(one.value), one.meaning) for one in EndReason])}\n\n"
        "Backends may have words of their own for a launch that fails.\n\n"
        "## Reason codes\n\nWhere a class's own word is not precise enough:\n\n"
        f"{table(('code', 'said by'), [(code(k), ', '.join(map(code, v))) for k, v in sorted(_reasons().items())])}\n\n"
        "Backends may have words of their own.\n\n"
        f"## WebSocket close codes\n\n{table(('code', 'meaning'), closes)}"
    )
    return page("Errors", text)


def _subclasses(kind: type[Any]) -> Iterator[Any]:
    yield kind
    subclasses: list[type[Any]] = kind.__subclasses__()
    for each in sorted(subclasses, key=lambda sub: sub.__name__):
        if each.__module__.startswith("eg_core."):
            yield from _subclasses(each)


def _close_codes() -> Iterator[tuple[int, str]]:
    words = {
        "CLOSE_RESTART": "Come back: the gateway restarts, or lost the launcher for a moment. The kernel lives.",
        "CLOSE_LAUNCH_FAILED": "The launch failed; the reason says why.",
        "CLOSE_KERNEL_DIED": "The kernel died; the reason says why.",
        "CLOSE_KERNEL_ENDED": "The kernel was shut down.",
        "CLOSE_LAUNCHER_LOST": "The kernel's launcher is gone, and the kernel with it.",
        "CLOSE_SILENT": "The client answered no ping; it may come back.",
    }
    for name, value in vars(wire).items():
        if name.startswith("CLOSE_"):
            yield value, words[name]


def _reasons() -> dict[str, list[str]]:
    """Every literal ``reason="…"`` and ``reason = "…"`` of the sources, with the rooms that say it."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.glob("packages/*/src/**/*.py")):
        room = ".".join(path.relative_to(ROOT / "packages").with_suffix("").parts[2:4])
        if ".testing" in room or ".cli" in room:
            continue
        for word in _literal_reasons(ast.parse(path.read_text())):
            if re.fullmatch(r"[a-z][a-z_]+", word):
                found.setdefault(word, set()).add(room)
    return {word: sorted(rooms) for word, rooms in found.items()}


def _literal_reasons(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            values = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == "reason":
                    values = [node.value]
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=False)
                    values += [value for name, value in pairs if isinstance(name, ast.Name) and name.id == "reason"]
        yield from (each.value for each in values if isinstance(each, ast.Constant) and isinstance(each.value, str))


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "metrics.md": metrics,
    "events.md": events,
    "errors.md": errors,
    "rest.md": rest,
}


def stale() -> list[str]:
    """Names of pages that are not what the code says."""
    return [
        name
        for name, make in PAGES.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text() != make()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write docs/reference from the code: configuration, REST API, metrics, events, errors.",
        epilog="Run it in the developers' environment: hatch run reference.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is not up to date")
    if parser.parse_args().check:
        old = stale()
        for name in old:
            print(f"docs/reference/{name} is not what the code says; run: python tools/make_reference.py")
        return 1 if old else 0
    REFERENCE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main())
