"""The token: in the header, in the query, wrong, absent; on every route."""

from __future__ import annotations

import pytest
from eg_compat.gateways import NOWHERE, Config

WITH_TOKEN = Config()
OPEN = Config(token="")
ROUTES = {
    "api": ("GET", "/api"),
    "kernelspecs": ("GET", "/api/kernelspecs"),
    "kernelspec": ("GET", "/api/kernelspecs/python3"),
    "resource": ("GET", "/kernelspecs/python3/kernel.js"),
    "kernels": ("GET", "/api/kernels"),
    "start": ("POST", "/api/kernels"),
    "kernel": ("GET", f"/api/kernels/{NOWHERE}"),
    "delete": ("DELETE", f"/api/kernels/{NOWHERE}"),
    "interrupt": ("POST", f"/api/kernels/{NOWHERE}/interrupt"),
    "restart": ("POST", f"/api/kernels/{NOWHERE}/restart"),
    "sessions": ("GET", "/api/sessions"),
    "session": ("GET", f"/api/sessions/{NOWHERE}"),
    "delete session": ("DELETE", f"/api/sessions/{NOWHERE}"),
}


@pytest.fixture
def gw(gateways):
    return gateways(WITH_TOKEN)


def test_every_route_wants_the_token(gw, agree):
    agree(
        {name: gw.request(method, path, token=None).status for name, (method, path) in ROUTES.items()},
        dict.fromkeys(ROUTES, 401),
    )
    assert gw.list_kernels() == []


def test_mended_options_is_answered_on_every_route_without_a_token(gw, agree):
    agree(
        {name: gw.request("OPTIONS", path, token=None).status for name, (_, path) in ROUTES.items()},
        dict.fromkeys(ROUTES, 200),
    )


def test_unknown_urls_without_token(gw, agree):
    agree({"status": gw.request("GET", "/nothing", token=None).status}, {"status": 404})


def test_401_is_json_of_the_usual_fields(gw, agree):
    answer = gw.request("GET", "/api/kernelspecs", token=None)
    agree(
        {**gw.error(answer), "reason": answer.json["reason"]},
        {"status": 401, "fields": {"reason": "str", "message": "str"}, "reason": "Unauthorized"},
    )


def test_mended_the_header_takes_these_forms_in_any_case(gw, agree):
    forms = {
        "token T": f"token {gw.token}",
        "Token T": f"Token {gw.token}",
        "Bearer T": f"Bearer {gw.token}",
        "bearer T": f"bearer {gw.token}",
        "T alone": gw.token,
        "token wrong": "token wrong",
        "token prefix": f"token {gw.token[:-1]}",
        "token longer": f"token {gw.token}x",
        "token": "token",
        "empty": "",
        "Basic": "Basic dXNlcjpzM2NyZXQtdG9rZW4=",
        "not ASCII": "token s3cr\xe9t",
    }
    agree(
        {form: gw.request("GET", "/api", token=None, headers={"Authorization": sent}).status
         for form, sent in forms.items()},
        {**dict.fromkeys(forms, 401), "token T": 200, "Token T": 200, "Bearer T": 200, "bearer T": 200},
    )  # fmt: skip


def test_the_query_takes_the_token_and_wins(gw, agree):
    def status(query: str, header: str | None) -> int:
        headers = {"Authorization": f"token {header}"} if header else {}
        return gw.request("GET", f"/api/kernelspecs?token={query}", token=None, headers=headers).status

    agree(
        {
            "right": status(gw.token, None),
            "wrong": status("wrong", None),
            "right, header wrong": status(gw.token, "wrong"),
            "wrong, header right": status("wrong", gw.token),
            "empty": status("", None),
        },
        {"right": 200, "wrong": 401, "right, header wrong": 200, "wrong, header right": 401, "empty": 401},
    )


def test_a_websocket_wants_the_token_first(gw, agree):
    kernel_id = gw.start_kernel()
    try:
        agree(
            {
                "none": gw.upgrade(kernel_id, token=False),
                "wrong": gw.upgrade(kernel_id, "?token=wrong", token=False),
                "query": gw.upgrade(kernel_id, f"?token={gw.token}", token=False),
                "header": gw.upgrade(kernel_id),
                "unknown kernel": gw.upgrade(NOWHERE),
                "unknown kernel, no token": gw.upgrade(NOWHERE, token=False),
            },
            {"none": 401, "wrong": 401, "query": 101, "header": 101, "unknown kernel": 404,
             "unknown kernel, no token": 401},
        )  # fmt: skip
    finally:
        gw.delete_kernel(kernel_id)


def test_without_a_token_set_everything_is_open(gateways, agree):
    gw = gateways(OPEN)
    sent = {"nothing": {}, "bare": {"Authorization": "token"}, "some": {"Authorization": "token of-somebody"}}
    agree(
        {name: gw.request("GET", "/api/kernels", token=None, headers=headers).status for name, headers in sent.items()},
        dict.fromkeys(sent, 200),
    )
