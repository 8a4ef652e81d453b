"""Requests drawn from an OpenAPI description, right, nearly right and wrong, and answers held against it.

The description is the one the gateway under test serves, so what it forgets to describe is found, too.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jsonschema
from hypothesis import strategies as st

METHODS = ("get", "head", "post", "patch", "delete", "put")
TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from("\ud800\udfff"), max_size=30)
"""With lone surrogates, which JSON can write."""
ODD = st.sampled_from(
    ["", "\0", "..", "../../etc/passwd", "a/b", "\r\nX-Evil: 1", "\u202e", "\ud800", "²", "-1", "0", "null", "%2e%2e",
     "x" * 300, "x" * 5000, "🥚" * 3000, str(uuid.uuid4()), "{connection_file}", "$PATH",
     "'; drop table eg_kernels; --"]
)  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SEGMENT = st.text(min_size=1, max_size=20).map(lambda text: quote(text, safe="")) | st.sampled_from(
    ["..", "%2e%2e", "%2f..%2f..", "a%00b", "%ff%fe", "%", "%zz", "*", "%0d%0aX:%20y", "a;b", "%e2%80%ae", "x" * 3000]
)
PREFER = st.sampled_from(
    ["", "wait=", "wait=0", "wait=-1", "wait=\xb2", "wait=1e9", "respond-async; wait=9", "=", "wait"]
)
VARIABLE = st.sampled_from(
    ["KERNEL_USERNAME", "KERNEL_ID", "KERNEL_WORKING_DIR", "KERNEL_LAUNCH_TIMEOUT", "KERNEL_X", "LD_PRELOAD", "PATH",
     "A=B", "A\0", "é", ""]
)  # fmt: skip
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, blacklist_characters="\x7f"), max_size=60).map(
    str.strip
)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    template: str
    body: bytes | None
    headers: Mapping[str, str]


class Description:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.operations = [
            (path, method) for path, item in document["paths"].items() for method in item if method in METHODS
        ]

    def operation(self, path: str, method: str) -> Any:
        return self.resolve(self.document["paths"][path][method])

    def resolve(self, value: Any) -> Any:
        """With every ``$ref`` put in, and OpenAPI's ``nullable`` in JSON Schema's words."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            found: Any = self.document
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            return self.resolve(found)
        done = {key: self.resolve(item) for key, item in value.items()}
        if done.pop("nullable", False) is True and "type" in done:
            done["type"] = [done["type"], "null"]
        return done

    # -- requests

    def requests(self, path: str, method: str, *, names: list[str]) -> st.SearchStrategy[Request]:
        """``names``: kernelspecs that may be asked for."""
        operation = self.operation(path, method)
        parameters = [
            *self.resolve(self.document["paths"][path].get("parameters", [])),
            *operation.get("parameters", []),
        ]
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        query = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
        named = {parameter["name"]: HEADER for parameter in parameters if parameter["in"] == "header"}

        @st.composite
        def request(draw: st.DrawFn) -> Request:
            url = path
            for parameter in parameters:
                if parameter["in"] == "path":
                    right = st.uuids().map(str) if "id" in parameter["name"] else st.sampled_from(names)
                    url = url.replace(f"{{{parameter['name']}}}", draw(right | SEGMENT))
            fields = draw(
                st.lists(st.tuples(st.sampled_from([*query, "x", "user"]), SEGMENT | st.just("1")), max_size=2)
            )
            if fields:
                url += "?" + "&".join(f"{name}={value}" for name, value in fields)
            # A launch that would take long is not waited for: what is asked here is how it is answered.
            headers = draw(st.fixed_dictionaries({}, optional=named))
            headers["Prefer"] = f"{headers.get('Prefer', '')}, {draw(PREFER)}, respond-async".strip(", ")
            headers |= draw(
                st.fixed_dictionaries({}, optional=dict.fromkeys(("Accept", "X-Request-ID", "If-None-Match"), HEADER))
            )
            body = None if schema is None else draw(self._bodies(schema, names))
            return Request(method.upper(), url, path, body, headers)

        return request()

    def _bodies(self, schema: Mapping[str, Any], names: list[str]) -> st.SearchStrategy[bytes]:
        """Mostly what the schema allows but for one field, for what is wrong at first sight hides what comes after."""
        dumped = st.one_of([_object(schema, names, spoilt=True)] * 4 + [ANY_JSON]).map(
            lambda value: json.dumps(value).encode()
        )
        cut = st.tuples(dumped, st.integers(0, 40)).map(lambda pair: pair[0][: pair[1]])
        return st.one_of(dumped, dumped, dumped, dumped, cut, st.binary(max_size=60))

    # -- answers

    def check(self, request: Request, status: int, content_type: str, body: bytes) -> None:
        """Raises AssertionError for an answer that is not described."""
        described = self.operation(request.template, request.method.lower())["responses"]
        # A parameter that is none in UTF-8, or that makes the path another one, is nothing of this operation.
        meant = {"304"} if "If-None-Match" in request.headers else set()
        assert str(status) in {*described, "400", "404", *meant}, f"{request}: {status}: {body[:300]!r}"
        if request.method == "HEAD" or status in (204, 304):
            return
        content = described.get(str(status), {}).get("content", {})
        if status >= 400 and not content:
            content = self.resolve({"$ref": "#/components/responses/Error"})["content"]
        schema = content.get("application/json", {}).get("schema")
        if schema is not None:
            assert content_type.startswith("application/json"), f"{request}: {content_type}"
            jsonschema.validate(json.loads(body), schema)


def _object(schema: Mapping[str, Any], names: list[str], *, spoilt: bool) -> st.SearchStrategy[dict[str, Any]]:
    if schema.get("additionalProperties"):
        right: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
            VARIABLE, st.text(max_size=9) | st.just("1"), max_size=3
        )
        return right.flatmap(_spoil) if spoilt else right
    fields = {name: _value(part, names, name) for name, part in schema.get("properties", {}).items()}
    right = st.fixed_dictionaries({}, optional=fields)
    return right.flatmap(_spoil) if spoilt else right


def _value(schema: Mapping[str, Any], names: list[str], field: str) -> st.SearchStrategy[Any]:
    if schema.get("type") == "object":
        return _object(schema, names, spoilt=False) | _object(schema, names, spoilt=True)
    if schema.get("format") == "uuid":
        return st.uuids().map(str)
    return st.sampled_from(names) if field == "name" else st.text(min_size=1, max_size=20)


def _spoil(right: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """With one of its values, or one more, that is not right."""
    if not right:
        return st.just(right)
    return st.tuples(st.sampled_from(sorted(right)), ODD | TEXT | ANY_JSON).map(
        lambda pair: {**right, pair[0]: pair[1]}
    )
