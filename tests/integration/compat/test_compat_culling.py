"""Idle kernels are ended, if the operator says so. Three gateways do so at the same time, each configured otherwise."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from eg_compat.gateways import Config

CULL = ("--MappingKernelManager.cull_idle_timeout=3", "--MappingKernelManager.cull_interval=1")
QUIET = 3 + 2
"""Seconds after which whatever is still there is spared: the timeout, and two looks."""
CONFIGS = {
    "default": Config(args=CULL),
    "eager": Config(
        args=(*CULL, "--MappingKernelManager.cull_connected=True", "--MappingKernelManager.cull_busy=True")
    ),
    "sparing": Config(args=(*CULL, "--MappingKernelManager.cull_connected=False")),
}
SLEEP = "import time; time.sleep(60)"


@pytest.fixture(scope="module")
def left(gateways):
    """By configuration: which of four kernels are left when no more go, and how one that went is answered for."""
    running = [gateways(config) for config in CONFIGS.values()]
    with ThreadPoolExecutor(len(running)) as pool:
        return dict(zip(CONFIGS, pool.map(look_after, running), strict=True))


def look_after(gw):
    kernels = {}

    def start(name):
        kernels[name] = gw.start_kernel()
        channels = gw.connect(kernels[name])
        # What an incumbent has asked for meanwhile is answered before: it takes any idle for the cell's.
        channels.finish(channels.send("kernel_info_request", {}, channel="control"))
        code = SLEEP if "busy" in name else "1"
        channels.execute(code)
        channels.wait_for(lambda m: m.type == "execute_input", "the cell to begin")
        return channels

    with start("connected and busy"), start("connected"):
        start("busy").close()
        kernels["idle"] = gw.start_kernel()
        there, since = set(kernels), time.monotonic()
        while time.monotonic() - since < QUIET or "idle" in there:
            still = {name for name in kernels if is_there(gw, kernels[name])}
            if still != there:
                there, since = still, time.monotonic()
            assert time.monotonic() - since < 4 * QUIET, f"nothing is culled: {there}"
            time.sleep(0.1)
        status = gw.request("GET", f"/api/kernels/{kernels['idle']}").status
    gw.delete_all_of(model["id"] for model in gw.list_kernels())
    return {**{name: name in there for name in kernels}, "status of a culled one": status}


def is_there(gw, kernel_id):
    answer = gw.request("GET", f"/api/kernels/{kernel_id}")
    return answer.status == 200 and answer.json["execution_state"] != "dead"


def test_by_default_busy_kernels_are_spared(left, agree):
    agree(
        left["default"],
        {"idle": False, "busy": True, "connected": False, "connected and busy": True, "status of a culled one": 200},
    )


def test_connected_kernels_can_be_spared(left, agree):
    agree(
        left["sparing"],
        {"idle": False, "busy": True, "connected": True, "connected and busy": True, "status of a culled one": 200},
    )


def test_connected_and_busy_kernels_can_be_culled_too(left, agree):
    agree(
        left["eager"],
        {"idle": False, "busy": False, "connected": False, "connected and busy": False, "status of a culled one": 200},
    )
