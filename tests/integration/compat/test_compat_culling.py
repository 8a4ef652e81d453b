"""Idle kernels are ended, if the operator says so."""

from __future__ import annotations

import time

from eg_compat.gateways import Config
from eg_integration.waiting import wait_until

IDLE, CHECK = 4, 1
CULL = ("--MappingKernelManager.cull_idle_timeout=4", "--MappingKernelManager.cull_interval=1")
DEFAULT = Config(args=CULL)
EAGER = Config(args=(*CULL, "--MappingKernelManager.cull_connected=True", "--MappingKernelManager.cull_busy=True"))
SPARING = Config(args=(*CULL, "--MappingKernelManager.cull_connected=False"))


def after_a_while(gw):
    """Which of four kernels are still there once an idle one, which nobody is connected to, has been culled."""
    kernels = {}
    sleep = "import time; time.sleep(60)"

    def open_one(name):
        kernels[name] = gw.start_kernel()  # each is used at once: an incumbent that is slow culls it while others start
        channels = gw.connect(kernels[name])
        if "busy" in name:
            channels.execute(sleep)
            channels.wait_for(lambda m: m.type == "execute_input", "the cell to begin")
        return channels

    with open_one("connected and busy"), open_one("connected") as one:
        open_one("busy").close()
        one.run("1")
        kernels["idle"] = gw.start_kernel()

        def there(name):
            answer = gw.request("GET", f"/api/kernels/{kernels[name]}")
            return answer.status == 200 and answer.json["execution_state"] != "dead"

        wait_until(lambda: not there("idle"), "the idle kernel to be culled", 15)
        began = time.monotonic()  # the others were started or used a little later
        wait_until(
            lambda: time.monotonic() - began > IDLE + 2 * CHECK or not any(there(name) for name in kernels),
            "the others to be culled or not",
        )
        left: dict[str, object] = {name: there(name) for name in kernels}
        left["status of a culled one"] = gw.request("GET", f"/api/kernels/{kernels['idle']}").status
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    return left


def test_by_default_busy_kernels_are_spared(gateways, agree):
    agree(
        after_a_while(gateways(DEFAULT)),
        {"idle": False, "busy": True, "connected": False, "connected and busy": True, "status of a culled one": 200},
    )


def test_connected_kernels_can_be_spared(gateways, agree):
    agree(
        after_a_while(gateways(SPARING)),
        {"idle": False, "busy": True, "connected": True, "connected and busy": True, "status of a culled one": 200},
    )


def test_connected_and_busy_kernels_can_be_culled_too(gateways, agree):
    agree(
        after_a_while(gateways(EAGER)),
        {"idle": False, "busy": False, "connected": False, "connected and busy": False, "status of a culled one": 200},
    )
