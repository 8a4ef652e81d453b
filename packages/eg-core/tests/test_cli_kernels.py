"""``eg kernels`` against a real gateway with a real kernel."""

import json
import subprocess
import sys
import time

import pytest

from eg_core.cli import kernels as command
from eg_core.testing.plugin import gateway, gateway_client, make_gateway  # noqa: F401 - fixtures


@pytest.fixture
def eg(gateway, capfd):  # noqa: F811 - a fixture
    def run(*argv, token=gateway.token, url=gateway.url):
        code = command.run(list(argv), {"EG_URL": url, "EG_AUTH_TOKEN": token})
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_kernel_from_list_to_stop(eg, gateway_client):  # noqa: F811 - a fixture
    assert eg("list") == (0, "There is no kernel.\n", "")
    kernel_id = gateway_client.start("python3")["id"]
    code, out, _ = eg("list")
    head, row = out.splitlines()
    assert code == 0
    assert head.split() == ["ID", "KERNELSPEC", "STATE", "CLIENTS", "IDLE"]
    assert row.split()[:4] == [kernel_id, "python3", "idle", "0"]
    assert [kernel["id"] for kernel in json.loads(eg("list", "--json")[1])] == [kernel_id]
    assert eg("interrupt", kernel_id[:8])[:2] == (0, f"{kernel_id} interrupted\n")
    assert eg("restart", kernel_id)[:2] == (0, f"{kernel_id} restarted\n")
    code, out, _ = eg("log", kernel_id[:8].upper())
    assert code == 0
    assert eg("stop", kernel_id[:8])[:2] == (0, f"{kernel_id} stopped\n")
    code, _, err = eg("stop", kernel_id)
    assert code == 1
    assert "No kernels have an id that begins with" in err


def test_what_a_kernel_wrote_is_shown(eg, gateway_client):  # noqa: F811 - a fixture
    kernel_id = gateway_client.start("python3")["id"]
    with gateway_client.channels(kernel_id) as channels:
        channels.execute("import os; os.write(1, b'from the process itself\\n')")
    deadline = time.monotonic() + 20
    while "from the process itself" not in (found := eg("log", kernel_id)[1]):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_what_goes_wrong_is_one_line(eg):
    for token, url, words in (
        ("wrong", None, "set EG_AUTH_TOKEN"),
        ("x", "http://127.0.0.1:1", "cannot be reached"),
        ("x", "ftp://127.0.0.1", "must begin with http"),
    ):
        code, out, err = eg("list", token=token, **({"url": url} if url else {}))
        assert (code, out) == (1, "")
        assert words in err
        assert len(err.splitlines()) == 1
        assert "Traceback" not in err


def test_it_is_a_command():
    argv = [sys.executable, "-m", "eg_core.cli.main", "kernels", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "interrupt" in done.stdout


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (59, "59 s"), (61, "1 min"), (7300, "2 h"), (90000, "1 d")])
def test_ages(seconds, words):
    from datetime import datetime, timedelta, timezone

    then = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    assert command._age(then.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) == words


def test_an_age_that_is_none():
    assert command._age("") == ""
