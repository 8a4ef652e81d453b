"""Which kernels are ended because of a limit: the rule, then on real kernels."""

import asyncio
import logging
import time
from dataclasses import replace

import pytest

from eg_core.kernels.culling import Culler, CullPolicy, Facts, facts_of, verdict, was_culled, words
from eg_core.kernels.states import KernelState
from eg_core.options.culling import CullingOptions, LimitOptions
from gateway_support import exists, gateway, until
from test_kernels_registry import new, ready

QUIET = Facts("idle", activity_age=100.0, busy_age=None, age=1000.0, connections=0)
IDLE = CullPolicy(idle_timeout=60)


@pytest.mark.parametrize(
    ("policy", "facts", "reason"),
    [
        (CullPolicy(), QUIET, None),
        (IDLE, QUIET, "culled_idle"),
        (IDLE, replace(QUIET, activity_age=60.0), None),
        (IDLE, replace(QUIET, activity_age=None), None),
        (IDLE, replace(QUIET, execution_state="busy"), None),
        (IDLE, replace(QUIET, execution_state="starting"), None),
        (IDLE, replace(QUIET, execution_state="None"), None),
        (replace(IDLE, busy=True), replace(QUIET, execution_state="busy"), "culled_idle"),
        (replace(IDLE, busy=True), replace(QUIET, execution_state="unknown"), None),
        (IDLE, replace(QUIET, connections=1), "culled_idle"),
        (replace(IDLE, connected=False), replace(QUIET, connections=1), None),
        (replace(IDLE, connected=False), QUIET, "culled_idle"),
        (
            CullPolicy(busy_timeout=60),
            replace(QUIET, execution_state="busy", busy_age=61.0, connections=1),
            "culled_busy",
        ),
        (CullPolicy(busy_timeout=60), replace(QUIET, execution_state="busy", busy_age=59.0), None),
        (CullPolicy(busy_timeout=60), QUIET, None),
        (CullPolicy(max_age=999), replace(QUIET, connections=3, activity_age=0.0), "culled_age"),
        (CullPolicy(max_age=1001), QUIET, None),
        (CullPolicy(max_age=1), replace(QUIET, age=None), None),
    ],
)
def test_the_rule(policy, facts, reason):
    why = verdict(policy, facts)
    assert (why and why.reason) == reason


def test_the_words_name_the_limit():
    assert verdict(CullPolicy(idle_timeout=3600), replace(QUIET, activity_age=7300.0)).message == (
        "The kernel was ended because nothing has happened for 2 hours; the limit is 60 minutes (cull_idle_timeout)."
    )
    assert [words(seconds) for seconds in (0.4, 119, 120, 86399, 172800)] == [
        "0 seconds", "119 seconds", "2 minutes", "23 hours", "2 days",
    ]  # fmt: skip


def test_a_kernelspec_has_the_last_word():
    site = CullPolicy(idle_timeout=60, connected=True)
    assert site.for_kernelspec({}) == site
    assert site.for_kernelspec({"cull_idle_timeout": 5}).idle_timeout == 5
    assert site.for_kernelspec({"cull_idle_timeout": 0}).idle_timeout == 0
    own = {
        "cull_idle_timeout": 7,
        "cull_connected": False,
        "cull_busy": True,
        "cull_busy_timeout": 8,
        "cull_max_age": 9,
    }
    assert site.for_kernelspec({"cull_idle_timeout": 5, "eg": own}) == CullPolicy(7, 8, 9, connected=False, busy=True)
    assert site.for_kernelspec({"eg": {"cull_busy": None, "backend": "local"}}) == site


@pytest.mark.parametrize(
    "metadata",
    [
        {"cull_idle_timeout": "60"},
        {"cull_idle_timeout": True},
        {"cull_idle_timeout": -1},
        {"cull_idle_timeout": float("nan")},
        {"eg": {"cull_max_age": [1]}},
        {"eg": {"cull_connected": "yes"}},
    ],
)
def test_what_a_kernelspec_says_wrongly_is_named(metadata):
    with pytest.raises(ValueError, match="cull_"):
        CullPolicy().for_kernelspec(metadata)


@pytest.fixture
async def culled(tmp_path, short_tmp):
    """Gives ``culled(metadata, **policy)``: a registry, and a culler that is asked by hand."""
    async with gateway(tmp_path, short_tmp) as registry:

        def make(metadata=None, **policy):
            registry.settings = replace(registry.settings, culling=CullPolicy(**policy))
            return registry, Culler(registry, lambda _: metadata or {})

        yield make


class Client:
    def __init__(self, kernel):
        self.closed = None
        kernel.sockets.add(self)

    def close(self, code, reason):
        self.closed = self.closed or (code, reason)


async def look_until(culler, condition, what):
    async def looking():
        while not condition():
            await culler.look()
            await asyncio.sleep(0.05)

    try:
        await asyncio.wait_for(looking(), 20)
    except asyncio.TimeoutError:
        raise AssertionError(what) from None


async def test_an_idle_kernel_is_ended_and_says_why(culled, monkeypatch):
    registry, culler = culled(idle_timeout=0.5)
    events = []

    async def observe(event):
        events.append((event.name, event.reason))

    monkeypatch.setattr(registry.hooks, "observe_event", observe)
    kernel = await ready(registry, new())
    assert await culler.look() == 0
    pid, client = kernel.process.pid, Client(kernel)
    await look_until(culler, lambda: kernel.state is KernelState.DEAD, "it is not ended")
    model = kernel.model()
    assert (model["execution_state"], model["reason_code"]) == ("dead", "culled_idle")
    assert "nothing has happened for" in model["reason"]
    assert model["exit"]["reason"] == "culled"
    await until(lambda: client.closed, "its client is told")
    assert client.closed == (4002, model["reason"])
    assert not exists(pid)
    assert ("culled", "culled_idle") in events
    await registry.restart(kernel.id)
    await asyncio.wait_for(kernel.settled(), 30)
    assert kernel.state is KernelState.READY


async def test_the_launcher_is_asked_once_for_all_its_kernels_and_knows_better(culled, monkeypatch):
    registry, culler = culled(busy_timeout=0.5)
    kernels = [await ready(registry, new()) for _ in range(2)]
    link = kernels[0].link
    assert kernels[1].link is link
    asked = []
    real = link.client.status

    async def status():
        asked.append(1)
        return await real()

    monkeypatch.setattr(link.client, "status", status)
    assert await culler.look() == 0
    assert asked == []
    for kernel in kernels:
        kernel.description = {**kernel.description, "busy_age": 9.0, "execution_state": "busy"}
    assert await culler.look() == 0
    assert asked == [1]
    assert {kernel.state for kernel in kernels} == {KernelState.READY}


async def test_an_old_kernel(culled):
    registry, culler = culled(max_age=0.5)
    kernel = await ready(registry, new())
    await look_until(culler, lambda: kernel.state is KernelState.DEAD, "it is not ended")
    assert kernel.model()["reason_code"] == "culled_age"
    await until(kernel.gone.is_set, "it is gone")


async def test_a_kernelspec_may_forbid_it(culled):
    registry, culler = culled({"cull_idle_timeout": 0}, idle_timeout=0.01)
    kernel = await ready(registry, new())
    await until(lambda: facts_of(kernel, time.monotonic()).activity_age > 0.1, "it is quiet")
    assert await culler.look() == 0


async def test_a_kernelspec_that_is_wrong_is_said_once_and_the_gateways_limits_count(culled, caplog):
    registry, culler = culled({"cull_idle_timeout": "soon"}, idle_timeout=1000)
    await ready(registry, new())
    with caplog.at_level(logging.WARNING):
        await culler.look()
        await culler.look()
    assert caplog.text.count("cull_idle_timeout must be a number of seconds") == 1


async def test_what_is_unknown_is_not_idle(culled):
    registry, culler = culled(idle_timeout=0.01, max_age=0.01)
    kernel = await ready(registry, new())
    kernel.link.connected.clear()
    assert facts_of(kernel, time.monotonic() + 1000) is None
    assert await culler.look() == 0
    kernel.link.connected.set()
    kernel.description = {"execution_state": "idle"}
    facts = facts_of(kernel, time.monotonic())
    assert (facts.activity_age, facts.busy_age, facts.age) == (None, None, None)


async def test_a_gateway_that_ended_in_the_middle_of_it_goes_on(tmp_path, short_tmp):
    """The record says that it was culled, and the launcher does not know yet."""
    async with gateway(tmp_path, short_tmp, end=False) as registry:
        kernel = await ready(registry, new())
        pid = kernel.process.pid
        why = {"reason": "culled", "code": None, "signal": None, "stderr": [], "message": "because"}
        await registry.store.update_kernel(kernel.id, state="dead", reason="culled_idle", message="because", exit=why)
    assert exists(pid)
    async with gateway(tmp_path, short_tmp) as registry:
        kernel = registry.kernel(kernel.id)
        assert was_culled(kernel)
        await until(lambda: not exists(pid), "it is ended")


def test_the_options_make_the_policy():
    options = CullingOptions(cull_idle_timeout=5, cull_connected=False, cull_interval=-1)
    assert options.cull_policy() == CullPolicy(5.0, connected=False)
    assert options.cull_interval == 300
    assert CullingOptions().cull_policy() == CullPolicy()


def test_the_options_make_the_launchers_limits():
    limits = LimitOptions(allow_tracebacks=False, allowed_message_types="execute_request").limits()
    assert limits == {
        "allow_tracebacks": False,
        "traceback_replacement_message": LimitOptions.traceback_replacement_message.default_value,
        "allowed_message_types": ["execute_request"],
        "iopub_msg_rate_limit": 0.0,
        "iopub_data_rate_limit": 0.0,
        "rate_limit_window": 3.0,
        "ws_ping_interval": 30,
    }
