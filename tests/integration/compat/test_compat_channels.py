"""The WebSocket of a kernel, in both sub-protocols, as clients of every kind use it."""

from __future__ import annotations

import json
import uuid

import pytest
from eg_compat.gateways import Config
from eg_integration.channels import V1, Closed
from eg_integration.waiting import wait_until

PLAIN = Config()
FILTERED = Config(file="c.MappingKernelManager.allowed_message_types = ['kernel_info_request']")
NO_TRACEBACKS = Config(
    file="c.MappingKernelManager.allow_tracebacks = False\n"
    "c.MappingKernelManager.traceback_replacement_message = 'Something went wrong.'"
)
PINGS = Config(env={"WS_PING_INTERVAL": "1", "WS_PING_INTERVAL_SECS": "1"})


@pytest.fixture
def gw(gateways):
    return gateways(PLAIN)


@pytest.fixture(scope="module")
def shared(gateways):
    """A kernel that tests share which change nothing of it."""
    gw = gateways(PLAIN)
    kernel_id = gw.start_kernel()
    yield kernel_id
    gw.delete_kernel(kernel_id)


@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
def test_a_cell_in_either_sub_protocol(gw, agree, shared, subprotocol):
    with gw.connect(shared, subprotocol=subprotocol) as channels:
        info = channels.finish(channels.send("kernel_info_request", {}))
        done = channels.run("print('hello'); 6 * 7")
        failed = channels.run("1 / 0")
        control = channels.finish(channels.send("kernel_info_request", {}, channel="control"))
        types = [m.type for m in done.iopub]
        result = next(m for m in done.iopub if m.type == "execute_result")
        agree(
            {
                "selected": channels.subprotocol == subprotocol,
                "language": info.reply["language_info"]["name"],
                "types": types,
                "text": done.text,
                "result": result.content["data"]["text/plain"],
                "error": failed.error and failed.error["ename"],
                "traceback": bool(failed.error and failed.error["traceback"]),
                "control": control.reply["status"],
                "sessions": {m.parent["session"] for m in done.iopub} == {channels.session},
            },
            {
                "selected": True,
                "language": "python",
                "types": ["status", "execute_input", "stream", "execute_result", "status"],
                "text": "hello\n",
                "result": "42",
                "error": "ZeroDivisionError",
                "traceback": True,
                "control": "ok",
                "sessions": True,
            },
        )


def test_an_unknown_sub_protocol_is_not_selected(gw, agree, shared):
    answer = gw.handshake(shared, {"Sec-WebSocket-Protocol": "v9.of.somebody"})
    agree({"status": answer.status, "selected": answer.headers.get("Sec-WebSocket-Protocol")},
          {"status": 101, "selected": None})  # fmt: skip


@pytest.mark.parametrize("subprotocol", [None, V1], ids=["default", "v1"])
def test_buffers_go_both_ways(gw, agree, shared, subprotocol):
    code = (
        "def _opened(comm, msg):\n"
        "    comm.send({'n': len(msg['buffers'])}, buffers=[bytes(msg['buffers'][0])[::-1]])\n"
        "get_ipython().kernel.comm_manager.register_target('echo', _opened)"
    )
    with gw.connect(shared, subprotocol=subprotocol) as channels:
        assert channels.run(code).reply["status"] == "ok"
        content = {"comm_id": uuid.uuid4().hex, "target_name": "echo", "data": {}}
        channels.send("comm_open", content, buffers=[bytes(range(256))])
        message = channels.wait_for(lambda m: m.type == "comm_msg", "the comm's answer")
        agree(
            {"data": message.content["data"], "buffers": message.buffers},
            {"data": {"n": 1}, "buffers": [bytes(range(255, -1, -1))]},
        )


def test_two_clients_of_one_kernel(gw, agree, shared):
    with gw.connect(shared) as one, gw.connect(shared, subprotocol=V1) as two:
        wait_until(lambda: gw.model(shared)["connections"] == 2, "two connections")
        two.run("1")  # ours answers the upgrade before it has reached the kernel
        request = one.execute("print('for both')")
        one.finish(request)
        two.wait_for(lambda m: m.type == "status" and m.parent_id == request
                     and m.content["execution_state"] == "idle", "the other's idle")  # fmt: skip
        two.run("1")  # whatever came before it is there now
        seen = [m for m in two.seen if m.parent_id == request]
        agree(
            {
                "text": "".join(m.content["text"] for m in seen if m.type == "stream"),
                "reply to the other": any(m.type == "execute_reply" for m in seen),
            },
            {"text": "for both\n", "reply to the other": False},
        )


def test_input_is_asked_of_who_runs_the_cell(gw, agree, shared):
    with gw.connect(shared) as one, gw.connect(shared) as two:
        request = one.execute("print(input('name? ') + '!')", allow_stdin=True)
        asked = one.wait_for(lambda m: m.type == "input_request", "the question")
        one.send("input_reply", {"value": "eg"}, channel="stdin", parent=asked.header)
        done = one.finish(request)
        two.run("1")
        agree(
            {"prompt": asked.content["prompt"], "channel": asked.channel, "text": done.text,
             "the other": any(m.type == "input_request" for m in two.seen)},
            {"prompt": "name? ", "channel": "stdin", "text": "eg!\n", "the other": False},
        )  # fmt: skip


def test_odd_messages_do_not_end_the_socket(gw, agree, shared):
    with gw.connect(shared) as channels:
        channels.send("kernel_info_request", {}, channel="nothing")
        info = {"msg_id": uuid.uuid4().hex, "msg_type": "kernel_info_request", "username": "", "version": "5.3",
                "session": channels.session, "date": "2024-01-01T00:00:00Z"}  # fmt: skip
        # No channel means shell.
        channels.socket.send(json.dumps({"header": info, "parent_header": {}, "metadata": {}, "content": {}}))
        reply = channels.finish(info["msg_id"]).reply["status"]
        agree({"without channel": reply, "still works": channels.value("1 + 1")},
              {"without channel": "ok", "still works": 2})  # fmt: skip


@pytest.mark.parametrize("frame", ["not json", "[]", "{}"], ids=["garbage", "array", "empty"])
def test_garbage_harms_nobody_else(gw, agree, shared, frame):
    with gw.connect(shared) as one, gw.connect(shared) as two:
        one.socket.send(frame)
        agree({"the other": two.value("1 + 1")}, {"the other": 2})


def test_mended_the_same_session_again_leaves_the_older_socket(gw, agree, shared):
    with gw.connect(shared) as one:
        one.run("1")
        with gw.connect(shared, session=one.session) as two:
            two.run("1")
            try:
                one.until_closed(2)
                closed = True
            except AssertionError:
                closed = False
            agree({"older closed": closed, "newer works": two.value("1 + 1")},
                  {"older closed": False, "newer works": 2})  # fmt: skip


def test_a_client_that_comes_back_gets_what_it_missed(gw, agree):
    """With the same session id, after a cell has ended that it had started."""
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as one:
        one.run("1")
        request = one.execute("import time\ntime.sleep(1)\nprint('while away')")
        one.wait_for(lambda m: m.type == "execute_input", "the cell to begin")
    wait_until(lambda: gw.model(kernel_id)["execution_state"] == "idle", "the cell to end")
    with gw.connect(kernel_id, session=one.session) as again:
        again.run("1")
        missed = [m for m in again.seen if m.parent_id == request]
        reply = any(m.type == "execute_reply" for m in missed)
        text = "".join(m.content["text"] for m in missed if m.type == "stream")
        works = again.value("1 + 1")
    gw.delete_kernel(kernel_id)
    agree({"reply": reply, "text": text, "works": works}, {"reply": True, "text": "while away\n", "works": 2})


def test_mended_a_deleted_kernel_closes_its_sockets(gw, agree):
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        channels.run("1")
        gw.delete_kernel(kernel_id)
        try:
            closed: Closed | None = channels.until_closed(2)
        except AssertionError:
            closed = None
        agree({"closed": closed is not None, "for good": closed is not None and closed.code // 1000 == 4,
               "afterwards": gw.upgrade(kernel_id)},
              {"closed": True, "for good": True, "afterwards": 404})  # fmt: skip


def await_kernel(channels):
    """Ask for its information until there is an answer."""
    asked = set()
    for _ in range(20):
        asked.add(channels.send("kernel_info_request", {}))
        try:
            channels.wait_for(lambda m: m.parent_id in asked and m.type == "kernel_info_reply", "the kernel", 1)
        except AssertionError:
            continue
        return
    raise AssertionError("the kernel has not answered in 20 s")


def test_a_restart_keeps_the_sockets(gw, agree):
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        channels.run("kept = 7")
        status = gw.request("POST", f"/api/kernels/{kernel_id}/restart", {}).status
        await_kernel(channels)  # an incumbent answers before the kernel is there, and loses what is sent meanwhile
        gone = channels.value("'kept' not in globals()")
    gw.delete_kernel(kernel_id)
    agree({"restart": status, "same socket works": gone}, {"restart": 200, "same socket works": True})


def test_allowed_message_types(gateways, agree):
    gw = gateways(FILTERED)
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        channels.execute("print(6 * 7)")
        info = channels.finish(channels.send("kernel_info_request", {})).reply["status"]
        ran = any(m.type == "execute_input" or m.content.get("text") == "42\n" for m in channels.seen)
        agree({"allowed": info, "another was run": ran}, {"allowed": "ok", "another was run": False})
    gw.delete_kernel(kernel_id)


def test_mended_tracebacks_are_withheld_in_replies_too(gateways, agree):
    gw = gateways(NO_TRACEBACKS)
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        request = channels.execute("secret_variable / 0")
        try:
            channels.finish(request, 3)
            ended = True
        except AssertionError:
            ended = False
        mine = [m for m in channels.seen if m.parent_id == request]
        error = next((m.content for m in mine if m.type == "error"), {})
        reply = next(m.content for m in mine if m.type == "execute_reply")
        agree(
            {
                "ended": ended,
                "error": error.get("traceback"),
                "ename": error.get("ename"),
                "evalue": error.get("evalue"),
                "reply": "secret_variable" in str(reply.get("traceback")),
            },
            {
                "ended": True,
                "error": ["Something went wrong."],
                "ename": "ExecutionError",
                "evalue": "Execution error",
                "reply": False,
            },
        )
    gw.delete_kernel(kernel_id)


def test_ping_interval(gateways, agree):
    gw = gateways(PINGS)
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        channels.run("1")
        channels.socket.settimeout(10)
        opcode = None
        while opcode != 0x9:
            opcode, _ = channels.socket.recv_data(control_frame=True)
        agree({"ping within 10 s": opcode == 0x9}, {"ping within 10 s": True})
    gw.delete_kernel(kernel_id)
