"""A configuration file that changes while the gateway runs."""

from __future__ import annotations

import time

import pytest
from eg_compat.gateways import CONFIG_FILE, Config
from eg_integration.waiting import wait_until

WATCHED = Config(env={"DYNAMIC_CONFIG_INTERVAL": "1"}, file="c.KernelSpecManager.whitelist = ['python3', 'other']",
                 raw={"EG_UNAUTHORIZED_USERS": ""}, anybody=False)  # fmt: skip


@pytest.fixture
def gw(gateways):
    gw = gateways(WATCHED)
    gw.add_kernelspec("other")
    return gw


def write(gw, text):
    """Change the file; its time of change is later by whole seconds, as far as any file system counts."""
    import os

    file = gw.folder / "config" / f"{CONFIG_FILE[gw.kind]}.py"
    file.write_text(text)
    later = time.time() + write.count
    write.count += 2
    os.utime(file, (later, later))


write.count = 2


def follows(condition):
    try:
        return bool(wait_until(condition, "the change to be followed", 5))
    except AssertionError:
        return False


def test_allowed_kernelspecs_follow_the_file(gw, agree):
    def listed():
        return set(gw.request("GET", "/api/kernelspecs").json["kernelspecs"])

    wait_until(lambda: listed() == {"python3", "other"}, "both kernelspecs")
    write(gw, "c.KernelSpecManager.whitelist = ['python3']")
    fewer = follows(lambda: listed() == {"python3"})
    write(gw, "c.KernelSpecManager.whitelist = ['python3', 'other']")
    agree({"fewer": fewer, "more": follows(lambda: listed() == {"python3", "other"})}, {"fewer": True, "more": True})


def test_users_follow_the_file(gw, agree):
    def start():
        answer = gw.request("POST", "/api/kernels", {"env": {"KERNEL_USERNAME": "mallory"}})
        if answer.status == 201:
            gw.delete_kernel(answer.json["id"])
        return answer.status

    before = start()
    write(gw, "c.EnterpriseGatewayApp.unauthorized_users = {'mallory'}")
    after = follows(lambda: start() == 403)
    write(gw, "c.EnterpriseGatewayApp.unauthorized_users = {'nobody'}")
    agree({"before": before, "refused": after}, {"before": 201, "refused": True})


def test_mended_limits_and_origins_follow_the_file_too(gw, agree):
    def start():
        answer = gw.request("POST", "/api/kernels", {"env": {"KERNEL_USERNAME": "alice"}})
        if answer.status == 201:
            gw.delete_kernel(answer.json["id"])
        return answer.status

    write(gw, "c.EnterpriseGatewayApp.max_kernels = 0\nc.EnterpriseGatewayApp.allow_origin = 'https://pages.example'\n"
              "c.EnterpriseGatewayApp.list_kernels = True")  # fmt: skip
    agree(
        {
            "max_kernels": follows(lambda: start() == 403),
            "allow_origin": follows(
                lambda: gw.request("GET", "/api").headers.get("Access-Control-Allow-Origin") == "https://pages.example"
            ),
        },
        {"max_kernels": True, "allow_origin": True},
    )


def test_what_the_environment_says_stays(gw, agree):
    write(gw, "c.EnterpriseGatewayApp.allow_methods = 'GET'")
    token = gw.request("GET", "/api", token=None).status
    agree({"token": token}, {"token": 401})
