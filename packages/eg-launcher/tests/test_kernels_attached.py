"""A kernel somebody else has started: served, interrupted by message, and asked to end; never killed."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from eg_launcher.kernels import KernelError
from launcher_kernel_host import HAS_SUBSHELLS, Client, until


@pytest.fixture
async def foreign(tmp_path):
    """A kernel on loopback TCP; its process and connection info."""
    from eg_launcher.connection_file import make_connection_info

    file = tmp_path / "connection.json"
    info = make_connection_info(tmp_path, name="python3", ipc=False)
    file.write_text(json.dumps(info))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ipykernel_launcher", "-f", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
    )
    try:
        yield process, info
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_it_is_served_like_any_other(kernel_host, foreign):
    process, info = foreign
    kernel = kernel_host.attached(info)
    await kernel.start()
    await until(lambda: kernel.state == "ready", "ready")
    client = Client(kernel)
    messages = await client.execute("x = 41; x + 1")
    assert [m.content["data"]["text/plain"] for m in messages if m.type == "execute_result"] == ["42"]
    described = kernel.describe()
    assert (described["process"], described["usage"], described["interrupt_mode"]) == (None, None, "message")

    msg_id = client.run("import time; print('now'); time.sleep(1000)")
    await until(lambda: client.text_of(msg_id), "the sleep")
    await kernel.interrupt()
    assert (await client.ended(msg_id, timeout=5)).content["ename"] == "KeyboardInterrupt"

    with pytest.raises(KernelError, match="cannot be restarted"):
        await kernel.restart()
    await kernel.shutdown(5.0)
    await asyncio.wait_for(process.wait(), 30)
    assert kernel.exit["reason"] == "shutdown"


@pytest.mark.skipif(not HAS_SUBSHELLS, reason="this ipykernel has no subshells to end the cell from")
async def test_a_busy_one_is_ready_and_busy_until_it_comes_to_us(kernel_host, foreign):
    _, info = foreign
    first = kernel_host.attached(info)
    await first.start()
    await until(lambda: first.state == "ready", "ready")
    runner = Client(first)
    msg_id = runner.run("import time; print('now')\nwhile not globals().get('enough'): time.sleep(0.01)")
    await until(lambda: runner.text_of(msg_id), "the loop")

    second = kernel_host.attached(info)
    await second.start()
    await until(lambda: second.state == "ready", "ready beside a cell that runs")
    assert second.execution_state == "busy"
    watcher = Client(second)
    assert watcher.messages[0].content == {"execution_state": "busy"}
    created = runner.request("create_subshell_request", {}, channel="control")
    reply = await until(lambda: runner.of(created, "create_subshell_reply"), "a subshell")
    runner.run("enough = True", subshell_id=reply[0].content["subshell_id"])
    await runner.ended(msg_id)
    await until(lambda: second.execution_state == "idle", "idle")
    assert watcher.is_idle(msg_id)  # another client's cell is seen, too
    await watcher.execute("1")
    second.close()


async def test_letting_go_of_it_leaves_it_alone(kernel_host, foreign):
    process, info = foreign
    kernel = kernel_host.attached(info)
    await kernel.start()
    await until(lambda: kernel.state == "ready", "ready")
    kernel.close()
    again = kernel_host.attached(info)
    await again.start()
    await until(lambda: again.state == "ready", "ready again")
    assert process.returncode is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shell_port": "x"}, "shell_port"),
        ({"iopub_port": 70000}, "iopub_port"),
        ({"transport": "udp"}, "transport"),
        ({"key": 5}, "key"),
        ({"public_key": "abc"}, "Curve"),
    ],
)
def test_connection_info_that_cannot_be_used(tmp_path, change, words):
    from eg_launcher.connection_file import check_connection_info, make_connection_info

    info = make_connection_info(Path(tmp_path), name="", ipc=False)
    assert check_connection_info(info) == info
    with pytest.raises(ValueError, match=words):
        check_connection_info({**info, **change})
