"""A kernel's life, on real kernels: ready, execute, interrupt, restart, and every way to end."""

import asyncio
import base64
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from eg_launcher import relay
from eg_launcher.kernels import KernelError
from eg_launcher.spawner import SpawnError
from eg_launcher.websocket import Opcode
from eg_launcher.wire import CLOSE_KERNEL_ENDED, PEER_GWCLIENT, V1_SUBPROTOCOL
from launcher_kernel_host import HAS_SUBSHELLS, IPYKERNEL, Client, until

NEEDS_SUBSHELLS = pytest.mark.skipif(not HAS_SUBSHELLS, reason="this ipykernel has no subshells")
PROTOCOLS = pytest.mark.parametrize("subprotocol", [None, V1_SUBPROTOCOL], ids=["json", "v1"])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


# -- a living kernel ----------------------------------------------------------------------------------------


@PROTOCOLS
async def test_a_cell_with_everything(kernel_host, subprotocol):
    kernel = kernel_host.kernel()
    await kernel.start()
    assert kernel.state == "starting"
    client = Client(kernel, subprotocol=subprotocol)

    messages = await client.execute(
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7"
    )  # held until ready
    idle = client.messages[0]
    assert (idle.type, idle.content, idle.parent) == ("status", {"execution_state": "idle"}, {})
    assert idle.header["session"] == kernel.session == messages[0].header["session"]
    msg_id = messages[0].parent_id
    assert client.text_of(msg_id) == "out\n"
    assert client.text_of(msg_id, "stderr") == "err\n"
    (result,) = client.of(msg_id, "execute_result")
    assert result.content["data"] == {"text/plain": "42"}
    assert client.of(msg_id, "execute_reply")[0].content["status"] == "ok"

    error = await client.execute("1 / 0")
    assert [m.content["ename"] for m in error if m.type == "error"] == ["ZeroDivisionError"]

    image = base64.b64encode(os.urandom(300_000)).decode()
    shown = await client.execute(
        f"from IPython.display import display\ndisplay({{'image/png': '{image}'}}, raw=True)\n"
        "handle = display('one', display_id=True)\nhandle.update('two')"
    )
    assert [m.content["data"].get("image/png") for m in shown if m.type == "display_data"] == [image, None]
    first, second = (m for m in shown if "display_id" in m.content.get("transient", {}))
    assert second.type == "update_display_data"
    assert first.content["transient"] == second.content["transient"]

    # Nothing of the launcher's own, nor of the kernel's beginnings, is ever seen.
    assert not [m for m in client.messages if m.type in ("iopub_welcome", "kernel_info_reply")]
    assert not [m for m in client.messages if m.content.get("execution_state") == "starting"]
    assert kernel_host.changes[-1][1:] == ("ready", "idle")


@PROTOCOLS
async def test_input_is_asked_of_who_runs_the_cell(kernel_host, subprotocol):
    kernel = await kernel_host.ready()
    asker, other = Client(kernel, subprotocol=subprotocol), Client(kernel, subprotocol=subprotocol)
    msg_id = asker.run("name = input('who? ')\nprint('hello', name)")
    prompt = await asker.first("input_request")
    assert (prompt.channel, prompt.content["prompt"], prompt.parent_id) == ("stdin", "who? ", msg_id)
    asker.request("input_reply", {"value": "Ada", "status": "ok"}, channel="stdin")
    await asker.ended(msg_id)
    assert asker.text_of(msg_id) == "hello Ada\n"
    assert not [m for m in other.messages if m.type in ("input_request", "execute_reply")]
    await until(lambda: other.text_of(msg_id) == "hello Ada\n", "the other's view")


async def test_two_clients_see_all_output_but_only_their_own_replies(kernel_host):
    kernel = await kernel_host.ready()
    one, two = Client(kernel), Client(kernel, subprotocol=V1_SUBPROTOCOL)
    first, second = one.run("print('from one')"), two.run("print('from two')")
    await one.ended(first)
    await two.ended(second)
    await until(lambda: one.is_idle(second) and two.is_idle(first), "each other's idle")
    assert one.text_of(second) == "from two\n"
    assert two.text_of(first) == "from one\n"
    assert [m.parent_id for m in one.messages if m.type == "execute_reply"] == [first]
    assert [m.parent_id for m in two.messages if m.type == "execute_reply"] == [second]


async def test_a_session_that_came_back_gets_its_reply(kernel_host):
    kernel = await kernel_host.ready()
    before = Client(kernel, session_id="one")
    msg_id = before.run("import time; time.sleep(0.3); print('late')")
    await until(lambda: before.of(msg_id), "busy")
    before.channel.on_close()
    assert kernel.execution_state == "busy"
    after = Client(kernel, session_id="one")
    assert after.messages[0].content == {"execution_state": "busy"}  # first, the truth
    await after.ended(msg_id)
    assert after.text_of(msg_id) == "late\n"
    assert not before.of(msg_id, "execute_reply")


@PROTOCOLS
async def test_comms_carry_buffers_both_ways(kernel_host, subprotocol):
    kernel = await kernel_host.ready()
    client = Client(kernel, subprotocol=subprotocol)
    await client.execute(
        "def opened(comm, msg):\n"
        "    @comm.on_msg\n"
        "    def received(msg):\n"
        "        comm.send({'n': len(msg['buffers'])}, buffers=[bytes(msg['buffers'][0])[::-1], b'\\xff' * 100_000])\n"
        "from IPython import get_ipython\n"
        "get_ipython().kernel.comm_manager.register_target('mirror', opened)"
    )
    client.request("comm_open", {"comm_id": "c1", "target_name": "mirror", "data": {}})
    msg_id = client.request("comm_msg", {"comm_id": "c1", "data": {}}, buffers=[b"\x00\x01\x02\xfe"])
    await until(lambda: client.is_idle(msg_id), "the comm's end")
    (answer,) = client.of(msg_id, "comm_msg")
    assert answer.content["data"] == {"n": 1}
    assert answer.buffers == [b"\xfe\x02\x01\x00", b"\xff" * 100_000]
    assert answer.opcode is Opcode.BINARY


async def test_gwclient_is_spared_what_would_kill_it(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel, peer=PEER_GWCLIENT)
    msg_id = client.run(
        "from ipykernel.comm import Comm\n"
        "comm = Comm('t', buffers=[b'x'])\ncomm.send({}, buffers=[b'x'])\n"
        "from IPython.display import display\n"
        "display({'text/plain': 'x' * (11 << 20)}, raw=True)\nprint('after')"
    )
    await client.ended(msg_id)
    assert all(m.opcode is Opcode.TEXT for m in client.messages)
    assert "left out" in client.text_of(msg_id, "stderr")
    assert not client.of(msg_id, "display_data", "comm_open", "comm_msg")
    assert client.text_of(msg_id) == "after\n"
    msg_id = client.run("display({'text/plain': 'x' * (11 << 20)}, raw=True)")
    await client.ended(msg_id)
    assert "11.0 MiB" in client.text_of(msg_id, "stderr")
    assert "10 MiB" in client.text_of(msg_id, "stderr")


async def test_a_reply_too_large_for_gwclient_still_ends_its_request(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel, peer=PEER_GWCLIENT)
    content = {"code": "", "user_expressions": {"big": "'x' * (11 << 20)"}}
    msg_id = client.request("execute_request", content)
    reply = await client.ended(msg_id)
    assert reply.content["status"] == "error"
    assert "10 MiB" in reply.content["evalue"]


async def test_a_50_mb_message_both_ways(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel, subprotocol=V1_SUBPROTOCOL)
    await client.execute(
        "def opened(comm, msg): comm.send({}, buffers=[bytes(msg['buffers'][0])])\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)"
    )
    data = os.urandom(1_000_000) * 50
    msg_id = client.request("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}}, buffers=[data])
    await until(lambda: client.is_idle(msg_id), "the echo's end")
    assert client.of(msg_id, "comm_msg")[0].buffers == [data]


@NEEDS_SUBSHELLS
async def test_only_the_main_shell_makes_it_busy(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel)
    created = client.request("create_subshell_request", {}, channel="control")
    reply = await until(lambda: client.of(created, "create_subshell_reply"), "a subshell")
    subshell = reply[0].content["subshell_id"]
    main = client.run("import time\nwhile not globals().get('enough'): time.sleep(0.01)")
    await until(lambda: kernel.execution_state == "busy", "busy")
    beside = await client.execute("print('beside')", subshell_id=subshell)
    assert client.text_of(beside[0].parent_id) == "beside\n"
    assert kernel.execution_state == "busy"
    asked = client.request("kernel_info_request", {}, channel="control")
    await until(lambda: client.is_idle(asked), "control's idle")
    assert kernel.execution_state == "busy"
    await client.execute("enough = True", subshell_id=subshell)
    await client.ended(main)
    assert kernel.execution_state == "idle"
    during = client.run("import time; time.sleep(0.5)", subshell_id=subshell)
    await until(lambda: client.of(during, "execute_input"), "the subshell's cell")
    assert kernel.execution_state == "idle"
    await client.ended(during)


@pytest.mark.parametrize("mode", ["signal", "message"])
async def test_interrupt_keeps_variables(kernel_host, mode):
    kernel = await kernel_host.ready(interrupt_mode=mode)
    client = Client(kernel)
    msg_id = client.run("x = 41\nimport time\nprint('now')\ntime.sleep(1000)")
    await until(lambda: client.text_of(msg_id), "the sleep")
    await kernel.interrupt()
    reply = await client.ended(msg_id, timeout=5)
    assert reply.content["ename"] == "KeyboardInterrupt"
    await kernel.interrupt()  # idle: harmless
    processed = client.request("kernel_info_request", {}, channel="control")
    await until(lambda: client.is_idle(processed), "control behind the interrupt")
    after = await client.execute("x + 1")
    assert [m.content["data"]["text/plain"] for m in after if m.type == "execute_result"] == ["42"]
    assert not [m for m in client.messages if m.type == "interrupt_reply"]


async def test_interrupt_under_a_flood_is_quick(kernel_host):
    kernel = await kernel_host.ready()
    flooded, patient = Client(kernel, count_only=True), Client(kernel)
    await patient.execute("def stop(*_):\n    global stopped\n    stopped = time.time()\n    raise KeyboardInterrupt")
    patient.connection.paused = True  # this one only wants the end
    msg_id = patient.run("import signal, time\nsignal.signal(signal.SIGINT, stop)\nwhile True: print('x' * 1000)")
    await until(lambda: flooded.connection.bytes > 5_000_000, "a flood")
    began = time.time()
    await kernel.interrupt()
    await until(lambda: kernel.execution_state == "idle", "idle")
    patient.connection.paused = False
    patient.channel.on_drain()
    assert (await patient.ended(msg_id)).content["ename"] == "KeyboardInterrupt"
    told = await patient.execute("print(stopped)")
    took = float(patient.text_of(told[0].parent_id)) - began
    assert 0 < took < 1.0, f"{took:.3f} s"


async def test_a_slow_client_neither_holds_up_others_nor_memory(kernel_host):
    kernel = await kernel_host.ready()
    kernel_host.room.disk = 50_000_000  # of the 300 MB to come
    slow, quick = Client(kernel), Client(kernel, count_only=True)
    await slow.execute("pass")
    before = rss()
    slow.connection.paused = True
    msg_id = slow.run("for i in range(300): print('x' * 1_000_000, flush=True)\nprint('done')")
    await until(lambda: kernel.execution_state == "busy", "busy")
    await until(lambda: kernel.execution_state == "idle", "the end of the flood", timeout=60)
    assert quick.connection.bytes > 300_000_000
    assert kernel.journal.bytes < 40 << 20
    assert rss() - before < 150 << 20
    slow.connection.paused = False
    slow.channel.on_drain()
    reply = await slow.ended(msg_id)  # what ends a cell is never lost
    assert reply.content["status"] == "ok"
    assert "were lost here" in slow.text_of(msg_id, "stderr")
    assert slow.text_of(msg_id).endswith("done\n")
    assert [m.header["session"] for m in slow.of(msg_id, "stream")] == [kernel.session] * len(slow.of(msg_id, "stream"))


def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_what_a_kernel_does_not_take_waits_in_order_and_holds_up_no_interrupt(kernel_host, monkeypatch):
    monkeypatch.setattr(relay, "_SEND_HWM", 20)
    kernel = await kernel_host.ready()
    client = Client(kernel)
    blocked = client.run("import time\nprint('now')\nwhile True: time.sleep(0.01)")
    await until(lambda: client.text_of(blocked), "the sleep")
    pid = kernel.describe()["process"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    asked = []
    while client.connection.reading and len(asked) < 5000:
        asked.append(client.request("is_complete_request", {"code": "x" * 16_000}))
    assert not client.connection.reading  # held here, and no more is read
    client.request("interrupt_request", {}, channel="control")
    os.kill(pid, signal.SIGCONT)
    await client.ended(blocked)
    await until(lambda: client.connection.reading, "reading again")
    await until(lambda: client.is_idle(asked[-1]), "the last one's end")
    assert [m.parent_id for m in client.messages if m.type == "is_complete_reply"] == asked


async def test_a_message_that_makes_no_sense_is_dropped(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel)
    client.channel.on_message(Opcode.TEXT, b"{")
    client.channel.on_message(Opcode.BINARY, b"\x00\x00\x00\x01")
    msg_id = client.request("execute_request", {"code": "1"}, channel="iopub")
    await until(lambda: "dropped" in client.text_of(msg_id, "stderr"), "the notice")
    await client.execute("1")
    assert client.connection.closed is None


# -- restart ------------------------------------------------------------------------------------------------


async def test_restart_in_place_keeps_sockets_and_journal(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel)
    await client.execute("x = 1")
    epoch, session, pid = kernel.journal.epoch, kernel.session, kernel.describe()["process"]["pid"]
    waiting = client.run("import time; print('now'); time.sleep(1000)")
    await until(lambda: client.text_of(waiting), "the sleep")
    queued = client.run("print('never')")

    restarting = asyncio.ensure_future(kernel.restart())
    await until(lambda: kernel.state == "restarting", "restarting")
    seen = len(client.messages)
    held = client.run("print('x' in globals())")  # for the new one
    await restarting
    for msg_id in (waiting, queued):
        reply = await client.ended(msg_id)
        assert reply.content["ename"] == "KernelRestarted"
        assert reply.header["session"] == session
    await until(lambda: kernel.state == "ready", "ready again")
    await client.ended(held)
    assert client.text_of(held) == "False\n"
    first = next(m for m in client.messages[seen:] if m.type == "status" and m.parent == {})
    assert first.content == {"execution_state": "idle"}
    assert first.header["session"] == kernel.session != session

    described = kernel.describe()
    assert (described["incarnation"], described["epoch"]) == (2, epoch)
    assert described["process"]["pid"] != pid
    assert not alive(pid)
    assert client.connection.closed is None
    assert not [m for m in client.messages if m.content.get("execution_state") == "restarting"]
    assert (kernel.id, "restarting", "restarting") in kernel_host.changes


async def test_restart_works_on_a_dead_kernel(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel)
    client.run("import os; os.kill(os.getpid(), 9)")
    await until(lambda: kernel.state == "dead", "death")
    await kernel.restart()
    await until(lambda: kernel.state == "ready", "ready again")
    assert kernel.exit is None
    await client.execute("1")


async def test_two_restarts_at_once_and_a_shutdown_leave_nothing(kernel_host):
    kernel = await kernel_host.ready()
    await asyncio.gather(kernel.restart(), kernel.restart())
    assert kernel.describe()["incarnation"] == 3
    pid = kernel.describe()["process"]["pid"]
    restarting = asyncio.ensure_future(kernel.restart())
    await asyncio.sleep(0)
    await kernel.shutdown(5.0)
    await asyncio.gather(restarting, return_exceptions=True)
    assert kernel.state == "dead"
    assert not alive(pid)
    assert not alive(kernel.describe()["process"]["pid"])
    assert list(kernel_host.folder.iterdir()) == []


# -- death --------------------------------------------------------------------------------------------------


@PROTOCOLS
@pytest.mark.parametrize(
    ("code", "reason", "words", "stderr"),
    [
        ("import os; os._exit(3)", "exited", "exit code 3", None),
        # ipykernel has put a pipe of its own in the place of fd 2; this is where the process's stderr really is.
        (
            "import os, sys; os.write(sys.stderr._original_stdstream_copy, b'it hurts\\n'); os.kill(os.getpid(), 9)",
            "signal",
            "SIGKILL",
            "it hurts",
        ),
    ],
)
async def test_a_death_ends_every_request_in_words(kernel_host, subprotocol, *, code, reason, words, stderr):
    kernel = await kernel_host.ready()
    client, watcher = Client(kernel, subprotocol=subprotocol), Client(kernel)
    await client.execute("x = 1")
    fatal, queued = client.run(code), client.run("print('never')")
    info = client.request("kernel_info_request", {})
    for msg_id in (fatal, queued):
        reply = await client.ended(msg_id)
        assert reply.content["status"] == "error"
        assert words in reply.content["evalue"]
        assert [m.content["ename"] for m in client.of(msg_id, "error")] == ["KernelDied"]
    assert client.of(info, "kernel_info_reply")[0].content["status"] == "error"
    assert client.is_idle(info)
    last = client.messages[-1]
    assert (last.type, last.content, last.parent) == ("status", {"execution_state": "dead"}, {})
    assert {m.header["session"] for m in client.messages} == {kernel.session}
    assert not [m for m in watcher.messages if m.channel == "shell"]
    assert watcher.of(fatal, "error")
    assert (kernel.state, kernel.exit["reason"]) == ("dead", reason)
    assert stderr in kernel.exit["stderr"] if stderr else kernel.exit["stderr"] == []
    assert kernel.model()["reason"] == kernel.exit["message"]

    late = client.run("1")  # a dead kernel answers at once
    assert words in (await client.ended(late)).content["evalue"]
    newcomer = Client(kernel)
    assert [m.content for m in newcomer.messages] == [{"execution_state": "dead"}]
    with pytest.raises(KernelError, match="dead"):
        await kernel.interrupt()
    assert list(kernel_host.folder.iterdir()) == []


async def test_what_it_said_last_is_not_lost(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel)
    msg_id = client.run(
        "import sys, threading, time, os\nfor i in range(2000): print('line', i)\nsys.stdout.flush()\n"
        "time.sleep(0.2)\nos._exit(0)"
    )
    await client.ended(msg_id)
    assert client.text_of(msg_id) == "".join(f"line {i}\n" for i in range(2000))


async def test_its_children_die_with_it(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel)
    msg_id = client.run(
        "import subprocess; p = subprocess.Popen(['sleep', '1000'], start_new_session=True); print(p.pid)"
    )
    await client.ended(msg_id)
    child = int(client.text_of(msg_id))
    assert alive(child)
    client.run("import os; os._exit(1)")
    await until(lambda: kernel.state == "dead", "death")
    assert not alive(child)


async def test_one_that_exits_at_once_says_why(kernel_host):
    kernel = kernel_host.kernel([sys.executable, "-c", "raise SystemExit('no licence for {connection_file}')"])
    await kernel.start()
    client = Client(kernel)
    msg_id = client.run("1")
    reply = await client.ended(msg_id)
    assert "no licence" in reply.content["evalue"]
    assert (kernel.state, kernel.exit["reason"], kernel.exit["code"]) == ("dead", "exited", 1)
    assert client.messages[-1].content == {"execution_state": "dead"}


async def test_one_that_never_answers_is_killed(kernel_host):
    kernel = kernel_host.kernel(["sleep", "1000"], ready_timeout=0.5)
    await kernel.start()
    pid = kernel.describe()["process"]["pid"]
    client = Client(kernel)
    reply = await client.ended(client.run("1"))
    assert "0.5 s" in reply.content["evalue"]
    assert kernel.exit["reason"] == "never_answered"
    assert not alive(pid)


@pytest.mark.parametrize("argv", [["/no/such/program", "{connection_file}"], ["no-such-program"]])
async def test_one_that_cannot_be_executed(kernel_host, argv):
    kernel = kernel_host.kernel(argv)
    with pytest.raises(SpawnError, match=r"no.such.program"):
        await kernel.start()
    assert list(kernel_host.folder.iterdir()) == []


async def test_shutdown_is_graceful_and_says_so(kernel_host):
    kernel = await kernel_host.ready()
    client = Client(kernel)
    marker = kernel_host.folder / "marker"
    await client.execute(f"import atexit; atexit.register(lambda: open({str(marker)!r}, 'w').close())")
    waiting = client.run("import time; print('now'); time.sleep(0.2)")
    await kernel.shutdown(5.0)
    assert (kernel.state, kernel.exit["reason"]) == ("dead", "shutdown")
    assert marker.exists()
    assert client.connection.closed == (CLOSE_KERNEL_ENDED, "The kernel was shut down.")
    assert client.of(waiting, "execute_reply")
    assert not kernel.channels
    with pytest.raises(KernelError, match="shut down"):
        await kernel.restart()


@pytest.mark.parametrize("argv", [["sleep", "1000"], ["bash", "-c", "trap '' TERM; sleep 1000 & sleep 1000"]])
async def test_shutdown_of_one_that_does_not_listen(kernel_host, argv):
    kernel = kernel_host.kernel(argv)
    await kernel.start()
    pid = kernel.describe()["process"]["pid"]
    began = time.monotonic()
    await kernel.shutdown(0.5)
    assert time.monotonic() - began < 5
    assert not alive(pid)


# -- addresses ----------------------------------------------------------------------------------------------


async def test_through_a_shell_it_is_tcp_and_works_as_well(kernel_host):
    kernel = await kernel_host.ready(["bash", "-c", "true; " + " ".join(IPYKERNEL) + "; true"])
    client = Client(kernel)
    msg_id = client.run("import time; print('now'); time.sleep(1000)")
    await until(lambda: client.text_of(msg_id), "the sleep")
    await kernel.interrupt()
    reply = await client.ended(msg_id, timeout=5)
    assert reply.content["ename"] == "KeyboardInterrupt"
    await client.execute("1")


async def test_a_lost_race_for_a_port_is_run_again_once(kernel_host):
    marker = kernel_host.folder / "raced"
    script = (
        "import os, runpy, sys\n"
        f"marker = {str(marker)!r}\n"
        "if not os.path.exists(marker):\n"
        "    open(marker, 'w').close()\n"
        "    sys.exit('zmq.error.ZMQError: Address already in use')\n"
        "sys.argv = ['ipykernel_launcher', '-f', sys.argv[1]]\n"
        "runpy.run_module('ipykernel_launcher', run_name='__main__')\n"
    )
    kernel = await kernel_host.ready([sys.executable, "-c", script, "{connection_file}"])
    assert kernel.describe()["incarnation"] == 1
    await Client(kernel).execute("1")

    hopeless = kernel_host.kernel([sys.executable, "-c", "raise SystemExit('Address already in use')"])
    await hopeless.start()
    await until(lambda: hopeless.state == "dead", "the end")
    assert "Address already in use" in hopeless.exit["message"]


async def test_the_environment_is_the_users_and_the_requests(kernel_host, monkeypatch):
    monkeypatch.setenv("EG_SECRET_OF_THE_LAUNCHER", "x")
    kernel = await kernel_host.ready(env={"MINE": "yes"})
    client = Client(kernel)
    messages = await client.execute(
        "import os; print(os.environ.get('MINE'), 'EG_SECRET_OF_THE_LAUNCHER' in os.environ)"
    )
    assert client.text_of(messages[0].parent_id) == "yes False\n"


async def test_the_debugger_passes_and_leaves_the_kernel_idle(kernel_host):
    """What JupyterLab does first: the adapter's own protocol, over control, with its events on iopub."""
    kernel = await kernel_host.ready()
    client = Client(kernel)
    number = 0

    async def debug(command, **arguments):
        nonlocal number
        number += 1
        content = {"type": "request", "seq": number, "command": command, "arguments": arguments}
        msg_id = client.request("debug_request", content, channel="control")
        reply = await until(lambda: client.of(msg_id, "debug_reply"), f"the reply to {command}")
        assert reply[0].channel == "control"
        assert reply[0].content.get("success"), reply[0].content
        return reply[0].content.get("body")

    capabilities = await debug("initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True)
    assert capabilities["supportsConfigurationDoneRequest"]
    await client.first("debug_event")
    await debug("attach")
    await debug("debugInfo")
    code = "x = 41\nx += 1\nprint(x)\n"
    source = await debug("dumpCell", code=code)
    await debug("setBreakpoints", source={"path": source["sourcePath"]}, breakpoints=[{"line": 2}])
    await debug("configurationDone")
    running = client.run(code)

    def event(name):
        found = (m.content for m in client.messages if m.type == "debug_event" and m.content["event"] == name)
        return next(found, None)

    stopped = await until(lambda: event("stopped"), "a stop at the breakpoint")
    assert kernel.execution_state == "busy"  # the cell; the debugger's own requests change nothing
    frames = await debug("stackTrace", threadId=stopped["body"]["threadId"])
    assert frames["stackFrames"][0]["line"] == 2
    await debug("continue", threadId=stopped["body"]["threadId"])
    await client.ended(running)
    assert client.text_of(running) == "42\n"
    assert kernel.execution_state == "idle"
    await debug("disconnect", restart=False, terminateDebuggee=False)
    assert kernel.execution_state == "idle"
