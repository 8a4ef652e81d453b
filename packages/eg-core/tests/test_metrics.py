"""What is counted, and what Prometheus gets to read."""

import asyncio
import re

import pytest

from eg_core.metrics import PHASES, KernelCount, Metrics, Watched, word
from eg_core.types import KernelEvent


def event(name, reason=None):
    return KernelEvent(name, "some-kernel-id", "python3", "local", "ann", 0.0, reason, "words")


def samples(metrics):
    body, content_type = metrics.exposition("")
    assert content_type.startswith("text/plain")
    return dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))


def test_events_failures_deaths_and_restarts_are_counted():
    metrics = Metrics()
    for one in [
        event("launching"),
        event("launch_failed", "launch_timeout"),
        event("died", "oom_killed"),
        event("restarting"),
        event("restarting"),
    ]:
        metrics.event(one)
    found = samples(metrics)
    assert found['eg_kernel_events_total{backend="local",event="launching"}'] == "1.0"
    assert found['eg_launch_failures_total{backend="local",reason="launch_timeout"}'] == "1.0"
    assert found['eg_kernel_deaths_total{backend="local",reason="oom_killed"}'] == "1.0"
    assert found['eg_kernel_restarts_total{backend="local"}'] == "2.0"
    assert not any('="ann"' in name or "some-kernel-id" in name for name in found)


def test_phases_and_requests_are_histograms():
    metrics = Metrics()
    for phase in PHASES:
        metrics.launch_phase("local", phase, 0.2)
    metrics.http("KernelsHandler", "GET", 200, 0.002)
    metrics.http("KernelsHandler", "BREW", 405, 0.002)
    found = samples(metrics)
    assert found['eg_launch_phase_seconds_count{backend="local",phase="answer"}'] == "1.0"
    assert found['eg_launch_phase_seconds_bucket{backend="local",le="0.25",phase="answer"}'] == "1.0"
    assert 'eg_http_request_duration_seconds_count{handler="KernelsHandler",method="GET",status="200"}' in found
    assert 'eg_http_request_duration_seconds_count{handler="KernelsHandler",method="other",status="405"}' in found


def test_links_and_replays_are_histograms():
    metrics = Metrics()
    metrics.linked("first", 0.02)
    metrics.linked("again", 1.0)
    metrics.replayed(0.3)
    text = metrics.exposition("")[0].decode()
    assert 'eg_channels_link_seconds_sum{kind="again"} 1.0' in text
    assert 'eg_channels_link_seconds_count{kind="first"} 1.0' in text
    assert "eg_channels_replay_seconds_sum 0.3" in text


def test_kernels_channels_and_bytes_are_asked_for_when_somebody_looks():
    metrics = Metrics()
    kernels = [KernelCount("ready", "local", 2), KernelCount("ready", "gpu", 1), KernelCount("dead", "local", 0)]
    asked = []

    def look():
        asked.append(1)
        return kernels

    metrics.watch(Watched(("ready", "dead"), look, lambda: (30, 12)))
    assert not asked
    found = samples(metrics)
    assert found['eg_kernels{backend="local",state="ready"}'] == "1.0"
    assert found['eg_kernels{backend="local",state="dead"}'] == "1.0"
    assert found['eg_kernels{backend="gpu",state="dead"}'] == "0.0"
    assert found['eg_channels{backend="local"}'] == "2.0"
    assert found['eg_channels_bytes_total{direction="to_client"}'] == "30.0"
    assert found['eg_channels_bytes_total{direction="to_kernel"}'] == "12.0"
    kernels.clear()
    assert 'eg_kernels{backend="local",state="ready"}' not in samples(metrics)


def test_two_gateways_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.event(event("launching"))
    assert 'eg_kernel_events_total{backend="local",event="launching"}' not in samples(other)


def test_openmetrics_for_who_asks_for_it():
    body, content_type = Metrics().exposition("application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in content_type
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=x", "text/plain;version=;q=", "\xff", ",;"])
def test_an_accept_header_that_makes_no_sense_is_answered(accept):
    assert b"process_" in Metrics().exposition(accept)[0]


@pytest.mark.parametrize(
    ("reason", "label"),
    [("exec_failed", "exec_failed"), (None, "unknown"), ("No such file: /x", "other"), ("a" * 41, "other")],
)
def test_only_words_become_labels(reason, label):
    assert word(reason) == label


async def test_a_blocked_loop_shows(monkeypatch):
    monkeypatch.setattr("eg_core.metrics.LAG_EVERY", 0.01)
    metrics = Metrics()
    task = asyncio.create_task(metrics.watch_loop())
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.3
    while loop.time() < until:  # blocks: that is the point
        pass
    deadline = loop.time() + 10
    while float(samples(metrics)["eg_loop_lag_seconds_sum"]) < 0.25:
        assert loop.time() < deadline
        await asyncio.sleep(0.01)
    task.cancel()


def test_the_process_itself_is_shown():
    assert any(re.match(r"process_open_fds", name) for name in samples(Metrics()))
