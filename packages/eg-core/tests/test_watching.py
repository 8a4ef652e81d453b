"""What operators see of a real gateway: metrics, the log, the record of events; and who may see it."""

import json
import re
import time
import urllib.error
import urllib.request

import pytest

from eg_core.testing.plugin import make_gateway  # noqa: F401 - a fixture

DEADLINE = 30.0


def fetch(gateway, path, *, token=True, headers=None, method="GET", body=None):
    """(status, headers, text)."""
    sent = {"Authorization": f"token {gateway.token}"} if token else {}
    request = urllib.request.Request(gateway.url + path, body, {**sent, **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def metrics(gateway):
    status, headers, text = fetch(gateway, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def until(look, what):
    deadline = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def test_a_kernels_life_in_the_metrics(make_gateway):  # noqa: F811
    gateway = make_gateway()
    client = gateway.client
    kernel_id = client.start("python3")["id"]
    with client.channels(kernel_id) as channels:
        channels.execute("print('x' * 100_000)")
        found = metrics(gateway)
        assert found['eg_kernels{backend="local",state="ready"}'] == 1
        assert found['eg_channels{backend="local"}'] == 1
        assert found['eg_channels_bytes_total{direction="to_client"}'] > 100_000
        assert 100 < found['eg_channels_bytes_total{direction="to_kernel"}'] < 100_000
        for phase in ("launcher", "start", "answer"):
            assert found[f'eg_launch_phase_seconds_count{{backend="local",phase="{phase}"}}'] == 1
        assert found['eg_http_request_duration_seconds_count{handler="KernelsHandler",method="POST",status="201"}'] == 1
        assert found['eg_http_request_duration_seconds_count{handler="ChannelsHandler",method="GET",status="101"}'] == 1
    client.restart(kernel_id)
    with client.channels(kernel_id) as channels:
        channels.request("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        until(lambda: client.kernel(kernel_id)["execution_state"] == "dead", "death")
    found = metrics(gateway)
    assert found['eg_kernel_restarts_total{backend="local"}'] == 1
    assert found['eg_kernel_deaths_total{backend="local",reason="signalled"}'] == 1
    assert found['eg_kernels{backend="local",state="dead"}'] == 1
    assert not any(kernel_id in name for name in found)


def test_a_failed_launch_is_counted_by_its_reason(make_gateway, tmp_path):  # noqa: F811
    (tmp_path / "bad").mkdir()
    spec = {"argv": ["/no/such/program", "{connection_file}"], "display_name": "bad", "language": "x"}
    (tmp_path / "bad" / "kernel.json").write_text(json.dumps(spec))
    gateway = make_gateway(env={"JUPYTER_PATH": ""}, log_level=20)
    status, _, _ = fetch(gateway, "/api/kernels", method="POST", body=b'{"name": "nosuch"}')
    assert status == 404
    gateway.stop()
    (gateway.folder / "home/.local/share/jupyter/kernels").mkdir(parents=True)
    (tmp_path / "bad").rename(gateway.folder / "home/.local/share/jupyter/kernels/bad")
    gateway.start()
    status, _, _ = fetch(gateway, "/api/kernels", method="POST", body=b'{"name": "bad"}')
    assert status == 500
    found = metrics(gateway)
    assert [name for name in found if name.startswith("eg_launch_failures_total")] == [
        'eg_launch_failures_total{backend="local",reason="exec_failed"}'
    ]


def test_metrics_want_the_token_unless_opened(make_gateway):  # noqa: F811
    gateway = make_gateway()
    assert fetch(gateway, "/metrics", token=False)[0] == 401
    assert fetch(gateway, "/metrics")[0] == 200
    status, headers, text = fetch(gateway, "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert (status, text.splitlines()[-1]) == (200, "# EOF")
    assert "openmetrics" in headers["Content-Type"]
    opened = make_gateway(env={"EG_AUTHENTICATE_PROMETHEUS": "false"})
    assert fetch(opened, "/metrics", token=False)[0] == 200
    assert fetch(opened, "/api/kernels", token=False)[0] == 401


def lines(gateway):
    found = []
    for line in gateway.log.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            raise AssertionError(f"not JSON: {line}") from None
    return found


def test_every_line_is_json_and_says_what_it_is_about(make_gateway):  # noqa: F811
    gateway = make_gateway(env={"EG_LOG_FORMAT": "json"})
    body = json.dumps({"name": "python3", "env": {"KERNEL_USERNAME": "ann"}}).encode()
    status, headers, text = fetch(
        gateway, "/api/kernels?x=1", method="POST", body=body, headers={"X-Request-ID": "from-the-proxy-1"}
    )
    assert (status, headers["X-Request-ID"]) == (201, "from-the-proxy-1")
    kernel_id = json.loads(text)["id"]

    def of_request():
        return [line for line in lines(gateway) if line["request_id"] == "from-the-proxy-1"]

    [request] = until(lambda: [line for line in of_request() if "http" in line], "the line of the request")
    launch = of_request()
    assert {line["kernel_id"] for line in launch} == {kernel_id}
    assert {line["user"] for line in launch} >= {"ann"}
    assert any("launched" in line["message"] for line in launch)
    assert request["http"] | {"ms": 0} == {
        "method": "POST", "path": "/api/kernels", "status": 201, "ms": 0, "remote_ip": "127.0.0.1",
    }  # fmt: skip
    _, other, _ = fetch(gateway, f"/api/kernels/{kernel_id}", headers={"X-Request-ID": "no good"})
    assert re.fullmatch(r"[0-9a-f]{32}", other["X-Request-ID"])
    gateway.client.shut_down(kernel_id)
    until(lambda: any("ended" in line["message"] for line in lines(gateway)), "the kernel's end")
    assert all(
        set(line) >= {"time", "level", "logger", "message", "request_id", "user", "kernel_id"}
        for line in lines(gateway)
    )
    # What follows from the launcher's own word, a death say, is no request's, though a request opened the link to it.
    second = gateway.client.start("python3")["id"]
    with gateway.client.channels(second) as channels:
        channels.request("import os; os._exit(3)")
        [died] = until(lambda: [line for line in lines(gateway) if ": died" in line["message"]], "death")
    assert (died["kernel_id"], died["request_id"]) == (second, None)


def test_no_token_in_the_log(make_gateway):  # noqa: F811
    for style in ("human", "json"):
        gateway = make_gateway(env={"EG_LOG_FORMAT": style}, log_level=10)
        fetch(gateway, f"/api/kernels?token={gateway.token}", token=False)
        fetch(gateway, f"/{gateway.token}", token=False)
        kernel_id = gateway.client.start("python3")["id"]
        with gateway.client.channels(kernel_id) as channels:
            channels.execute("1")
        gateway.client.shut_down(kernel_id)
        assert "/api/kernels" in gateway.log
        assert gateway.token not in gateway.log


def test_enterprise_gateways_line_format(make_gateway):  # noqa: F811
    gateway = make_gateway()
    fetch(gateway, "/api", headers={"X-Request-ID": "abc"})
    until(lambda: "abc" in gateway.log, "the request's line")
    [line] = [line for line in gateway.log.splitlines() if "abc" in line]
    assert re.fullmatch(
        r"\[I \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} EnterpriseGatewayApp\] 200 GET /api [\d.]+ ms "
        r"\{request_id=abc user=\w+\}",
        line,
    )


def test_a_log_format_that_is_none_is_refused(make_gateway):  # noqa: F811
    with pytest.raises(RuntimeError, match="log_format must be 'human', 'json' or a format string"):
        make_gateway(env={"EG_LOG_FORMAT": "xml"})


def test_events_are_recorded(make_gateway):  # noqa: F811
    gateway = make_gateway()
    gateway.stop()
    record = gateway.folder / "events.jsonl"
    folder = gateway.folder / "home" / ".jupyter"
    folder.mkdir()
    (folder / "jupyter_config.py").write_text(
        f"import logging\nc.EventLogger.handlers = [logging.FileHandler({str(record)!r})]\n"
    )
    gateway.start()
    kernel_id = gateway.client.start("python3")["id"]
    gateway.client.interrupt(kernel_id)
    gateway.client.restart(kernel_id)
    gateway.client.shut_down(kernel_id)
    until(lambda: '"ended"' in record.read_text(), "the last event")
    found = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["event"] for line in found] == ["launching", "launched", "interrupted", "restarting", "ended"]
    assert {line["kernel_id"] for line in found} == {kernel_id}
    assert {(line["kernelspec"], line["backend"]) for line in found} == {("python3", "local")}
