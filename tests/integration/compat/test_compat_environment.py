"""Which variables reach a kernel: the client's, the gateway's, the kernelspec's, and in which order."""

from __future__ import annotations

import pytest
from eg_compat.gateways import Config

SECRET, OWN = "GATEWAYS_OWN_SECRET", "of-the-gateway"
PLAIN = Config()
LISTED = Config(env={"CLIENT_ENVS": "ALLOWED,ALSO_ALLOWED", "INHERITED_ENVS": f"{SECRET},NOT_THERE"})
ALL = Config(env={"CLIENT_ENVS": "*"})


def environment(gw, body):
    """What the kernel that ``body`` asks for finds in its environment."""
    answer = gw.request("POST", "/api/kernels", body)
    assert answer.status == 201, answer.words
    try:
        with gw.connect(answer.json["id"]) as channels:
            return channels.value("dict(__import__('os').environ)")
    finally:
        gw.delete_kernel(answer.json["id"])


def test_by_default_only_kernel_variables_of_the_client_pass(gateways, agree):
    gw = gateways(PLAIN)
    sent = {"KERNEL_MINE": "a b$c", "KERNEL_EMPTY": "", "ALLOWED": "x", "LD_PRELOAD": "/nothing", "kernel_lower": "x"}
    found = environment(gw, {"name": "python3", "env": sent})
    agree(
        {name: found.get(name) for name in [*sent, "KERNEL_GATEWAY", SECRET, "EG_AUTH_TOKEN", "KG_AUTH_TOKEN"]}
        | {"PATH": "PATH" in found},
        {
            "KERNEL_MINE": "a b$c",
            "KERNEL_EMPTY": "",
            "ALLOWED": None,
            "LD_PRELOAD": None,
            "kernel_lower": None,
            "KERNEL_GATEWAY": "1",
            SECRET: None,
            "EG_AUTH_TOKEN": None,
            "KG_AUTH_TOKEN": None,
            "PATH": True,
        },
    )


def test_mended_a_start_without_env_inherits_nothing_of_the_gateways(gateways, agree):
    found = environment(gateways(PLAIN), {"name": "python3"})
    agree(
        {SECRET: found.get(SECRET), "token": [n for n in found if n.endswith("AUTH_TOKEN")], "gateway": found.get(
            "KERNEL_GATEWAY")},
        {SECRET: None, "token": [], "gateway": "1"},
    )  # fmt: skip


def test_listed_variables_pass(gateways, agree):
    gw = gateways(LISTED)
    sent = {"ALLOWED": "client", "ALSO_ALLOWED": "client too", "OTHER": "x", "KERNEL_A": "1"}
    found = environment(gw, {"name": "python3", "env": sent})
    own = environment(gw, {"name": "python3", "env": {SECRET: "of-the-client"}})
    agree(
        {**{name: found.get(name) for name in [*sent, SECRET, "NOT_THERE"]}, "client over inherited": own.get(SECRET)},
        {
            "ALLOWED": "client",
            "ALSO_ALLOWED": "client too",
            "OTHER": None,
            "KERNEL_A": "1",
            SECRET: OWN,
            "NOT_THERE": None,
            "client over inherited": OWN,
        },
    )


def test_a_star_lets_all_variables_of_the_client_pass(gateways, agree):
    found = environment(gateways(ALL), {"name": "python3", "env": {"ANYTHING": "goes", "KERNEL_A": "1"}})
    agree(
        {"ANYTHING": found.get("ANYTHING"), "KERNEL_A": found.get("KERNEL_A"), SECRET: found.get(SECRET)},
        {"ANYTHING": "goes", "KERNEL_A": "1", SECRET: None},
    )


@pytest.mark.parametrize("config", [LISTED], ids=["listed"])
def test_the_kernelspecs_own_variables(gateways, agree, config):
    gw = gateways(config)
    gw.add_kernelspec(
        "withenv",
        env={
            "PLAIN": "spec",
            "KERNEL_A": "spec",
            "ALLOWED": "spec",
            "FROM_CLIENT": "<$KERNEL_A>",
            "BRACED": "<${KERNEL_A}>",
            "UNKNOWN": "$NOT_KNOWN-${NOT_KNOWN}",
            "SHELL_STYLE": "${NOT_KNOWN:-default}",
        },
    )
    sent = {"KERNEL_A": "client", "ALLOWED": "client", "PLAIN": "client"}
    found = environment(gw, {"name": "withenv", "env": sent})
    names = ["PLAIN", "KERNEL_A", "ALLOWED", "FROM_CLIENT", "BRACED", "UNKNOWN", "SHELL_STYLE"]
    agree(
        {name: found.get(name) for name in names},
        {
            "PLAIN": "spec",
            "KERNEL_A": "client",
            "ALLOWED": "client",
            "FROM_CLIENT": "<client>",
            "BRACED": "<client>",
            "UNKNOWN": "$NOT_KNOWN-${NOT_KNOWN}",
            "SHELL_STYLE": "${NOT_KNOWN:-default}",
        },
    )


def test_the_gateway_says_who_and_which_kernel(gateways, agree):
    gw = gateways(PLAIN)
    answer = gw.request("POST", "/api/kernels", {"env": {"KERNEL_USERNAME": "alice"}})
    kernel_id = answer.json["id"]
    with gw.connect(kernel_id) as channels:
        found = channels.value("dict(__import__('os').environ)")
    gw.delete_kernel(kernel_id)
    agree(
        {"KERNEL_ID": found.get("KERNEL_ID") == kernel_id, "KERNEL_USERNAME": found.get("KERNEL_USERNAME"),
         "KERNEL_LANGUAGE": found.get("KERNEL_LANGUAGE")},
        {"KERNEL_ID": True, "KERNEL_USERNAME": "alice", "KERNEL_LANGUAGE": "python"},
    )  # fmt: skip


def test_mended_no_request_sees_the_variables_of_another(fresh, agree):
    """Two overlapping starts, then one that sends nothing."""
    gw = fresh(PLAIN).start()
    bodies = [{"env": {"KERNEL_SECRET": f"of {who}", "KERNEL_USERNAME": who}} for who in ("alice", "bob")]
    started = [answer.status for answer in gw.at_once("POST", "/api/kernels", bodies)]
    secret = environment(gw, {"name": "python3"}).get("KERNEL_SECRET")
    agree({"started": started, "secret": secret}, {"started": [201, 201], "secret": None})
