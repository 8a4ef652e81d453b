"""Pages from other origins: which may speak to the gateway, and the headers their browsers want."""

from __future__ import annotations

import pytest
from eg_compat.gateways import NOWHERE, Config

PAGE, OTHER = "https://pages.example", "https://other.example"
HEADERS = {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Headers": "Authorization,Content-Type",
    "Access-Control-Allow-Methods": "GET,POST,DELETE,OPTIONS",
    "Access-Control-Allow-Origin": PAGE,
    "Access-Control-Expose-Headers": "X-Something",
    "Access-Control-Max-Age": "600",
}
NAMES = ("ALLOW_CREDENTIALS", "ALLOW_HEADERS", "ALLOW_METHODS", "ALLOW_ORIGIN", "EXPOSE_HEADERS", "MAX_AGE")
ONE = Config(env=dict(zip(NAMES, HEADERS.values(), strict=True)))
ANY = Config(env={"ALLOW_ORIGIN": "*"})
NONE = Config()
PATHS = {
    "api": "/api",
    "swagger": "/api/swagger.json",
    "kernelspecs": "/api/kernelspecs",
    "kernelspec": "/api/kernelspecs/python3",
    "resource": "/kernelspecs/python3/kernel.js",
    "kernels": "/api/kernels",
    "sessions": "/api/sessions",
}


def cors(answer):
    """``all`` of HEADERS, ``none``, or what there is."""
    found = {k: v for k, v in answer.headers.items() if k.startswith("Access-Control")}
    return "all" if found == HEADERS else found or "none"


def test_the_headers_are_on_every_answer(gateways, agree):
    gw = gateways(ONE)
    agree(
        {name: cors(gw.request("GET", path, headers={"Origin": PAGE})) for name, path in PATHS.items()},
        dict.fromkeys(PATHS, "all"),
    )


def test_mended_the_headers_are_on_every_preflight(gateways, agree):
    gw = gateways(ONE)
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "Authorization"}
    paths = {
        **PATHS,
        "kernel": f"/api/kernels/{NOWHERE}",
        "interrupt": f"/api/kernels/{NOWHERE}/interrupt",
        "session": f"/api/sessions/{NOWHERE}",
    }
    answers = {name: gw.request("OPTIONS", path, token=None, headers=asked) for name, path in paths.items()}
    agree(
        {name: (answer.status, cors(answer), answer.body[:20]) for name, answer in answers.items()},
        dict.fromkeys(paths, (200, "all", b"")),
    )


def test_mended_the_headers_are_on_errors_too(gateways, agree):
    gw = gateways(ONE)
    page = {"Origin": PAGE}
    answers = {
        "401": gw.request("GET", "/api/kernelspecs", token=None, headers=page),
        "404": gw.request("GET", f"/api/kernels/{NOWHERE}", headers=page),
        "400": gw.request("POST", "/api/kernels", b"{no json", headers=page),
        "no such URL": gw.request("GET", "/nothing", headers=page),
    }
    agree(
        {name: cors(answer) for name, answer in answers.items()},
        dict.fromkeys(answers, "all"),
    )


def test_without_configuration_there_are_no_headers(gateways, agree):
    gw = gateways(NONE)
    agree(
        {"GET": cors(gw.request("GET", "/api/kernelspecs")), "OPTIONS": cors(gw.request("OPTIONS", "/api/kernels"))},
        {"GET": "none", "OPTIONS": "none"},
    )


@pytest.mark.parametrize(("name", "config"), [("one", ONE), ("any", ANY), ("none", NONE)])
def test_origin_of_a_request(gateways, agree, name, config):
    gw = gateways(config)
    origins = {"none": None, "the page": PAGE, "another": OTHER, "itself": gw.url, "null": "null"}
    seen = {
        who: gw.request("GET", "/api/kernels", headers={"Origin": origin} if origin else {}).status
        for who, origin in origins.items()
    }
    allowed = {"one": {"none", "the page", "itself"}, "any": set(origins), "none": {"none", "itself"}}[name]
    agree(
        {f"{name}: {who}": status for who, status in seen.items()},
        {f"{name}: {who}": 200 if who in allowed else 404 for who in origins},
    )


def test_origin_of_a_start(gateways, agree):
    gw = gateways(ONE)
    answer = gw.request("POST", "/api/kernels", {}, headers={"Origin": OTHER})
    agree({"status": answer.status, "kernels": len(gw.list_kernels())}, {"status": 404, "kernels": 0})


@pytest.mark.parametrize(("name", "config"), [("one", ONE), ("any", ANY), ("none", NONE)])
def test_origin_of_a_websocket(gateways, agree, name, config):
    gw = gateways(config)
    kernel_id = gw.start_kernel()
    try:
        origins = {"none": None, "the page": PAGE, "another": OTHER, "itself": gw.url}
        seen = {who: gw.upgrade(kernel_id, headers={"Origin": o} if o else {}) for who, o in origins.items()}
    finally:
        gw.delete_kernel(kernel_id)
    allowed = {"one": {"none", "the page", "itself"}, "any": set(origins), "none": {"none", "itself"}}[name]
    agree(
        {f"{name}: {who}": status for who, status in seen.items()},
        {f"{name}: {who}": 101 if who in allowed else 403 for who in origins},
    )
