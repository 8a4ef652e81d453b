"""The page on the REST API, from the gateway's own OpenAPI description; for ``make_reference.py``."""

from __future__ import annotations

from typing import Any

import yaml

from _reference_tables import code, page, table
from eg_core.handlers.openapi import SOURCE as API

INTRODUCTION = """\
All paths are below `base_url`. The token goes into the header `Authorization: token TOKEN` (or `Bearer`) or the query
`token`. Every answer has an `X-Request-ID`: the request's own, if it brought one. Programs read this description, as
OpenAPI 3, at `/api/swagger.json` and `/api/swagger.yaml`. An error's body: [Errors](errors.md)."""


def rest() -> str:
    document = yaml.safe_load(API.read_text(encoding="utf-8"))
    parts = [INTRODUCTION]
    for tag in document["tags"]:
        parts.append(f"## {tag['name'].capitalize()}")
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if method != "parameters" and tag["name"] in operation["tags"]:
                    parts += _operation(document, method, path, operation)
    parts.append("## Models")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"### {name}")
        if "description" in schema:
            parts.append(str(schema["description"]))
        if "properties" in schema:
            parts.append(_fields(document, schema))
    return page("REST API", "\n\n".join(parts))


def _operation(document: Any, method: str, path: str, operation: Any) -> list[str]:
    token = " It needs no token." if operation.get("security") == [] else ""
    parts = [
        f"### `{method.upper()} {path}`",
        f"{operation['summary']}.{token} {operation.get('description', '')}".strip(),
    ]
    given = [
        (code(each["name"]), each["in"], _type(document, each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", ())
    ]
    if given:
        parts.append(table(("parameter", "in", "type", "meaning"), given))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        model = body["schema"]
        parts.append(f"Body: {_type(document, model)}.")
        if "properties" in model:
            parts.append(_fields(document, model))
    return [*parts, table(("status", "meaning", "body"), _answers(document, operation["responses"]))]


def _answers(document: Any, responses: Any) -> list[tuple[str, ...]]:
    """One row for each; what is answered in the same way shares one."""
    rows: dict[tuple[str, str], list[str]] = {}
    for status, answer in responses.items():
        known = _resolve(document, answer)
        kind = next((content["schema"] for content in known.get("content", {}).values()), None)
        rows.setdefault((known["description"], _type(document, kind) if kind else ""), []).append(status)
    return [(", ".join(statuses), words, kind) for (words, kind), statuses in rows.items()]


def _fields(document: Any, schema: Any) -> str:
    required = schema.get("required", ())
    rows = [
        (
            code(name),
            _type(document, each),
            "always" if name in required else "",
            str(_resolve(document, each).get("description", "") if "$ref" not in each else ""),
        )
        for name, each in schema["properties"].items()
    ]
    return table(("field", "type", "there", "meaning"), rows)


def _type(document: Any, schema: Any) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    kind = str(schema.get("format") or schema.get("type", "any"))
    if kind == "array":
        return f"array of {_type(document, schema['items'])}"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"object of {_type(document, values)}"
    bounds = [f"≤ {schema[name]}" for name in ("maxLength", "maximum") if name in schema]
    return " ".join([kind, *bounds])


def _resolve(document: Any, value: Any) -> Any:
    while "$ref" in value:
        found = document
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value
