"""The launcher's log: bounded, private, and the place for last words."""

import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from eg_launcher.logfile import BoundedFile
from launcher_process import LauncherProcess, wait_until


@pytest.fixture
def logger():
    made = logging.Logger("a test's own")  # noqa: LOG001 - not the process's
    yield made
    for handler in made.handlers:
        handler.close()


def test_it_is_bounded_and_private(tmp_path, logger):
    path = tmp_path / "log"
    logger.addHandler(BoundedFile(str(path), limit=1000))
    for number in range(200):
        logger.info("line %d %s", number, "\udcff" * 20)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.1"]
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 2500
    assert [stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()] == [0o600, 0o600]
    assert "line 199 " in path.read_text() + Path(f"{path}.1").read_text()


def test_it_goes_on_when_its_folder_is_gone(tmp_path, logger):
    folder = tmp_path / "folder"
    folder.mkdir()
    logger.addHandler(BoundedFile(str(folder / "log"), limit=100))
    (folder / "log").unlink()
    folder.rmdir()
    for number in range(200):
        logger.info("line %d", number)
    assert os.fstat(logger.handlers[0].stream.fileno()).st_size < 200


def run_detached(path, code):
    program = f"import sys; from eg_launcher import logfile; logfile.configure(sys.argv[1])\n{code}"
    return subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)


def test_nothing_but_the_log_grows_and_an_error_nobody_caught_is_in_it(tmp_path):
    code = (
        "logfile.detach(sys.argv[1]); print('chat', 'ter', sep='', file=sys.stderr, flush=True)\n"
        "raise RuntimeError('no way out')"
    )
    done = run_detached(tmp_path / "log", code)
    assert (done.stdout, done.stderr) == ("", "")
    assert "RuntimeError: no way out" in (tmp_path / "log").read_text()
    assert "chatter" not in (tmp_path / "log").read_text()


def test_a_thread_that_ends_by_an_error_is_in_it(tmp_path):
    code = """
import threading
logfile.detach(sys.argv[1])
thread = threading.Thread(target=int, args=("x",))
thread.start()
thread.join()
"""
    assert run_detached(tmp_path / "log", code).returncode == 0
    assert "invalid literal for int()" in (tmp_path / "log").read_text()


def test_a_fatal_signal_is_in_the_newest_file(tmp_path):
    code = (
        "import logging, os, signal; logfile.detach(sys.argv[1]); h = logging.getLogger().handlers[0]; h._limit = 60\n"
        "logging.info('x' * 100); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    assert run_detached(tmp_path / "log", code).returncode == -signal.SIGSEGV
    assert "xxx" in (tmp_path / "log.1").read_text()
    assert "Fatal Python error: Segmentation fault" in (tmp_path / "log").read_text()


def test_a_launcher_lets_go_of_stderr_when_it_is_ready(tmp_path):
    launcher = LauncherProcess("unix", tmp_path)
    try:
        wait_until(
            lambda: str(Path(f"/proc/{launcher.pid}/fd/2").readlink()) == os.devnull, what="stderr is not let go"
        )
    except PermissionError:
        pytest.skip("the launcher's descriptors can only be seen as root")
    finally:
        launcher.end()
    assert "the launcher ends: it was told to" in launcher.log.read_text()
