"""What an operator sets: how many kernels, who may list them, the default kernelspec; and what is the default."""

from __future__ import annotations

import pytest
from eg_compat.gateways import Config

ERROR = {"reason": "str", "message": "str"}
TOTAL = Config(env={"MAX_KERNELS": "2"})
PER_USER = Config(env={"MAX_KERNELS_PER_USER": "1"})
HIDDEN = Config(env={"LIST_KERNELS": "False"})
DEFAULT = Config(list_kernels=False)
NAMED = Config(env={"DEFAULT_KERNEL_NAME": "other"})


def start(gw, user=None):
    return gw.request("POST", "/api/kernels", {"env": {"KERNEL_USERNAME": user} if user else {}})


def test_mended_max_kernels_is_a_403_for_a_session_too(gateways, agree):
    gw = gateways(TOTAL)
    first, second, third = start(gw), start(gw), start(gw)
    session = gw.request(
        "POST", "/api/sessions", {"path": "a", "type": "notebook", "name": "a", "kernel": {"name": "python3"}}
    ).status
    listed = len(gw.list_kernels())
    gw.delete_kernel(first.json["id"])
    fourth = start(gw)
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    agree(
        {
            "starts": (first.status, second.status, third.status),
            "refused": gw.error(third),
            "reason or message": "Limit" in third.body.decode() or "limit" in third.body.decode(),
            "a session counts too": session,
            "kernels": listed,
            "after a delete": fourth.status,
        },
        {
            "starts": (201, 201, 403),
            "refused": {"status": 403, "fields": ERROR},
            "reason or message": True,
            "a session counts too": 403,
            "kernels": 2,
            "after a delete": 201,
        },
    )


def test_mended_max_kernels_holds_for_racing_starts(gateways, agree):
    gw = gateways(TOTAL)
    found = {answer.status for answer in gw.at_once("POST", "/api/kernels", [{"env": {}}] * 5)}
    listed = len(gw.list_kernels())
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    agree(
        {"kernels": listed, "statuses": sorted(found)},
        {"kernels": 2, "statuses": [201, 403]},
    )


def test_max_kernels_per_user(gateways, agree):
    gw = gateways(PER_USER)
    alice, again, bob = start(gw, "alice"), start(gw, "alice"), start(gw, "bob")
    gw.delete_kernel(alice.json["id"])
    after = start(gw, "alice")
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    agree(
        {"alice": alice.status, "alice again": gw.error(again), "bob": bob.status, "after a delete": after.status},
        {"alice": 201, "alice again": {"status": 403, "fields": ERROR}, "bob": 201, "after a delete": 201},
    )


def test_listing_can_be_switched_off(gateways, agree):
    gw = gateways(HIDDEN)
    started = start(gw)
    kernel_id = started.json["id"]
    one = gw.request("GET", f"/api/kernels/{kernel_id}").status
    gw.delete_kernel(kernel_id)
    agree(
        {
            "kernels": gw.error(gw.request("GET", "/api/kernels")),
            "sessions": gw.error(gw.request("GET", "/api/sessions")),
            "start": started.status,
            "one": one,
        },
        {
            "kernels": {"status": 403, "fields": ERROR},
            "sessions": {"status": 403, "fields": ERROR},
            "start": 201,
            "one": 200,
        },
    )


def test_listing_is_on_unless_switched_off(gateways, agree):
    gw = gateways(DEFAULT)
    agree(
        {path: gw.request("GET", path).status for path in ("/api/kernels", "/api/sessions")},
        {"/api/kernels": 200, "/api/sessions": 200},
    )


@pytest.mark.parametrize("config", [NAMED], ids=["other"])
def test_default_kernel_name(gateways, agree, config):
    gw = gateways(config)
    gw.add_kernelspec("other")
    answer = gw.request("POST", "/api/kernels")
    listed = gw.request("GET", "/api/kernelspecs").json["default"]
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    agree({"started": answer.json.get("name"), "listed": listed}, {"started": "other", "listed": "other"})
