"""``eg doctor``: what it finds, how it tells, and that a bad check or plugin hurts no other."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from eg_core.cli import doctor
from eg_core.cli.doctor import run_checks
from eg_core.errors import GatewayError
from eg_core.types import Check, CheckResult


@pytest.fixture
def environment(short_tmp):
    hidden = ("JUPYTER", "EG_", "KG_", "XDG_", "KERNEL_", "IPYTHONDIR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    run = short_tmp / "run"
    run.mkdir(mode=0o700)
    return {**kept, "HOME": str(short_tmp), "XDG_RUNTIME_DIR": str(run), "EG_AUTH_TOKEN": secrets.token_hex(16)}


def examine(environment, *args, timeout=100):
    """(exit code, results by name) of a real run."""
    argv = [sys.executable, "-m", "eg_core.cli.main", "doctor", "--json", *args]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(done.stdout + done.stderr) from None
    assert answer["ok"] == (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in answer["checks"]}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_all_is_well(environment, short_tmp):
    code, found = examine(environment, f"--port={free_port()}")
    assert {name: check["status"] for name, check in found.items() if check["status"] != "ok"} == {}
    assert code == 0
    assert {"core.store", "core.token", "local.launcher", "local.runtime-dir"} <= set(found)
    assert not (short_tmp / ".local").exists(), "a doctor changes nothing"


def test_text_has_a_line_a_check_and_hints(environment):
    argv = [sys.executable, "-m", "eg_core.cli.main", "doctor", f"--port={free_port()}", "core"]
    done = subprocess.run(argv, env={**environment, "EG_AUTH_TOKEN": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn  core.token" in done.stdout
    assert "→ Set EG_AUTH_TOKEN" in done.stdout
    assert "local." not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("1 to look at, 0 failed")


def test_a_taken_port_an_open_address_and_a_bad_folder(environment, tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as sock:
        port = sock.getsockname()[1]
        (tmp_path / "file").touch()
        code, found = examine(
            {**environment, "EG_AUTH_TOKEN": ""},
            "--ip=0.0.0.0",
            f"--port={port}",
            "--port_retries=0",
            f"--data-dir={tmp_path / 'file'}",
        )
    assert code == 1
    failed = {name: check["detail"] for name, check in found.items() if check["status"] == "fail"}
    assert set(failed) >= {"core.port", "core.token", "core.data-dir"}
    assert f"{port} is in use" in failed["core.port"]
    assert "can be reached from other machines" in failed["core.token"]


def test_kernelspecs_that_cannot_work_are_named(environment, tmp_path):
    for name, spec in {
        "python3": {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]},
        "gone": {"argv": ["/no/such/program", "{connection_file}"]},
        "deaf": {"argv": ["python", "-m", "ipykernel_launcher"]},
        "far": {"argv": ["python"], "metadata": {"eg": {"backend": "moon", "config": {}}}},
        "broken": {"argv": "python"},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.json").write_text(json.dumps({"display_name": name, "language": "python", **spec}))
    code, found = examine(environment, f"--KernelspecFinder.kernel_dirs={tmp_path}", "core.kernelspecs", "core.default")
    assert code == 0
    detail = found["core.kernelspecs"]["detail"]
    assert found["core.kernelspecs"]["status"] == "warn"
    for words in (
        "/no/such/program, which is not there",
        "no {connection_file}",
        "'moon', which is not here",
        "broken",
    ):
        assert words in detail
    code, found = examine(
        environment, f"--KernelspecFinder.kernel_dirs={tmp_path}", "--EnterpriseGatewayApp.default_kernel_name=no",
        "core.default",
    )  # fmt: skip
    assert (code, found["core.default-kernel"]["status"]) == (1, "fail")


def test_a_store_with_another_key(environment, short_tmp):
    data = short_tmp / "data"
    code, _ = examine(environment, f"--data-dir={data}", "core.store")
    assert code == 0
    from eg_core.store.keys import load_key
    from eg_core.store.store import Store

    async def make():
        store = Store(f"sqlite:///{data / 'eg.db'}", load_key(data, None))
        await store.open()
        await store.close()

    asyncio.run(make())
    assert examine(environment, f"--data-dir={data}", "core.store")[0] == 0
    code, found = examine({**environment, "EG_STORE_KEY": "00" * 32}, f"--data-dir={data}", "core.store")
    assert code == 1
    assert "another key" in found["core.store"]["detail"]


def test_a_wrong_configuration_is_a_failed_check(environment, tmp_path):
    code, found = examine(environment, "--EnterpriseGatewayApp.lease=-1")
    assert code == 1
    assert list(found) == ["core.configuration"]
    config = tmp_path / "config.py"
    config.write_text("1 / 0\n")
    code, found = examine(environment, f"--config={config}")
    assert (code, list(found)) == (1, ["core.configuration"])


def test_a_kernel_is_started_and_nothing_is_left(environment, short_tmp):
    code, found = examine(environment, "--launch=python3", "core.python")
    assert code == 0
    assert "answered after" in found["launch.python3"]["detail"]
    code, found = examine(environment, "--launch=nosuch", "core.python")
    assert code == 1
    assert "no kernelspec named 'nosuch'" in found["launch.nosuch"]["detail"]
    deadline = time.monotonic() + 30
    while left := processes_of(short_tmp):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def processes_of(folder):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            seen = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if os.fsencode(folder) in seen and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_bytes())
    return found


# -- in this process ------------------------------------------------------------------------------------------------


def check(name, result, timeout=5.0):
    async def run():
        value = result() if callable(result) else result
        return await value if asyncio.iscoroutine(value) else value

    return Check(name, "", run, timeout)


def boom():
    raise ZeroDivisionError("no")


def expected():
    raise GatewayError("It is away.")


async def test_what_a_check_raises_or_does_not_say_is_its_own_failure():
    findings = await run_checks(
        [
            check("a", CheckResult("ok", "fine")),
            check("b", boom),
            check("c", expected),
            check("d", lambda: asyncio.sleep(60), timeout=0.05),
        ]
    )
    assert [finding.result.status for finding in findings] == ["ok", "fail", "fail", "fail"]
    assert "ZeroDivisionError: no" in findings[1].result.detail
    assert findings[2].result.detail == "It is away."
    assert "within 0.05 s" in findings[3].result.detail
    assert [finding.late for finding in findings] == [False, False, False, True]


async def test_checks_run_side_by_side():
    both = asyncio.Barrier(2) if sys.version_info >= (3, 11) else None
    if both is None:
        pytest.skip("asyncio.Barrier is of Python 3.11")

    async def meet():
        await both.wait()
        return CheckResult("ok", "met")

    findings = await run_checks([check("a", meet), check("b", meet)])
    assert [finding.result.status for finding in findings] == ["ok", "ok"]


async def test_a_broken_plugin_is_a_failed_check_and_the_others_are_asked(monkeypatch):
    good = [entry for entry in metadata.entry_points(group="eg") if entry.name == "local"]
    bad = metadata.EntryPoint("bad", "no_such_module:Plugin", "eg")
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [*good, bad])
    app = doctor.EnterpriseGatewayApp()
    broken, hooks = doctor._load_plugins(app)
    assert [each.name for each in broken] == ["core.plugins", "bad.plugin"]
    assert "no_such_module" in (await broken[1].run()).detail
    assert [one.name for each in hooks for one in each.doctor_checks()] == [
        "local.platform", "local.runtime-dir", "local.launcher",
    ]  # fmt: skip


def test_a_broken_launcher_is_said(monkeypatch):
    from eg_core.builtin import doctor as local

    assert local.launcher([sys.executable, "-c", "raise SystemExit('boom')"], os.environ).status == "fail"
    assert "cannot be run" in local.launcher(["/no/such/launcher"], os.environ).detail
    monkeypatch.setattr(local, "VERSION_TIMEOUT", 0.2)
    assert "said nothing" in local.launcher([sys.executable, "-c", "import time; time.sleep(60)"], os.environ).detail
    assert "protocol 99" in local.launcher([sys.executable, "-c", "print('9 (protocol 99)')"], os.environ).detail
