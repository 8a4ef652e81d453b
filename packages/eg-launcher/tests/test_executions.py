"""Who asked, who is busy, and how all of it ends."""

import json

from eg_launcher.executions import MAX_PENDING, MAX_TOLD, Executions
from eg_launcher.frames import ClientMessage


def message(msg_id, msg_type="execute_request", channel="shell", **header):
    header = {"msg_id": msg_id, "msg_type": msg_type, **header}
    return ClientMessage(channel, header, [json.dumps(header).encode(), b"{}", b"{}", b"{}"])


def endings(executions):
    return [
        (ending.channel, ending.msg_type, json.loads(ending.parts[1])["msg_id"], ending.target)
        for ending in executions.end_all("kernel-session", "KernelDied", "It fell over.")
    ]


def test_replies_and_prompts_go_to_who_asked():
    executions = Executions()
    executions.begin(message("a"), "one")
    executions.begin(message("b"), "two")
    assert executions.answered("stdin", "input_request", {"msg_id": "a"}) == "one"
    assert executions.answered("shell", "execute_reply", {"msg_id": "b"}) == "two"
    assert executions.answered("shell", "execute_reply", {"msg_id": "unknown"}) is None
    assert executions.answered("shell", "execute_reply", {}) is None


def test_who_waits_for_a_reply_is_told_the_oldest_first_and_bounded():
    executions = Executions()
    executions.begin(message("a"), "one")
    executions.begin(message("b", "comm_msg"), "one")
    executions.begin(message("c" * 1000), "one")
    executions.begin(message("d", "debug_request", "control"), "two")
    assert executions.waiting() == [
        {"msg_id": "a", "msg_type": "execute_request", "channel": "shell", "client": "one"},
        {"msg_id": "d", "msg_type": "debug_request", "channel": "control", "client": "two"},
    ]
    executions.answered("shell", "execute_reply", {"msg_id": "a"})
    assert [each["msg_id"] for each in executions.waiting()] == ["d"]
    for number in range(MAX_TOLD + 10):
        executions.begin(message(f"n{number}"), "one")
    told = [each["msg_id"] for each in executions.waiting()]
    assert told == ["d", *(f"n{n}" for n in range(MAX_TOLD - 2))]  # and one has an id that is too long


def test_a_request_is_over_after_reply_and_idle_in_any_order():
    for first in ("reply", "idle"):
        executions = Executions()
        executions.begin(message("a"), "one")
        steps = [
            lambda e: e.answered("shell", "execute_reply", {"msg_id": "a"}),
            lambda e: e.status({"msg_id": "a"}, "idle"),
        ]
        for step in steps if first == "reply" else reversed(steps):
            assert len(executions) == 1
            step(executions)
        assert len(executions) == 0


def test_a_comm_message_is_over_when_idle_and_an_input_reply_at_once():
    executions = Executions()
    executions.begin(message("c", "comm_msg"), "one")
    executions.begin(message("i", "input_reply", "stdin"), "one")
    assert len(executions) == 1
    executions.status({"msg_id": "c"}, "idle")
    assert len(executions) == 0


def test_the_end_says_only_what_is_still_missing():
    executions = Executions()
    for msg_id in ("running", "replied", "idle"):
        executions.begin(message(msg_id), "one")
    executions.begin(message("info", "kernel_info_request", "control"), "two")
    executions.begin(message("comm", "comm_msg"), "two")
    executions.answered("shell", "execute_reply", {"msg_id": "replied"})
    executions.status({"msg_id": "idle"}, "idle")
    assert endings(executions) == [
        ("iopub", "error", "running", None),
        ("shell", "execute_reply", "running", "one"),
        ("iopub", "status", "running", None),
        ("iopub", "status", "replied", None),
        ("shell", "execute_reply", "idle", "one"),
        ("control", "kernel_info_reply", "info", "two"),
        ("iopub", "status", "info", None),
        ("iopub", "status", "comm", None),
    ]
    assert endings(executions) == []


def test_an_end_carries_the_kernels_session_and_the_reason():
    executions = Executions()
    executions.begin(message("a", session="client"), "one")
    error, reply, idle = executions.end_all("kernel-session", "KernelDied", "It fell over.")
    for ending in (error, reply, idle):
        assert json.loads(ending.parts[0])["session"] == "kernel-session"
        assert json.loads(ending.parts[1])["session"] == "client"
    assert json.loads(error.parts[3]) == {
        "ename": "KernelDied",
        "evalue": "It fell over.",
        "traceback": ["It fell over."],
    }
    assert json.loads(reply.parts[3])["status"] == "error"
    assert json.loads(idle.parts[3]) == {"execution_state": "idle"}


def test_a_restart_ends_what_is_older():
    executions = Executions()
    executions.begin(message("old"), "one")
    executions.generation += 1
    executions.begin(message("new"), "one")
    ended = executions.end_all("s", "KernelRestarted", "It was restarted.", older=True)
    assert {json.loads(ending.parts[1])["msg_id"] for ending in ended} == {"old"}
    assert len(executions) == 1
    assert executions.end_all("s", "KernelDied", "It died.")


def test_state_is_the_main_shells():
    executions = Executions()
    executions.begin(message("main"), "one")
    executions.begin(message("sub", subshell_id="s1"), "one")
    executions.begin(message("ctl", "kernel_info_request", "control"), "one")
    assert not executions.status({"msg_id": "sub"}, "busy")
    assert not executions.status({"msg_id": "ctl"}, "busy")
    assert executions.state == "idle"
    assert executions.status({"msg_id": "main"}, "busy")
    assert not executions.status({"msg_id": "sub"}, "idle")
    assert not executions.status({"msg_id": "ctl"}, "idle")
    assert executions.state == "busy"
    assert executions.status({"msg_id": "main"}, "idle")
    assert executions.state == "idle"


def test_other_clients_requests_count_by_what_their_header_says():
    executions = Executions()
    assert not executions.status({"msg_id": "x", "msg_type": "execute_request", "subshell_id": "s"}, "busy")
    assert not executions.status({"msg_id": "y", "msg_type": "debug_request"}, "busy")
    assert executions.status({"msg_id": "z", "msg_type": "execute_request"}, "busy")
    assert not executions.status({"msg_id": "z", "msg_type": "execute_request"}, "starting")
    assert executions.state == "busy"


def test_what_a_kernel_never_answers_is_bounded():
    executions = Executions()
    for n in range(MAX_PENDING + 10):
        executions.begin(message(f"m{n}"), "one")
    assert len(executions) == MAX_PENDING
    assert executions.answered("shell", "execute_reply", {"msg_id": "m0"}) is None
    assert executions.answered("shell", "execute_reply", {"msg_id": f"m{MAX_PENDING}"}) == "one"
