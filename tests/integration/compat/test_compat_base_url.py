"""Everything below a base URL, however it is written."""

from __future__ import annotations

import pytest
from eg_compat.gateways import Config


@pytest.fixture(params=["/gate/way", "gate/way", "/gate/way/"])
def gw(request, gateways):
    return gateways(Config(env={"BASE_URL": request.param}))


def test_mended_everything_is_below_the_base_url_however_it_is_written(gw, agree):
    root = gw.url.split("/gate")[0]
    gw.url = root + "/gate/way"
    started = gw.request("POST", "/api/kernels", {"name": "python3"})
    kernel_id = started.json["id"]
    try:
        with gw.connect(kernel_id) as channels:
            value = channels.value("6 * 7")
        resources = gw.request("GET", "/api/kernelspecs").json["kernelspecs"]["python3"]["resources"]
        gw.url = root
        outside = {path: gw.request("GET", path).status for path in ("/api", "/api/kernels", "/gate/api")}
        agree(
            {
                "location": started.headers["Location"] == f"/gate/way/api/kernels/{kernel_id}",
                "value": value,
                "resource": resources.get("kernel.js"),
                "resource answers": gw.request("GET", resources["kernel.js"]).status,
                "outside": set(outside.values()),
            },
            {
                "location": True,
                "value": 42,
                "resource": "/gate/way/kernelspecs/python3/kernel.js",
                "resource answers": 200,
                "outside": {404},
            },
        )
    finally:
        gw.url = root + "/gate/way"
        gw.delete_kernel(kernel_id)
