"""Kernelspecs: the list, one, their resources; what appears, changes and is broken; who sees which."""

from __future__ import annotations

import os
import shutil

import pytest
from eg_compat.gateways import Config
from eg_integration.waiting import wait_until

PLAIN = Config()
ALLOWED = Config(args=("--KernelSpecManager.whitelist=['python3']", "--KernelSpecManager.ensure_native_kernel=False"))
USERS = Config(env={"AUTHORIZED_USERS": "alice,bob,carol,charlie", "UNAUTHORIZED_USERS": "mallory,bob2"}, anybody=False)


@pytest.fixture
def gw(gateways):
    return gateways(PLAIN)


def names(gw, query=""):
    answer = gw.request("GET", f"/api/kernelspecs{query}")
    return set(answer.json["kernelspecs"]) if answer.status == 200 else answer.status


def test_the_list(gw, agree):
    listed = gw.request("GET", "/api/kernelspecs").json
    model = listed["kernelspecs"]["python3"]
    agree(
        {
            "keys": set(listed),
            "default": listed["default"],
            "model": set(model),
            "name": model["name"],
            "spec": set(model["spec"])
            >= {"argv", "env", "display_name", "language", "interrupt_mode", "metadata"},
            "display_name": model["spec"]["display_name"],
            "interrupt_mode": model["spec"]["interrupt_mode"],
            "resources": model["resources"],
        },
        {
            "keys": {"default", "kernelspecs"},
            "default": "python3",
            "model": {"name", "spec", "resources"},
            "name": "python3",
            "spec": True,
            "display_name": "Test python3",
            "interrupt_mode": "signal",
            "resources": {
                "kernel.js": "/kernelspecs/python3/kernel.js",
                "logo-64x64": "/kernelspecs/python3/logo-64x64.png",
            },
        },
    )  # fmt: skip


def test_one_kernelspec(gw, agree):
    one = gw.request("GET", "/api/kernelspecs/python3")
    agree(
        {
            "status": one.status,
            "same": one.json == gw.request("GET", "/api/kernelspecs").json["kernelspecs"]["python3"],
            "escaped": gw.request("GET", "/api/kernelspecs/python%33").status,
            "capitals": gw.request("GET", "/api/kernelspecs/PYTHON3").status,
            "unknown": gw.error(gw.request("GET", "/api/kernelspecs/nothing")),
            "odd": gw.request("GET", "/api/kernelspecs/%2e%2e").status,
            "with a slash": gw.request("GET", "/api/kernelspecs/..%2f..%2fetc").status,
        },
        {
            "status": 200,
            "same": True,
            "escaped": 200,
            "capitals": 200,
            "unknown": {"status": 404, "fields": {"reason": "str", "message": "str"}},
            "odd": 404,
            "with a slash": 404,
        },
    )


def test_mended_jupyter_servers_way_of_asking_for_one(gw, agree):
    """With a user it appends the name behind the query."""
    answer = gw.request("GET", "/api/kernelspecs?user=somebody/python3")
    agree({"status": answer.status, "name": answer.json.get("name")}, {"status": 200, "name": "python3"})


def test_resources(gw, agree):
    declared = gw.request("GET", "/kernelspecs/python3/kernel.js")
    head = gw.request("HEAD", "/kernelspecs/python3/kernel.js")
    logo = gw.request("GET", "/kernelspecs/python3/logo-64x64.png")
    agree(
        {
            "body": declared.body,
            "type": "javascript" in declared.headers["Content-Type"],
            "logo": (logo.status, logo.headers["Content-Type"]),
            "HEAD": (head.status, head.body, head.headers.get("Content-Length")),
            "unknown": gw.request("GET", "/kernelspecs/python3/logo-32x32.png").status,
            "unknown kernelspec": gw.request("GET", "/kernelspecs/nothing/kernel.js").status,
        },
        {
            "body": b"// declared\n",
            "type": True,
            "logo": (200, "image/png"),
            "HEAD": (200, b"", "12"),
            "unknown": 404,
            "unknown kernelspec": 404,
        },
    )


def test_mended_only_declared_resources_are_served(gw, agree):
    seen = {path: gw.request("GET", f"/kernelspecs/python3/{path}").status for path in ("kernel.json", "private.txt")}
    agree(seen, {"kernel.json": 404, "private.txt": 404})


def test_no_way_out_of_the_kernelspec(gw, agree):
    (gw.kernel_dir / "outside.txt").write_text("outside")
    paths = ("../outside.txt", "..%2foutside.txt", "%2e%2e/outside.txt", "%2fetc%2fpasswd", "kernel.js%00", "")
    agree(
        {path: gw.request("GET", f"/kernelspecs/python3/{path}").status // 100 for path in paths},
        dict.fromkeys(paths, 4),
    )


def test_kernelspecs_come_change_and_go_without_a_restart(gw, agree):
    gw.add_kernelspec("fleeting")
    came = wait_until(lambda: "fleeting" in names(gw), "a new kernelspec to be listed")
    gw.add_kernelspec("fleeting", display_name="Another name")
    changed = wait_until(
        lambda: gw.request("GET", "/api/kernelspecs/fleeting").json["spec"]["display_name"] == "Another name",
        "a changed kernelspec to be seen",
    )
    shutil.rmtree(gw.kernel_dir / "fleeting")
    went = wait_until(lambda: "fleeting" not in names(gw), "a removed kernelspec to be gone")
    agree({"came": came, "changed": changed, "went": went}, {"came": True, "changed": True, "went": True})


def test_mended_a_broken_kernelspec_hides_no_other_and_is_a_404(gw, agree):
    broken = gw.kernel_dir / "broken"
    broken.mkdir()
    (broken / "kernel.json").write_text("{not json")
    try:
        listed = names(gw)
        agree(
            {"listed": "python3" in listed, "broken": "broken" in listed,
             "one": gw.request("GET", "/api/kernelspecs/broken").status},
            {"listed": True, "broken": False, "one": 404},
        )  # fmt: skip
    finally:
        shutil.rmtree(broken)


def test_names_are_listed_in_lower_case(gw, agree):
    gw.add_kernelspec("MixedCase")
    try:
        wait_until(lambda: "mixedcase" in {name.lower() for name in names(gw)}, "the new kernelspec")
        agree(
            {
                "listed": {name for name in names(gw) if name.lower() == "mixedcase"},
                "lower": gw.request("GET", "/api/kernelspecs/mixedcase").status,
                "as written": gw.request("GET", "/api/kernelspecs/MixedCase").status,
            },
            {"listed": {"mixedcase"}, "lower": 200, "as written": 200},
        )
    finally:
        shutil.rmtree(gw.kernel_dir / "MixedCase")


def test_mended_the_list_of_allowed_kernelspecs_holds_for_starts_too(gateways, agree):
    gw = gateways(ALLOWED)
    gw.add_kernelspec("forbidden")
    agree(
        {
            "listed": names(gw),
            "one": gw.request("GET", "/api/kernelspecs/forbidden").status,
            "start": gw.request("POST", "/api/kernels", {"name": "forbidden"}).status,
        },
        {"listed": {"python3"}, "one": 404, "start": 404},
    )


@pytest.fixture
def users(gateways):
    gw = gateways(USERS)
    if not (gw.kernel_dir / "forthree").exists():
        proxy = "enterprise_gateway.services.processproxies.processproxy.LocalProcessProxy"

        def stanza(**config):
            return {"process_proxy": {"class_name": proxy, "config": config}}

        gw.add_kernelspec("foralice", metadata=stanza(authorized_users="alice,charlie"))
        gw.add_kernelspec("notbob", metadata=stanza(unauthorized_users="bob"))
        gw.add_kernelspec("fordave", metadata=stanza(authorized_users="dave"))
        gw.add_kernelspec("forthree", metadata=stanza(authorized_users="mallory,alice,bob"))
    return gw


def test_users_see_their_kernelspecs(users, agree):
    who = ("alice", "bob", "carol", "dave", "mallory", "eve")
    mine = {"foralice", "notbob", "fordave", "forthree", "python3"}
    agree(
        {user: names(users, f"?user={user}") & mine for user in who} | {"nobody named": names(users) & mine},
        {
            "alice": {"python3", "foralice", "notbob", "forthree"},
            "bob": {"python3", "forthree"},
            "carol": {"python3", "notbob"},
            "dave": {"fordave"},
            "mallory": set(),
            "eve": set(),
            "nobody named": mine,
        },
    )


def test_mended_users_are_names_and_not_parts_of_names(users, agree):
    agree(
        {"char": "foralice" in names(users, "?user=char"), "li": "foralice" in names(users, "?user=li"),
         "bo": users.request("GET", "/api/kernelspecs/foralice?user=lic").status},
        {"char": False, "li": False, "bo": 403},
    )  # fmt: skip


def test_one_kernelspec_for_a_user(users, agree):
    agree(
        {
            "alice": users.request("GET", "/api/kernelspecs/foralice?user=alice").status,
            "carol": users.error(users.request("GET", "/api/kernelspecs/foralice?user=carol")),
        },
        {"alice": 200, "carol": {"status": 403, "fields": {"reason": "str", "message": "str"}}},
    )


def test_users_start_their_kernelspecs(users, agree):
    def start(user, name):
        answer = users.request("POST", "/api/kernels", {"name": name, "env": {"KERNEL_USERNAME": user}})
        if answer.status == 201:
            users.delete_kernel(answer.json["id"])
        return answer.status

    pairs = [("alice", "foralice"), ("carol", "foralice"), ("bob", "notbob"), ("eve", "python3"),
             ("mallory", "python3"), ("dave", "fordave"), ("mallory", "forthree")]  # fmt: skip
    agree(
        {f"{user} {name}": start(user, name) for user, name in pairs} | {"left": len(users.list_kernels())},
        {
            "alice foralice": 201,
            "carol foralice": 403,
            "bob notbob": 403,
            "eve python3": 403,
            "mallory python3": 403,
            "dave fordave": 201,
            "mallory forthree": 403,
            "left": 0,
        },
    )


def test_root_may_start_nothing_by_default(gateways, agree):
    gw = gateways(Config(anybody=False))
    named = gw.request("POST", "/api/kernels", {"env": {"KERNEL_USERNAME": "root"}})
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    agree(gw.error(named), {"status": 403, "fields": {"reason": "str", "message": "str"}})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a gateway as root")
def test_mended_a_gateway_run_by_root_serves_who_names_no_user(gateways, agree):
    gw = gateways(Config(anybody=False))
    status = gw.request("POST", "/api/kernels", {"env": {}}).status
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    agree({"status": status}, {"status": 201})
