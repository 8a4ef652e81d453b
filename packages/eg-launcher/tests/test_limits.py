"""What a site lets clients send and see: the rules by themselves, then on a real kernel."""

import json

import pytest

from eg_launcher.command import check_start
from eg_launcher.limits import Gate, Limits, check_limits
from eg_launcher.signing import make_message
from eg_launcher.wire import V1_SUBPROTOCOL
from launcher_kernel_host import Client


def test_nothing_is_limited_unless_it_is_said():
    assert check_start({"argv": ["x"]}).limits == Limits()
    assert Gate.of(Limits()) is None
    assert Gate.of(check_limits({"ws_ping_interval": 5, "unknown": 1})) is None


def test_all_of_them():
    said = {
        "allow_tracebacks": False,
        "traceback_replacement_message": "ask the operator",
        "allowed_message_types": ["execute_request"],
        "iopub_msg_rate_limit": 10,
        "iopub_data_rate_limit": 1000.5,
        "rate_limit_window": 1,
        "ws_ping_interval": 0,
    }
    assert check_limits(said) == Limits(False, "ask the operator", ("execute_request",), 10.0, 1000.5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ([], "'limits' must be an object"),
        ({"allow_tracebacks": 1}, "limits.allow_tracebacks"),
        ({"traceback_replacement_message": None}, "limits.traceback_replacement_message"),
        ({"traceback_replacement_message": "x" * 5000}, "4096"),
        ({"allowed_message_types": "execute_request"}, "limits.allowed_message_types"),
        ({"allowed_message_types": [1]}, "limits.allowed_message_types"),
        ({"allowed_message_types": ["x"] * 257}, "256"),
        ({"iopub_msg_rate_limit": -1}, "limits.iopub_msg_rate_limit"),
        ({"iopub_msg_rate_limit": True}, "limits.iopub_msg_rate_limit"),
        ({"iopub_data_rate_limit": float("inf")}, "limits.iopub_data_rate_limit"),
        ({"rate_limit_window": 0}, "above 0"),
        ({"rate_limit_window": "3"}, "limits.rate_limit_window"),
        ({"ws_ping_interval": 1e9}, "86400"),
    ],
)
def test_what_is_no_limit_is_named(limits, words):
    with pytest.raises(ValueError, match=words):
        check_start({"argv": ["x"], "limits": limits})


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def rated(**limits):
    clock = Clock()
    return Gate(Limits(rate_limit_window=2.0, **limits), clock), clock


def stream(text="x", msg_type="stream"):
    return make_message(msg_type, {"name": "stdout", "text": text}, session="s")


def let_out(gate, count, parts=None, msg_type="stream", channel="iopub"):
    return sum(gate.lets_out(channel, msg_type, parts or stream()) is not None for _ in range(count))


def test_messages_beyond_the_rate_are_stopped_and_said_once():
    gate, clock = rated(iopub_msg_rate_limit=5)
    assert let_out(gate, 20) == 10
    assert "more than 5 messages a second, over 2 s" in gate.notice
    gate.notice = None
    assert let_out(gate, 5) == 0
    assert gate.notice is None
    clock.now = 1.9
    assert let_out(gate, 1) == 0
    clock.now = 2.0
    assert let_out(gate, 20) == 10
    assert gate.notice is not None


def test_bytes_of_streams_beyond_the_rate_are_stopped():
    gate, _ = rated(iopub_data_rate_limit=10_000)
    large = stream("x" * 9000)
    assert let_out(gate, 5, large) == 2
    assert "bytes a second" in gate.notice
    gate, _ = rated(iopub_data_rate_limit=10_000)
    assert let_out(gate, 5, large, "display_data") == 5  # an image may be large


def test_what_a_client_needs_to_get_on_always_passes():
    gate, _ = rated(iopub_msg_rate_limit=1)
    let_out(gate, 10)
    for msg_type in ("status", "execute_input", "comm_open"):
        assert let_out(gate, 5, make_message(msg_type, {"execution_state": "busy"}, session="s"), msg_type) == 5
    assert let_out(gate, 5, msg_type="execute_reply", channel="shell") == 5


def test_the_end_of_a_cell_starts_afresh():
    gate, _ = rated(iopub_msg_rate_limit=1)
    assert let_out(gate, 10) == 2
    let_out(gate, 1, make_message("status", {"execution_state": "idle"}, session="s"), "status")
    assert let_out(gate, 10) == 2


@pytest.mark.parametrize(
    ("msg_type", "content", "hidden"),
    [
        ("error", {"ename": "E", "evalue": "secret", "traceback": ["secret"]}, True),
        ("execute_reply", {"status": "error", "evalue": "secret", "execution_count": 3}, True),
        ("execute_reply", {"status": "ok", "payload": ["secret"]}, False),
        ("stream", {"text": "secret"}, False),
    ],
)
def test_tracebacks_are_replaced_where_they_are(msg_type, content, hidden):
    gate = Gate.of(Limits(allow_tracebacks=False, traceback_replacement_message="no"))
    parts = [*make_message(msg_type, content, session="s"), b"buffer"]
    passed = gate.lets_out("iopub", msg_type, list(parts))
    assert (b"secret" not in passed[3]) is hidden
    assert [*passed[:3], passed[4]] == [*parts[:3], parts[4]]
    if hidden:
        new = json.loads(passed[3])
        assert (new["ename"], new["evalue"], new["traceback"]) == ("ExecutionError", "Execution error", ["no"])
        assert new.get("execution_count") == content.get("execution_count")


# -- on a real kernel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [None, V1_SUBPROTOCOL], ids=["default", "v1"])
async def test_a_kernels_traceback_is_not_seen(kernel_host, subprotocol):
    kernel = await kernel_host.ready(limits=Limits(allow_tracebacks=False))
    client = Client(kernel, subprotocol=subprotocol)
    said = await client.execute("secret = 1; raise ValueError('secret')")
    errors = [message for message in said if message.type in ("error", "execute_reply")]
    assert len(errors) == 2
    for message in errors:
        assert message.content["traceback"] == [Limits.traceback_replacement_message]
        assert "secret" not in str(message.content)


async def test_types_that_are_not_allowed_are_answered_and_reach_nobody(kernel_host):
    kernel = await kernel_host.ready(limits=Limits(allowed_message_types=("execute_request",)))
    client, other = Client(kernel), Client(kernel)
    asked = client.request("complete_request", {"code": "pri", "cursor_pos": 3})
    (reply,) = client.of(asked, "complete_reply")
    assert (reply.channel, reply.content["status"], reply.content["ename"]) == ("shell", "error", "MessageNotAllowed")
    assert client.is_idle(asked)
    assert "not allowed here" in client.text_of(asked, "stderr")
    sent = client.request("comm_msg", {"comm_id": "x", "data": {}})
    assert "'comm_msg' are not allowed" in client.text_of(sent, "stderr")
    assert client.text_of((await client.execute("print('yes')"))[0].parent_id) == "yes\n"
    assert not other.of(asked)
    assert not other.of(sent)


async def test_a_kernel_that_says_too_much_is_cut_short_and_goes_on(kernel_host):
    kernel = await kernel_host.ready(limits=Limits(iopub_msg_rate_limit=10, rate_limit_window=3))
    client = Client(kernel)
    msg_id = client.run("for i in range(500):\n    print(i, flush=True)")
    await client.ended(msg_id)
    streams = client.of(msg_id, "stream")
    assert "IOPub message rate exceeded" in client.text_of(msg_id, "stderr")
    assert len(streams) == 31
    after = client.run("print('afresh')")
    await client.ended(after)
    assert client.text_of(after) == "afresh\n"
