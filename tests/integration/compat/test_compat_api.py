"""What is at each URL: versions, the API's description, what is not there."""

from __future__ import annotations

import json

import pytest
import yaml
from eg_compat.gateways import NOWHERE, Config

JSON_ERROR = {"reason": "str", "message": "str"}


@pytest.fixture
def gw(gateways):
    return gateways(Config())


def test_api_says_versions(gw, agree):
    answer = gw.request("GET", "/api")
    agree(
        {"status": answer.status, "type": answer.headers["Content-Type"].split(";")[0], "keys": set(answer.json)},
        {"status": 200, "type": "application/json", "keys": {"version", "gateway_version"}},
    )


def test_swagger_json_needs_no_token(gw, agree):
    answer = gw.request("GET", "/api/swagger.json", token=None)
    described = set(answer.json["paths"])
    agree(
        {
            "status": answer.status,
            "type": answer.headers["Content-Type"].split(";")[0],
            "written in": answer.json.get("swagger") or answer.json["openapi"].rsplit(".", 1)[0],
            "described": {"/api/kernels", "/api/kernels/{kernel_id}", "/api/kernelspecs"} <= described,
        },
        {"status": 200, "type": "application/json", "written in": "3.0", "described": True},
    )


def test_mended_swagger_yaml_has_its_own_content_type(gw, agree):
    answer = gw.request("GET", "/api/swagger.yaml", token=None)
    agree(
        {
            "status": answer.status,
            "type": answer.headers["Content-Type"].split(";")[0],
            "same as JSON": set(yaml.safe_load(answer.body)["paths"])
            == set(gw.request("GET", "/api/swagger.json").json["paths"]),
        },
        {"status": 200, "type": "text/x-yaml", "same as JSON": True},
    )


def test_status_route(gw, agree):
    answer = gw.request("GET", "/api/status")
    keys = {"started", "last_activity", "connections", "kernels"}
    agree(
        {"status": answer.status, "keys": keys <= set(answer.json), "without token": gw.request(
            "GET", "/api/status", token=None).status},
        {"status": 200, "keys": True, "without token": 401},
    )  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/nothing", "/api/contents", "/api/terminals", "/api/kernels/not-an-id", "/api/sessions/x"]
)
def test_unknown_urls_are_a_404_in_json(gw, agree, path):
    answer = gw.request("GET", path)
    agree(
        {**gw.error(answer), "reason": answer.json["reason"]},
        {"status": 404, "fields": JSON_ERROR, "reason": "Not Found"},
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/api/kernels"), ("PATCH", "/api/kernelspecs"), ("DELETE", "/api"), ("POST", f"/api/kernels/{NOWHERE}")],
)
def test_wrong_methods_are_a_405_in_json(gw, agree, method, path):
    agree(gw.error(gw.request(method, path)), {"status": 405, "fields": JSON_ERROR})


def test_wrong_method_on_an_action(gw, agree):
    agree(
        {"GET interrupt": gw.request("GET", f"/api/kernels/{NOWHERE}/interrupt").status,
         "POST other": gw.request("POST", f"/api/kernels/{NOWHERE}/explode", {}).status},
        {"GET interrupt": 405, "POST other": 404},
    )  # fmt: skip


def test_head_is_no_method_of_the_api(gw, agree):
    agree(
        {path: gw.request("HEAD", path).status for path in ("/api/kernels", "/api/kernelspecs")},
        {"/api/kernels": 405, "/api/kernelspecs": 405},
    )


def test_a_trailing_slash_is_another_url(gw, agree):
    agree(
        {path: gw.request("GET", path).status for path in ("/api/kernels/", "/api/kernelspecs/", "/api/")},
        {"/api/kernels/": 404, "/api/kernelspecs/": 404, "/api/": 404},
    )


def test_answers_are_utf8_json_and_not_cached_wrongly(gw, agree):
    answer = gw.request("GET", "/api/kernelspecs")
    json.loads(answer.body.decode("utf-8"))
    agree(
        {"type": answer.headers["Content-Type"].split(";")[0], "csp": "Content-Security-Policy" in answer.headers,
         "cookie": "Set-Cookie" in answer.headers},
        {"type": "application/json", "csp": False, "cookie": False},
    )  # fmt: skip
