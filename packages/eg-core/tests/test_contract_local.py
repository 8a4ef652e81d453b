"""The contract suite over the local backend: the shortest backend there is."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from eg_core.testing.client import wait_for
from eg_core.testing.contract import BackendContract
from eg_core.testing.rig import Subject, marked


@pytest.fixture
def runtime_dir():
    path = Path(tempfile.mkdtemp(prefix="eg-c-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


class TestLocal(BackendContract):
    @pytest.fixture
    def backend(self, runtime_dir):
        settings = {"type": "local", "runtime_dir": str(runtime_dir), "stray_age": 0.0}
        return Subject(
            "local",
            settings,
            lease=3.0,
            broken={**settings, "launcher_command": ["/no/such/launcher"]},
        )


LAUNCH = """
import asyncio, os, pathlib, sys
from eg_core.testing.rig import Rig, Subject

async def main(runtime_dir):
    settings = {"type": "local", "runtime_dir": runtime_dir}
    subject = Subject("local", settings, lease=2.0)
    rig = Rig(subject, pathlib.Path(runtime_dir), gateway_id="g", environ=dict(os.environ))
    await rig.open()
    print("open", flush=True)
    await rig.launch()
    print("launched", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


def test_a_gateway_killed_at_any_time_of_a_launch_leaves_nothing(runtime_dir):
    """Whatever it had started ends by itself: nobody is connected, and there is no kernel."""
    gateways = []
    try:
        for number in range(6):
            folder = runtime_dir / str(number)
            folder.mkdir(mode=0o700)
            argv = [sys.executable, "-c", LAUNCH, str(folder)]
            gateways.append((number, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)))
        for number, gateway in gateways:
            assert gateway.stdout.readline() == "open\n"
            if number == 5:
                assert gateway.stdout.readline() == "launched\n"
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    gateway.wait(number * 0.04)
            gateway.kill()
            gateway.wait()
            gateway.stdout.close()
        wait_for(lambda: marked(str(runtime_dir)) == [], 30, "no launcher is left")
    finally:
        for _, gateway in gateways:
            gateway.kill()
            gateway.wait()
            gateway.stdout.close()
        for pid in marked(str(runtime_dir)):
            os.kill(pid, signal.SIGKILL)


class TestWhatCanBeCut:
    """The contract's one test that the local backend has no means for, over a fake that has."""

    rig = BackendContract.rig
    test_poll_says_unknown = BackendContract.test_poll_says_unknown_when_it_cannot_know

    @pytest.fixture
    def backend(self, runtime_dir):
        away = runtime_dir / "away"

        @contextlib.contextmanager
        def cut():
            away.touch()
            yield
            away.unlink()

        settings = {"type": "eg_core.testing.fakes:LosesContact", "runtime_dir": str(runtime_dir), "away": str(away)}
        return Subject("fake", settings, lease=2.0, cut=cut)
