"""Kernels, launchers and connections die at random while they are at work: nobody waits for ever."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from eg_integration.gateway import Gateway
from eg_integration.mortals import PATIENCE, Client, Killer

CLIENTS = 6
LIGHT_KERNEL = Path(__file__).parent / "eg_integration" / "light_kernel.py"


def write_light_kernelspec(gateway: Gateway) -> None:
    spec = gateway.folder / "jupyter" / "kernels" / "light"
    spec.mkdir()
    argv = [sys.executable, str(LIGHT_KERNEL), "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Light", "language": "stub"}))


@pytest.mark.parametrize("deaths", [60, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(1500)])])
def test_each_request_has_its_reply_or_a_reason_whatever_dies(
    new_gateway: Callable[..., Gateway], deaths: int, seed: int
) -> None:
    gateway = new_gateway()
    write_light_kernelspec(gateway)
    gateway.start()
    clients = [Client(gateway, gateway.start_kernel("light"), number, seed) for number in range(CLIENTS)]
    killer = Killer(gateway, clients, seed)
    for client in clients:
        client.start()
    try:
        while killer.deaths.total() < deaths:
            killer.strike()
    finally:
        for client in clients:
            client.end()
        for client in clients:
            client.join(60)
        outcomes = sum((client.outcomes for client in clients), Counter())
        slowest = max(client.slowest for client in clients)
        print(f"seed {seed}; deaths: {dict(killer.deaths)}; slowest {slowest:.2f} s after its time; {dict(outcomes)}")
    assert [client.wrong for client in clients if client.wrong or client.is_alive()] == []
    assert slowest < PATIENCE
    # It was none that hit nothing: most deaths end a request.
    assert sum(outcomes.values()) - outcomes["reply"] >= killer.deaths.total() // 4
    assert {model["id"] for model in gateway.list_kernels()} == {client.kernel_id for client in clients}
