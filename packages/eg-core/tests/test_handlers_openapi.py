"""The API's description says what is served, and what is served is what it says, whatever is sent."""

import asyncio
import json
import re
import uuid
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jupyter_events import yaml

from eg_core.handlers.openapi import description
from eg_core.handlers.routes import ROUTES
from web_support import TOKEN

DOCUMENT = description("/")
METHODS = {"get", "head", "post", "patch", "delete", "put"}
OPERATIONS = [
    (method, path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
]


def resolved(value):
    """With every ``$ref`` put in."""
    if isinstance(value, dict):
        if "$ref" in value:
            found = DOCUMENT
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            return resolved(found)
        return {key: resolved(item) for key, item in value.items()}
    return [resolved(item) for item in value] if isinstance(value, list) else value


def example(path):
    values = {"kernel_id": str(uuid.uuid4()), "session_id": str(uuid.uuid4()), "name": "python3", "path": "kernel.js"}
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], path).lstrip("/")


def test_every_route_is_described_and_nothing_else():
    described = {path: set(item) & METHODS for path, item in DOCUMENT["paths"].items()}
    for pattern, handler in ROUTES:
        paths = [path for path in described if re.fullmatch(pattern, example(path))]
        assert paths, pattern
        for path in paths:
            implemented = {
                method for method in METHODS if getattr(handler, method).__qualname__.split(".")[0] != "RequestHandler"
            }
            assert described[path] <= implemented, path
            assert implemented - described[path] <= {"head"}, path
    for path in described:
        assert any(re.fullmatch(pattern, example(path)) for pattern, _ in ROUTES), path


async def test_it_is_served_in_both_forms_without_a_token(web):
    status, headers, as_json = await web("GET", "/api/swagger.json", token=None)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert as_json["openapi"].startswith("3.")
    assert as_json["info"]["version"]
    status, headers, text = await web("GET", "/api/swagger.yaml", token=None)
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/x-yaml")
    assert yaml.loads(text) == as_json
    assert (await web("GET", "/api/swagger.txt", token=None))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_the_token_is_asked_for_exactly_where_it_says_so(web, method, path, operation):
    status, _, _ = await web(
        method.upper(), f"/{example(path)}", token=None, raw=b"" if method in ("post", "patch") else None
    )
    assert (status == 401) is (operation.get("security") != [])


# -- bad input ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["name", "path", "env", "kernel_id", "type", "notebook", "kernel", "id", "KERNEL_ID", "KERNEL_USERNAME"]
BODY = st.dictionaries(
    st.sampled_from(FIELDS),
    JSON
    | st.sampled_from(["python3", "nope", "sleepy", "\0", "../../etc/passwd", "x" * 5000])
    | st.dictionaries(st.sampled_from(FIELDS), JSON),
    max_size=5,
)
RAW = st.binary(max_size=200) | (JSON | BODY).map(lambda value: json.dumps(value).encode())
SEGMENT = st.text(min_size=1, max_size=30) | st.sampled_from(["..", "%2e%2e", "a%00b", "%ff", "*", str(uuid.uuid4())])
QUIET = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def allowed(method, path):
    return {int(status) for status in DOCUMENT["paths"][path][method]["responses"]}


def check(method, path, status, headers, body):
    assert status in allowed(method, path) | {404}, (status, body)
    assert status not in (500, 503) or "Internal error" not in json.dumps(body), body
    if status >= 400:
        assert {"reason", "message"} <= set(body)
        assert "Traceback" not in json.dumps(body)
        assert body["message"] or body["reason"]


@pytest.mark.parametrize(
    ("method", "path"), [("post", "/api/kernels"), ("post", "/api/sessions"), ("patch", "/api/sessions/{session_id}")]
)
async def test_any_body_is_answered_as_described_and_leaves_nothing_it_did_not_ask_for(web, method, path):
    loop = asyncio.get_running_loop()

    async def send(raw):
        status, headers, body = await web(
            method.upper(), f"/{example(path)}", raw=raw, headers={"Prefer": "respond-async"}
        )
        check(method, path, status, headers, body)
        if status >= 400:
            assert [k for k in web.registry.kernels() if k.state.value != "dead"] == []
        for kernel in web.registry.kernels():
            await web.registry.end(kernel.id)

    @QUIET
    @given(RAW)
    def run(raw):
        asyncio.run_coroutine_threadsafe(send(raw), loop).result(60)

    await asyncio.to_thread(run)


async def test_any_path_and_query_is_answered_in_json(web):
    loop = asyncio.get_running_loop()

    async def send(method, segments, query):
        url = "/" + "/".join(quote(part, safe="%*") for part in segments)
        status, headers, body = await web(method, f"{url}?{quote(query, safe='=&%')}")
        assert status < 500, (url, body)
        if status >= 400:
            assert "application/json" in headers["Content-Type"]
            assert {"reason", "message"} <= set(body)

    @QUIET
    @given(
        st.sampled_from(["GET", "DELETE", "PUT", "OPTIONS"]),
        st.tuples(
            st.sampled_from(["api", "kernelspecs", "x"]), st.sampled_from(["kernels", "kernelspecs", "sessions", "y"])
        ).flatmap(lambda head: st.lists(SEGMENT, max_size=3).map(lambda tail: [*head, *tail])),
        st.text(max_size=10)
        | st.sampled_from(["after=-1", "after=x", "user=%00", "user=a/b/c", f"token={TOKEN}", "session_id=%ff"]),
    )
    def run(method, segments, query):
        asyncio.run_coroutine_threadsafe(send(method, segments, query), loop).result(60)

    await asyncio.to_thread(run)
