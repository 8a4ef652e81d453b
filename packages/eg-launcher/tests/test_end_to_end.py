"""A real launcher process, a real ipykernel, stock clients."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
import websocket

from eg_launcher import __version__, wire
from launcher_process import IPYKERNEL, LIMIT, JsonClient, LauncherProcess, alive, marked, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked up in /proc")


@pytest.fixture
def launch(tmp_path_factory, certificate_and_key, mark):
    """Start launchers; all are ended after the test, whatever it did; ``mark`` looks afterwards what they left."""
    made = []

    def start(kind="unix", *args, **kwargs):
        folder = tmp_path_factory.mktemp("run")
        made.append(LauncherProcess(kind, folder, *args, certificate_and_key=certificate_and_key, **kwargs))
        return made[-1]

    yield start
    for each in made:
        each.end()


@pytest.fixture(scope="module", params=["unix", "tls"])
def launcher(request, tmp_path_factory, certificate_and_key):
    made = LauncherProcess(request.param, tmp_path_factory.mktemp("run"), certificate_and_key=certificate_and_key)
    yield made
    made.end()


@pytest.fixture
def mark():
    """An environment entry for kernels; what carries it after the test is left over, and killed."""
    entry = f"EG_TEST_MARK={uuid.uuid4().hex}"
    yield entry
    left = marked(entry)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes are left: {left}"


def environment(mark):
    return dict([mark.split("=")])


# -- the calls ----------------------------------------------------------------------------------------------


def test_ready_line_and_status(launcher):
    ready = launcher.ready
    assert ready["ready"] is True
    assert (ready["launcher_id"], ready["pid"], ready["protocol"]) == ("launcher-1", launcher.pid, wire.PROTOCOL)
    assert ready["version"] == __version__
    stat = Path(f"/proc/{launcher.pid}/stat").read_text()
    assert ready["started"] == int(stat.rsplit(")", 1)[1].split()[19])
    status, answer = launcher.call("GET", "/status")
    assert status == 200
    assert {**answer, "uptime": 0, "kernels": {}} == {
        "protocol": wire.PROTOCOL,
        "version": __version__,
        "launcher_id": "launcher-1",
        "pid": launcher.pid,
        "host": socket.gethostname(),
        "uptime": 0,
        "lease": 60.0,
        "kernels": {},
    }


def test_one_kernel_from_start_to_end(launcher, mark):
    kernel_id = launcher.start(env=environment(mark), name="python3")
    status, again = launcher.call("POST", f"/kernels/{kernel_id}/start", {"argv": IPYKERNEL})
    assert (status, again["id"]) == (200, kernel_id)
    client = launcher.client(kernel_id)
    text, reply = client.run("import os; x = 41; print(os.environ['EG_TEST_MARK'])")
    assert text.strip() == mark.split("=")[1]
    assert reply["status"] == "ok"
    kernel = launcher.kernel(kernel_id)
    assert (kernel["state"], kernel["execution_state"], kernel["connections"]) == ("ready", "idle", 1)
    assert kernel["process"]["pid"] in marked(mark)
    assert kernel["usage"]["memory_bytes"] > 10_000_000
    assert kernel["session"] == client.seen[-1]["header"]["session"]

    sleeping = client.execute("import time\nx = 42\nprint('asleep', flush=True)\ntime.sleep(100)")
    client.until(lambda message: message["msg_type"] == "stream")
    assert launcher.call("POST", f"/kernels/{kernel_id}/interrupt", {}) == (204, "")
    own = client.finish(sleeping)
    assert any(each["content"].get("ename") == "KeyboardInterrupt" for each in own)
    assert client.run("print(x)")[0] == "42\n"

    status, kernel = launcher.call("POST", f"/kernels/{kernel_id}/restart", {})
    assert (status, kernel["incarnation"]) == (202, 2)
    text, reply = client.run("print('x' in globals())")  # the socket stayed open
    assert text == "False\n"

    client.run("import sys, os; os.write(2, b'straight to stderr\\n')")
    log = wait_until(lambda: _log_with(launcher, kernel_id, "straight"))
    assert launcher.call("GET", f"/kernels/{kernel_id}/log?after={log['next']}")[1]["text"] == ""
    model = launcher.call("GET", f"/api/kernels/{kernel_id}")[1]
    assert (model["id"], model["name"], model["execution_state"]) == (kernel_id, "python3", "idle")
    assert kernel_id in [each["id"] for each in launcher.call("GET", "/api/kernels")[1]]

    assert launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 5})[0] == 202
    code, reason = client.until_closed()
    assert (code, reason) == (wire.CLOSE_KERNEL_ENDED, "The kernel was shut down.")
    client.close()
    wait_until(lambda: launcher.call("GET", f"/kernels/{kernel_id}")[0] == 404)
    assert not marked(mark)


def _log_with(launcher, kernel_id, text):
    log = launcher.call("GET", f"/kernels/{kernel_id}/log?after=0")[1]
    return log if text in log["text"] else None


def test_two_sockets_see_each_others_outputs_but_not_replies(launcher):
    kernel_id = launcher.ready_kernel()
    first, second = launcher.client(kernel_id), launcher.client(kernel_id)
    msg_id = first.execute("print('for both')")
    assert any(each["msg_type"] == "execute_reply" for each in first.finish(msg_id))
    second.until(lambda each: each["content"].get("execution_state") == "idle" and second.of(msg_id))
    assert [each["msg_type"] for each in second.of(msg_id)] == ["status", "execute_input", "stream", "status"]
    first.close()
    second.close()
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 0})


def test_v1_sub_protocol_with_aiohttp(launcher):
    kernel_id = launcher.ready_kernel()
    received = asyncio.run(_v1(launcher, kernel_id))
    assert "".join(json.loads(parts[4])["text"] for parts in received if parts[0] == b"iopub") == "v1\n"
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 0})


async def _v1(launcher, kernel_id):
    import aiohttp

    endpoint = launcher.ready["endpoint"]
    if launcher.kind == "unix":
        connector, base = aiohttp.UnixConnector(endpoint["path"]), "http://launcher"
    else:
        launcher.context.check_hostname = False
        connector, base = aiohttp.TCPConnector(ssl=launcher.context), f"https://127.0.0.1:{endpoint['port']}"
    header = {"msg_id": "m1", "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
    content = {"code": "print('v1')", "silent": False}
    parts = [b"shell", *(json.dumps(each).encode() for each in (header, {}, {}, content))]
    received = []
    async with (
        aiohttp.ClientSession(connector=connector, headers={"Authorization": f"token {launcher.token}"}) as session,
        session.ws_connect(
            f"{base}/kernels/{kernel_id}/channels?session_id=s", protocols=[wire.V1_SUBPROTOCOL]
        ) as client,
    ):
        assert client.protocol == wire.V1_SUBPROTOCOL
        await client.send_bytes(_v1_frame(parts))
        kinds = set()
        while not {"execute_reply", "stream"} <= kinds:  # they come on different sockets, in any order
            message = await client.receive(LIMIT)
            assert message.type is aiohttp.WSMsgType.BINARY
            split = _v1_parts(message.data)
            kinds.add(json.loads(split[1])["msg_type"])
            if json.loads(split[1])["msg_type"] == "stream":
                received.append(split)
        sock = client.get_extra_info("socket")
    deadline = time.monotonic() + LIMIT
    while sock.fileno() >= 0 and time.monotonic() < deadline:  # aiohttp's TLS says goodbye in the background
        await asyncio.sleep(0.01)
    return received


def _v1_frame(parts):
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join(number.to_bytes(8, "little") for number in [len(offsets), *offsets]) + b"".join(parts)


def _v1_parts(data):
    count = int.from_bytes(data[:8], "little")
    offsets = [int.from_bytes(data[8 * (i + 1) : 8 * (i + 2)], "little") for i in range(count)]
    return [data[a:b] for a, b in zip(offsets, offsets[1:])]


def test_what_is_refused(launcher):
    wait_until(lambda: not launcher.call("GET", "/status")[1]["kernels"])
    kernel_id = launcher.start(argv=["sleep", "1000"])
    calls = [
        ("GET", "/nowhere", None, 404),
        ("GET", "/kernels/unknown", None, 404),
        ("POST", "/kernels/unknown/interrupt", {}, 404),
        ("POST", "/kernels/unknown/restart", {}, 404),
        ("POST", "/kernels/unknown/shutdown", {}, 404),
        ("GET", "/kernels/unknown/log", None, 404),
        ("DELETE", "/status", None, 405),
        ("POST", "/kernels/a%2Fb/start", {"argv": ["x"]}, 400),
        ("POST", "/kernels/" + "a" * 65 + "/start", {"argv": ["x"]}, 400),
        ("POST", "/kernels/x/start", {}, 400),
        ("POST", "/kernels/x/start", {"argv": []}, 400),
        ("POST", "/kernels/x/start", {"argv": ["a\0b"]}, 400),
        ("POST", "/kernels/x/start", {"argv": ["a"], "env": {"A": 1}}, 400),
        ("POST", "/kernels/x/start", {"argv": ["\ud800"]}, 400),
        ("POST", "/kernels/x/start", {"argv": ["python3", "{resource_dir}/x"]}, 400),
        ("POST", "/kernels/x/start", {"argv": ["x"], "ready_timeout": -1}, 400),
        ("POST", "/kernels/x/start", "not JSON", 400),
        ("POST", "/kernels/x/start", "[1]", 400),
        ("POST", "/kernels/x/start", "[" * 100_000, 400),
        ("POST", "/kernels/x/start", '{"argv": ["x"], "ready_timeout": NaN}', 400),
        ("POST", "/kernels/x/start", '{"a": ' + "1" * 10_000 + "}", 400),
        ("POST", "/kernels/x/start", {"argv": ["/no/such/program"]}, 500),
        ("POST", f"/kernels/{kernel_id}/shutdown", {"grace": -1}, 400),
        ("POST", f"/kernels/{kernel_id}/shutdown", {"grace": True}, 400),
        ("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 1e9}, 400),
        ("GET", f"/kernels/{kernel_id}/log?after=-1", None, 400),
        ("GET", f"/kernels/{kernel_id}/log?after=" + "9" * 30, None, 400),
        ("GET", f"/kernels/{kernel_id}/channels", None, 400),
        ("GET", "/events", None, 400),
    ]
    for method, path, body, wanted in calls:
        status, answer = launcher.call(method, path, body)
        assert (status, set(answer) >= {"reason", "message"}) == (wanted, True), (method, path, str(body)[:50], answer)
        assert "Traceback" not in answer["message"]
    assert list(launcher.call("GET", "/status")[1]["kernels"]) == [kernel_id], "nothing was created"
    assert launcher.call("POST", f"/kernels/{kernel_id}/interrupt", {})[0] == 409
    for query in ("peer=stranger", "session_id=" + "s" * 300):
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            launcher.websocket(f"/kernels/{kernel_id}/channels?{query}")
        assert caught.value.status_code == 400
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        launcher.websocket("/kernels/unknown/channels")
    assert caught.value.status_code == 404
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 0})
    wait_until(lambda: launcher.kernel(kernel_id) is None)


def test_the_reason_of_a_start_that_fails_is_in_words(launcher):
    status, answer = launcher.call("POST", "/kernels/x/start", {"argv": ["/no/such/program"]})
    assert (status, answer["reason"]) == (500, "exec_failed")
    assert "/no/such/program" in answer["message"]


def test_who_may_ask(launcher):
    for token in ("wrong", "x" * 5000, launcher.token[:-1], launcher.token + "x"):
        assert launcher.call("GET", "/status", token=token)[0] == 401
    assert launcher.call("GET", "/status", headers={"Authorization": f"token {launcher.token}"})[0] == 200
    assert launcher.call("GET", f"/status?token={launcher.token}", headers={"Authorization": "Basic x"})[0] == 200
    assert launcher.call("GET", "/", headers={"Authorization": ""})[0] == 401
    status, text = launcher.call("GET", "/")
    assert status == 200
    assert "eg-launcher" in text


@pytest.mark.parametrize(("ahead", "status"), [(0, 200), (-1, 200), (1, 426), (-2, 426)])
def test_protocol_versions(launcher, ahead, status):
    got, answer = launcher.call("GET", "/status", headers={"EG-Protocol": str(wire.PROTOCOL + ahead)})
    assert got == status
    assert answer["protocol"] == ([1, 0] if status == 426 else 1)


@pytest.mark.parametrize("version", ["one", "", "1.0", "-1", "9" * 1000])
def test_protocol_versions_that_are_none(launcher, version):
    status, answer = launcher.call("GET", "/status", headers={"EG-Protocol": version})
    assert (status, answer["reason"]) == (426, "protocol")
    assert len(answer["message"]) < 200


def test_garbage_and_silence_hurt_nobody(launcher):
    peers = [launcher.connect() for _ in range(20)]
    for sock, data in zip(peers, [b"\0" * 1000, b"\x16\x03\x01\x02", b"GET", os.urandom(70_000)]):
        try:
            sock.sendall(data)
        except OSError:
            pass  # it was cut off already
    assert launcher.call("GET", "/status")[0] == 200
    for sock in peers:
        sock.close()


# -- events -------------------------------------------------------------------------------------------------


def test_events(launch, mark):
    launcher = launch()
    events = launcher.websocket("/events")
    first = json.loads(events.recv())
    assert (first["type"], first["kernels"], first["launcher_id"]) == ("status", {}, "launcher-1")
    kernel_id = launcher.start(env=environment(mark), argv=["bash", "-c", "echo bad luck >&2; exit 7"])
    seen = []

    def until(condition):
        while not (seen and condition(seen[-1])):
            seen.append(json.loads(events.recv()))
        return seen[-1]

    dead = until(lambda event: event["type"] == "kernel" and event["kernel"]["state"] == "dead")["kernel"]
    assert (dead["id"], dead["exit"]["reason"], dead["exit"]["code"]) == (kernel_id, "exited", 7)
    assert "bad luck" in dead["exit"]["message"]
    client = launcher.client(kernel_id)
    reply = next(each for each in client.finish(client.execute("1")) if each["msg_type"] == "execute_reply")
    assert "bad luck" in reply["content"]["evalue"]
    client.close()
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {})
    gone = until(lambda event: event["type"] == "gone")
    assert (gone["id"], gone["exit"]["code"]) == (kernel_id, 7)
    launcher.process.terminate()
    events.settimeout(LIMIT)
    opcode, data = events.recv_data()
    assert (opcode, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1001).to_bytes(2, "big"))
    events.close()
    assert launcher.process.wait(LIMIT) == 0


def test_activity_and_states_are_pushed(launch):
    launcher = launch()
    kernel_id = launcher.ready_kernel()
    events = launcher.websocket("/events")
    json.loads(events.recv())
    client = launcher.client(kernel_id)
    client.run("import time; time.sleep(0.3)")  # what begins and ends in one turn is told as one
    states = []
    while states[-2:] != ["busy", "idle"]:
        states.append(json.loads(events.recv())["kernel"]["execution_state"])
    events.close()
    client.close()


# -- the end ------------------------------------------------------------------------------------------------

FAMILY = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["setsid", "sleep", "1001"])
subprocess.Popen(["bash", "-c", "(setsid sleep 1002 &) ; exit"], stdin=subprocess.DEVNULL).wait()
daemon = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); time.sleep(1003)"
subprocess.Popen([sys.executable, "-c", daemon]).wait()
print("family", flush=True)
"""


def kernel_with_family(launcher, mark):
    """Through bash, with a child, one in a session of its own, and two daemons; all of them live."""
    argv = ["bash", "-c", 'python3 -m ipykernel_launcher -f "$0"; true', "{connection_file}"]
    kernel_id = launcher.start(argv=argv, env={**environment(mark), "PATH": path_with_python()})
    client = launcher.client(kernel_id)
    assert client.run(FAMILY)[0] == "family\n"
    wait_until(lambda: len(marked(mark)) >= 6, what="the family is not complete")
    client.close()
    return kernel_id


def path_with_python():
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def nothing_left(launcher, mark, limit=LIMIT):
    wait_until(lambda: not alive(launcher.pid) or launcher.process.poll() is not None, limit, "the launcher lives")
    wait_until(lambda: not marked(mark), limit, f"left: {marked(mark)}")


def test_the_launcher_is_killed_and_no_process_is_left(launch, mark):
    launcher = launch()
    kernel_with_family(launcher, mark)
    os.kill(launcher.pid, signal.SIGKILL)
    nothing_left(launcher, mark, limit=10)


def test_the_spawner_is_killed_and_no_process_is_left(launch, mark):
    launcher = launch()
    kernel_with_family(launcher, mark)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    nothing_left(launcher, mark, limit=10)
    assert launcher.process.wait(LIMIT) == 1


def test_shutdown_takes_the_family_along(launch, mark):
    launcher = launch()
    kernel_id = kernel_with_family(launcher, mark)
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 3})
    wait_until(lambda: launcher.kernel(kernel_id) is None)
    assert not marked(mark)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_in_order(launch, mark, signum):
    launcher = launch()
    kernel_id = kernel_with_family(launcher, mark)
    client = launcher.client(kernel_id)
    os.kill(launcher.pid, signum)
    assert client.until_closed()[0] == wire.CLOSE_KERNEL_ENDED
    client.close()
    assert launcher.process.wait(LIMIT) == 0
    assert not marked(mark)
    assert not (launcher.folder / "s").exists()


@pytest.mark.parametrize("kind", ["unix", "loopback"])
def test_a_launcher_that_ends_listens_no_more(launch, mark, kind):
    launcher = launch(kind)
    launcher.token = launcher.token if kind == "unix" else _token_of(launcher)
    held = launcher.websocket("/events")
    launcher.start(argv=["bash", "-c", "trap '' TERM; while :; do sleep 1; done"], env=environment(mark))
    os.kill(launcher.pid, signal.SIGTERM)
    wait_until(lambda: "the launcher ends" in launcher.log.read_text())
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        launcher.connect()
    assert launcher.process.poll() is None
    assert json.loads(held.recv())["type"] == "status"  # who was connected still is
    os.kill(launcher.pid, signal.SIGTERM)
    launcher.process.wait(LIMIT)


def _token_of(launcher):
    return wait_until(lambda: re.search(r"token=(\w+)", "".join(launcher.errors)))[1]


def test_a_second_signal_does_not_wait(launch, mark):
    launcher = launch()
    stubborn = "trap '' TERM INT HUP; while true; do sleep 1000; done"
    launcher.start(argv=["bash", "-c", stubborn], env=environment(mark))
    wait_until(lambda: marked(mark))
    os.kill(launcher.pid, signal.SIGTERM)
    wait_until(lambda: "the launcher ends" in launcher.log.read_text())
    begun = time.monotonic()
    os.kill(launcher.pid, signal.SIGTERM)
    assert launcher.process.wait(LIMIT) == 0
    assert time.monotonic() - begun < 4
    assert not marked(mark)


def test_the_lease_is_over(launch, mark):
    launcher = launch(lease=2)
    kernel_with_family(launcher, mark)
    nothing_left(launcher, mark)
    assert "the lease is over" in launcher.log.read_text()


def test_events_keep_the_lease(launch, mark):
    launcher = launch(lease=1)
    kernel_id = launcher.start(argv=["sleep", "1000"], env=environment(mark))
    events = launcher.websocket("/events")
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert marked(mark)
        time.sleep(0.1)
    assert launcher.kernel(kernel_id)
    events.close()
    nothing_left(launcher, mark)


def test_single_ends_with_its_kernel_once_a_gateway_knows(launch, mark):
    launcher = launch("unix", "--single")
    kernel_id = launcher.start(argv=["sleep", "1000"], env=environment(mark))
    status, answer = launcher.call("POST", "/kernels/another/start", {"argv": ["sleep", "1"]})
    assert (status, answer["reason"]) == (409, "full")
    events = launcher.websocket("/events")
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 0})
    kinds = []
    while kinds[-1:] != ["gone"]:
        kinds.append(json.loads(events.recv())["type"])
    assert launcher.process.wait(LIMIT) == 0
    events.close()


def test_single_waits_for_a_gateway_that_knows_nothing_yet(launch, mark):
    launcher = launch("unix", "--single", lease=30)
    kernel_id = launcher.start(argv=["sleep", "1000"], env=environment(mark))
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 0})
    wait_until(lambda: "is gone" in launcher.log.read_text())
    with pytest.raises(Exception, match="timed out"):
        launcher.process.wait(3)
    assert launcher.call("GET", "/status")[1]["kernels"] == {}
    assert launcher.process.wait(LIMIT) == 0


def test_starts_with_one_id_make_one_kernel(launch, mark):
    launcher = launch()
    answers = []

    def start():
        answers.append(launcher.call("POST", "/kernels/k/start", {"argv": ["sleep", "1000"], "env": environment(mark)}))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in answers) == [200] * 7 + [202]
    assert len({kernel["process"]["pid"] for _, kernel in answers}) == 1
    assert len(marked(mark)) == 1


def test_it_keeps_its_secrets(launch):
    launcher = launch()
    proc = Path(f"/proc/{launcher.pid}")
    assert proc.stat().st_uid == 0, "it is dumpable"
    assert launcher.token.encode() not in (proc / "cmdline").read_bytes()
    if os.geteuid() == 0:  # nobody else may look
        assert launcher.token.encode() not in (proc / "environ").read_bytes()
        assert [str((proc / "fd" / number).readlink()) for number in "01"] == ["/dev/null"] * 2
    kernel_id = launcher.ready_kernel()
    client = launcher.client(kernel_id)
    assert launcher.token not in client.run("import os; print(dict(os.environ))")[0]
    ours = os.umask(0o022)
    os.umask(ours)
    assert client.run("mask = os.umask(0); print(mask)")[0] == f"{ours}\n", "a kernel's files are its user's affair"
    client.close()
    assert launcher.token not in launcher.log.read_text()


# -- without a gateway --------------------------------------------------------------------------------------


def test_attach_puts_a_running_kernel_on_a_websocket(launch):
    """The help's recipe, with a stock client; the kernel outlives the launcher, for it isn't its own."""
    from jupyter_client import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    try:
        answers(manager)
        launcher = launch("loopback", "--connection-file", manager.connection_file, mode="attach")
        wait_until(lambda: "token=" in "".join(launcher.errors))
        url = next(line.strip() for line in launcher.errors if "token=" in line)
        client = JsonClient(websocket.create_connection(url, timeout=LIMIT), "session")
        assert client.run("print(6 * 7)")[0] == "42\n"
        launcher.token = url.partition("token=")[2]
        assert launcher.call("POST", "/api/kernels/x/start", {"argv": ["sleep", "1"]})[0] == 409
        client.close()
        launcher.process.send_signal(signal.SIGINT)
        assert launcher.process.wait(LIMIT) == 0
        assert manager.is_alive()
        answers(manager)
    finally:
        manager.shutdown_kernel(now=True)


def answers(manager):
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT)
    finally:
        client.stop_channels()


def test_spawn_starts_a_kernel_of_its_own(launch):
    launcher = launch("loopback", command=IPYKERNEL)
    wait_until(lambda: "token=" in "".join(launcher.errors))
    url = next(line.strip() for line in launcher.errors if "token=" in line)
    client = JsonClient(websocket.create_connection(url, timeout=LIMIT), "session")
    assert client.run("print(6 * 7)")[0] == "42\n"
    client.close()


def test_nobody_reads_the_ready_line(tmp_path):
    """Whoever started it has gone: it goes too, and says so in one line."""
    tmp_path.chmod(0o700)
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "eg_launcher", "spawn", "--unix", str(tmp_path / "s")]
    try:
        done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT)
    finally:
        os.close(writing)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "eg-launcher: who has started it reads no more"
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_reads_has_all_of_a_burst_that_memory_does_not_hold(launcher):
    """120 MB in one breath: faster than any client takes it, and more than the journal holds in memory."""
    kernel_id = launcher.ready_kernel()
    code = (
        "from IPython.display import display\n"
        "for n in range(12):\n"
        "    display({'text/plain': f'{n:02d}' + 'x' * 10_000_000}, raw=True)"
    )
    client = launcher.client(kernel_id)
    seen = client.finish(client.execute(code))
    client.close()
    shown = [m["content"]["data"]["text/plain"][:2] for m in seen if m["msg_type"] == "display_data"]
    assert shown == [f"{n:02d}" for n in range(12)]
    launcher.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": 0})
