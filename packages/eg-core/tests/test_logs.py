"""The log's lines: what they are about, both formats, nothing secret, nothing forged."""

import asyncio
import json
import logging
import sys

import pytest

from eg_core import logs
from eg_core.logs import Formatter, about, apart, bind, current, request_id


def record(message, *args, level=logging.INFO, exc_info=None, **extra):
    made = logging.LogRecord("EnterpriseGatewayApp", level, __file__, 1, message, args, exc_info)
    made.__dict__.update(extra)
    return made


def test_the_human_format_is_enterprise_gateways_with_milliseconds():
    line = Formatter("human", "%Y-%m-%d %H:%M:%S").format(record("hello %s", "you"))
    assert logging.Formatter().formatTime(record(""))[:10] in line
    before, _, after = line.partition(" EnterpriseGatewayApp] ")
    assert before.startswith("[I ")
    assert before[-4] == "."
    assert before[-3:].isdigit()
    assert after == "hello you"


def test_a_line_says_what_it_is_about():
    with about(request_id="r-1", user="ann"), about(kernel_id="k-1"):
        line = Formatter("human").format(record("x"))
        found = json.loads(Formatter("json").format(record("x")))
    assert line.endswith("] x {request_id=r-1 user=ann kernel_id=k-1}")
    assert (found["request_id"], found["user"], found["kernel_id"]) == ("r-1", "ann", "k-1")
    assert current() == logs.About()


def test_a_json_line_has_every_key():
    found = json.loads(Formatter("json").format(record("é\n%s", "x", level=logging.WARNING, http={"status": 200})))
    assert found["message"] == "é\nx"
    assert found["level"] == "warning"
    assert found["logger"] == "EnterpriseGatewayApp"
    assert found["http"] == {"status": 200}
    assert found["time"].endswith("Z")
    assert {name: found[name] for name in ("request_id", "user", "kernel_id")} == dict.fromkeys(
        ("request_id", "user", "kernel_id")
    )


@pytest.mark.parametrize("character", ["\r", "\x1b", "\x9b", "\x85", "\u2028", "\u202e", "\u2066", "\u200f"])
def test_what_moves_a_terminals_cursor_or_turns_its_text_is_written_out(character):
    line = Formatter("human").format(record(f"a{character}b"))
    assert character not in line
    assert repr(character)[1:-1] in line


@pytest.mark.parametrize("style", ["human", "json", "%(levelname)s %(message)s"])
def test_no_secret_in_any_format(style):
    formatter = Formatter(style, secrets=lambda: ("hunter2-hunter2", ""))
    try:
        raise ValueError("the token hunter2-hunter2 is wrong")
    except ValueError:
        with about(user="hunter2-hunter2"):
            line = formatter.format(
                record("at /x?token=abc, hunter2-hunter2", exc_info=sys.exc_info(), http={"path": "/hunter2-hunter2"})
            )
    assert "hunter2" not in line
    assert "token=abc" not in line
    assert "is wrong" in line


def test_a_client_cannot_forge_a_line():
    with about(user="eve\n[I root] all is well"):
        line = Formatter("human").format(record("name %s", "x\n[C 2026 root] forged\r\x1b[2J"))
    assert all(each.startswith("    ") for each in line.splitlines()[1:])
    assert "\r" not in line
    assert "\x1b" not in line
    assert len(line.splitlines()) == 2


def test_format_strings_made_for_others_work():
    assert Formatter("%(color)s%(highlevel)s%(message)s%(end_color)s").format(record("x")) == "x"


@pytest.mark.parametrize("given", ["abc", "1-2_3.4:5", "a" * 128])
def test_a_sane_request_id_is_kept(given):
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "a\nb", "a" * 129, "ä"])
def test_another_one_is_replaced(given):
    made = request_id(given)
    assert made != given
    assert len(made) == 32


async def test_what_a_task_starts_is_about_the_same_and_what_begins_apart_is_not():
    async def who():
        return current()

    bind(request_id="r-2")
    inherited = await asyncio.create_task(who())
    separate = await apart(lambda: asyncio.create_task(who()))
    assert inherited.request_id == "r-2"
    assert separate.request_id is None
    bind(request_id=None)
