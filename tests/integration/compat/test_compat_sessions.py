"""``/api/sessions``: Enterprise Gateway's and Jupyter Server's way to write them, and what was broken in the former."""

from __future__ import annotations

import pytest
from eg_compat.gateways import NOWHERE, Config
from eg_integration.waiting import wait_until

ERROR = {"reason": "str", "message": "str"}
NEW = {"path": "new.ipynb", "type": "notebook", "name": "new", "kernel": {"name": "python3"}}
OLD = {"notebook": {"path": "old.ipynb"}, "kernel": {"name": "python3"}}


@pytest.fixture
def gw(gateways):
    gw = gateways(Config())
    yield gw
    listed = gw.request("GET", "/api/sessions")  # a dead kernel spoils the first listing of an incumbent
    listed = gw.request("GET", "/api/sessions") if listed.status == 500 else listed
    for session in listed.json if listed.status == 200 else ():
        gw.request("DELETE", f"/api/sessions/{session['id']}")
    gw.delete_all_of(model["id"] for model in gw.list_kernels())


def create(gw, body=None):
    answer = gw.request("POST", "/api/sessions", body or NEW)
    assert answer.status == 201, answer.words
    return answer.json


@pytest.mark.parametrize(("name", "body"), [("new", NEW), ("old", OLD)])
def test_a_session_starts_a_kernel(gw, agree, name, body):
    answer = gw.request("POST", "/api/sessions", body)
    model = answer.json
    kernel = model.get("kernel", {})
    agree(
        {
            "status": answer.status,
            "location": answer.headers.get("Location") == f"/api/sessions/{model.get('id')}",
            "keys": {"id", "notebook", "kernel"} <= set(model),
            "path": model.get("notebook", {}).get("path"),
            "kernel": {"id", "name", "execution_state", "last_activity", "connections"} <= set(kernel),
            "the kernel is there": gw.request("GET", f"/api/kernels/{kernel.get('id')}").status,
            "listed": [each["id"] for each in gw.request("GET", "/api/sessions").json] == [model.get("id")],
        },
        {
            "status": 201,
            "location": True,
            "keys": True,
            "path": f"{name}.ipynb",
            "kernel": True,
            "the kernel is there": 200,
            "listed": True,
        },
    )


def test_mended_get_of_a_session(gw, agree):
    made = create(gw)
    answer = gw.request("GET", f"/api/sessions/{made['id']}")
    same = answer.status == 200 and answer.json["id"] == made["id"]
    agree(
        {"status": answer.status, "same": same, "unknown": gw.request("GET", f"/api/sessions/{NOWHERE}").status},
        {"status": 200, "same": True, "unknown": 404},
    )


def test_mended_patch_of_a_session(gw, agree):
    made = create(gw)
    answer = gw.request("PATCH", f"/api/sessions/{made['id']}", {"path": "moved.ipynb", "name": "moved"})
    path = answer.json["notebook"]["path"] if answer.status == 200 else None
    agree(
        {
            "status": answer.status,
            "path": path,
            "unknown": gw.request("PATCH", f"/api/sessions/{NOWHERE}", {"path": "x"}).status,
        },
        {"status": 200, "path": "moved.ipynb", "unknown": 404},
    )


def test_mended_patch_gives_a_session_another_kernel(gw, agree):
    made = create(gw)
    other = gw.start_kernel()
    answer = gw.request("PATCH", f"/api/sessions/{made['id']}", {"kernel": {"id": other}})
    kernel = answer.json["kernel"]["id"] == other if answer.status == 200 else None
    agree({"status": answer.status, "kernel": kernel}, {"status": 200, "kernel": True})


def test_delete_ends_the_kernel_too(gw, agree):
    made = create(gw)
    answer = gw.request("DELETE", f"/api/sessions/{made['id']}")
    agree(
        {
            "status": answer.status,
            "body": answer.body,
            "again": gw.request("DELETE", f"/api/sessions/{made['id']}").status,
            "kernel": gw.request("GET", f"/api/kernels/{made['kernel']['id']}").status,
            "listed": gw.request("GET", "/api/sessions").json,
        },
        {"status": 204, "body": b"", "again": 404, "kernel": 404, "listed": []},
    )


def test_mended_the_same_path_twice_is_the_same_session(gw, agree):
    first = create(gw)
    second = gw.request("POST", "/api/sessions", NEW)
    same = second.json.get("id") == first["id"] if second.status < 300 else None
    agree(
        {"status": second.status, "same": same, "kernels": len(gw.list_kernels())},
        {"status": 201, "same": True, "kernels": 1},
    )


def test_mended_bad_bodies_are_400_and_make_nothing(gw, agree):
    bodies = {
        "nothing": None,
        "no JSON": b"{",
        "no path": {"type": "notebook", "kernel": {"name": "python3"}},
        "no type": {"path": "x", "kernel": {"name": "python3"}},
        "array": [],
        "path a number": {**NEW, "path": 7},
    }
    answers = {what: gw.request("POST", "/api/sessions", body) for what, body in bodies.items()}
    agree(
        {what: answer.status for what, answer in answers.items()}
        | {"says": answers["no path"].json.get("message"), "kernels": len(gw.list_kernels())},
        {**dict.fromkeys(bodies, 400), "says": "Missing field in JSON data: path", "kernels": 0},
    )


def test_mended_a_session_of_an_unknown_kernelspec_is_a_404(gw, agree):
    answer = gw.request("POST", "/api/sessions", {**NEW, "kernel": {"name": "nothing"}})
    agree(
        {**gw.error(answer), "listed": gw.request("GET", "/api/sessions").json},
        {"status": 404, "fields": ERROR, "listed": []},
    )


def test_mended_errors_of_one_session_have_both_dialects_fields(gw, agree):
    answer = gw.request("GET", f"/api/sessions/{NOWHERE}")
    agree(gw.error(answer), {"status": 404, "fields": ERROR})


def test_a_session_without_a_kernel_gets_the_default_one(gw, agree):
    answer = gw.request("POST", "/api/sessions", {"path": "x.ipynb", "type": "notebook", "name": ""})
    agree(
        {"status": answer.status, "kernel": answer.json.get("kernel", {}).get("name")},
        {"status": 201, "kernel": "python3"},
    )


def test_mended_a_session_takes_the_kernel_it_names(gw, agree):
    kernel_id = gw.start_kernel()
    answer = gw.request("POST", "/api/sessions", {**NEW, "kernel": {"id": kernel_id, "name": "python3"}})
    agree(
        {
            "status": answer.status,
            "kernel": answer.json["kernel"]["id"] == kernel_id,
            "kernels": len(gw.list_kernels()),
        },
        {"status": 201, "kernel": True, "kernels": 1},
    )


def test_mended_a_deleted_kernel_takes_its_session_along(gw, agree):
    made = create(gw)
    gw.delete_kernel(made["kernel"]["id"])
    wait_until(lambda: not gw.list_kernels(), "the kernel to be gone")
    listing = gw.request("GET", "/api/sessions")
    agree(
        {
            "status": listing.status,
            "listed": listing.json if listing.status == 200 else None,
            "delete": gw.request("DELETE", f"/api/sessions/{made['id']}").status,
        },
        {"status": 200, "listed": [], "delete": 404},
    )
