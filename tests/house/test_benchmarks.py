"""The benchmarks' harness: it measures, its sums are right, and nothing is left of it. No figure is judged."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from eg_launcher import frames
from eg_launcher.websocket import Opcode
from eg_launcher.wire import V1_SUBPROTOCOL

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import client, report, run
from benchmarks.samples import METRICS, Samples, percentile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")


@pytest.fixture
def short():
    """A folder with a path short enough for Unix sockets; the run's temporary files and processes are known by it."""
    with tempfile.TemporaryDirectory(prefix="egb-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def begin(root, folder, *arguments):
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "--only", "eg", "--out", folder / "out", *arguments],
            cwd=root,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )


def left_over(folder):
    """Processes that know this folder: all of a run's do, by their environment or by an argument."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        for file in ("cmdline", "environ"):
            try:
                known = str(folder).encode() in (process / file).read_bytes()
            except OSError:
                continue
            if known:
                found.append((process.name, (process / "cmdline").read_bytes()))
    return found


def until(condition, what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def test_a_smoke_run_measures_everything_it_drew_and_leaves_nothing(root, short):
    with begin(root, short, "--smoke", "--seed", "7") as process:
        table, _ = process.communicate(timeout=110)
    said = (short / "said").read_text()
    assert process.returncode == 0, said + table
    assert "seed 7" in said
    result = json.loads((short / "out" / "benchmark.json").read_text())
    assert result["failures"] == []
    measured = {row["key"]: row["values"]["eg"] for row in result["rows"]}
    wanted = {metric.key for metric in METRICS}
    assert wanted - set(measured) == set()
    assert all(values["median"] >= 0 for values in measured.values())
    assert measured["small_v1_bytes"]["median"] > 64
    assert measured["idle_many"]["median"] == run.SMOKE.many
    assert all(target["met"] is not None for target in result["targets"] if "EG's" not in target["target"])
    assert table.strip() == (short / "out" / "benchmark.md").read_text().strip()
    assert left_over(short) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process(root, short, signum):
    with begin(root, short, "--smoke", "--seed", "7") as process:
        until(lambda: "first_ipykernel" in (short / "said").read_text(), "it starts kernels")
        until(lambda: any(b"ipykernel_launcher" in words for _, words in left_over(short)), "there is a kernel")
        process.send_signal(signum)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert left_over(short) == []


def test_a_seed_draws_the_same_sample():
    assert run.plan_quick(3, ("eg",)).chosen == run.plan_quick(3, ("eg",)).chosen
    assert {run.plan_quick(seed, ("eg",)).chosen for seed in range(20)} != {run.plan_quick(3, ("eg",)).chosen}


def test_an_unknown_contestant_is_named():
    with pytest.raises(ValueError, match="nobody"):
        run.known(["eg", "nobody"])


def test_ratios_are_in_our_favour_whichever_way_the_metric_points():
    samples = Samples()
    by_key = {metric.key: metric for metric in METRICS}
    for key, ours, theirs in (("small_v1", 300.0, 100.0), ("echo_v1_p50", 1.0, 3.0), ("delete_stub", 3.0, 0.0)):
        samples.add(key, "eg", ours)
        samples.add(key, "EG", theirs)
    assert samples.ratio(by_key["small_v1"], "eg", "EG") == pytest.approx(3)
    assert samples.ratio(by_key["echo_v1_p50"], "eg", "EG") == pytest.approx(3)
    assert samples.ratio(by_key["delete_stub"], "eg", "EG") is None
    assert samples.ratio(by_key["small_v1"], "eg", "KG") is None


@pytest.mark.parametrize(
    ("ours", "theirs", "met"), [(1500.0, 100.0, True), (1499.0, 100.0, False), (1500.0, None, None)]
)
def test_a_target_is_reached_missed_or_not_measured(ours, theirs, met):
    samples = Samples()
    samples.add("small_v1", "eg", ours)
    samples.add("small_v1", "EG", theirs)
    assert report.TARGETS[0].judge(samples)["met"] is met


def test_percentiles_are_measured_values():
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([7.0], 99) == 7


@pytest.mark.parametrize("protocol", ["", V1_SUBPROTOCOL])
def test_the_client_speaks_both_sub_protocols(protocol):
    opcode, payload = client.encode({"msg_id": "m", "msg_type": "execute_request"}, {"code": "1"}, v1=bool(protocol))
    message = frames.decode(Opcode(opcode), payload, protocol or None)
    assert (message.channel, message.header["msg_id"]) == ("shell", "m")
    parts = [b'{"msg_id": "r"}', b'{"msg_id": "m"}', b"{}", b'{"status": "ok"}']
    opcode, buffers = frames.encode("shell", parts, protocol or None)
    decoded = client.decode(b"".join(buffers), v1=bool(protocol))
    assert decoded["channel"] == "shell"
    assert decoded["parent_header"] == {"msg_id": "m"}
    assert decoded["content"] == {"status": "ok"}


@pytest.fixture
def only_pings():
    """The port of a server that upgrades whoever comes, and then sends nothing but pings."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve():
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):  # the client has left
            while b"\r\n\r\n" not in sock.recv(65536):
                pass
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            while not ended.wait(0.02):
                sock.sendall(b"\x89\x00")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    ended.set()
    thread.join(10)
    listener.close()


@pytest.mark.parametrize("ask", [lambda channels: channels.first_output("1"), lambda channels: channels.burst(1)])
def test_what_does_not_come_is_not_awaited_for_ever(only_pings, ask):
    with client.Channels(only_pings, "/", "", timeout=0.3) as channels, pytest.raises(client.Failed, match="within"):
        ask(channels)


def test_what_an_incumbent_does_not_do_is_said_and_is_no_failure():
    one = run.Run(run.plan_smoke(1, ("eg", "EG")))
    one._began = time.monotonic()

    def fails():
        raise client.Failed("the socket was closed")

    one._try("small", "EG", fails)
    assert (one.failures, one.missing) == ([], ["small of EG: the socket was closed"])
    one._try("small", "eg", fails)
    assert one.failures == ["small of eg: the socket was closed"]
