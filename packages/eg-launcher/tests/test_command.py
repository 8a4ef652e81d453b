"""What a kernel is started with: the door's checks, argv, environment and folder."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eg_launcher import command
from eg_launcher.command import StartRequest, check_start

GOOD: dict[str, Any] = {"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}


def test_a_short_request_gets_the_defaults() -> None:
    assert check_start(GOOD) == StartRequest(GOOD["argv"], {}, None, "signal", "", 3600.0)


def test_a_full_request_is_taken_whole_and_what_is_new_is_passed_over() -> None:
    body = {"env": {"A": "ä"}, "cwd": "/x", "interrupt_mode": "message", "name": "ir", "ready_timeout": 5, "later": 1}
    assert check_start({**GOOD, **body}) == StartRequest(GOOD["argv"], {"A": "ä"}, "/x", "message", "ir", 5.0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"argv": None}, "'argv' must be a list"),
        ({"argv": []}, "'argv' must be a list"),
        ({"argv": "python"}, "'argv' must be a list"),
        ({"argv": [1]}, "'argv\\[0\\]' must be a string"),
        ({"argv": [""]}, "'argv\\[0\\]'.*empty"),
        ({"argv": ["x", "a\0b"]}, "'argv\\[1\\]'.*NUL"),
        ({"argv": ["x"] * 257}, "'argv' has 257 items; the limit is 256"),
        ({"argv": ["x", "a" * 131072]}, "'argv\\[1\\]' is 131072 bytes long; the limit is 131071"),
        ({"argv": ["x", "ä" * 65536]}, "131072 bytes long"),
        ({"argv": ["x", "\ud800"]}, "'argv\\[1\\]' holds a character that cannot be encoded"),
        ({"env": []}, "'env' must be an object"),
        ({"env": None}, "'env' must be an object"),
        ({"env": {"A": 1}}, "'env\\[A\\]' must be a string"),
        ({"env": {"": "x"}}, "'env' has the name ''"),
        ({"env": {"A=B": "x"}}, "'env' has the name 'A=B'"),
        ({"env": {"A\0": "x"}}, "NUL"),
        ({"env": {"A": "x\0"}}, "'env\\[A\\]'.*NUL"),
        ({"env": {"A": "x" * 131070}}, "'env\\[A\\]' is 131070 bytes long; the limit is 131069"),
        ({"env": {str(number): "" for number in range(4097)}}, "'env' has 4097 entries; the limit is 4096"),
        ({"cwd": 1}, "'cwd' must be a string"),
        ({"cwd": "/\0"}, "'cwd'.*NUL"),
        ({"cwd": "/" * 4097}, "'cwd' is 4097 bytes long; the limit is 4096"),
        ({"interrupt_mode": "kick"}, "'interrupt_mode' must be one of signal, message"),
        ({"interrupt_mode": None}, "'interrupt_mode'"),
        ({"name": None}, "'name' must be a string"),
        ({"name": "x" * 256}, "'name' is 256 bytes long"),
        *[({"ready_timeout": value}, "'ready_timeout'") for value in (0, -1, True, "9", None, 1e9, float("nan"))],
    ],
)
def test_bad_fields_are_named_with_their_limit(body: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_start({**GOOD, **body})


def test_a_secret_is_never_in_the_message() -> None:
    for value in ("hunter2\0", "hunter2" * 40_000, "hunter2\ud800"):
        with pytest.raises(ValueError, match="PASSWORD") as caught:
            check_start({**GOOD, "env": {"PASSWORD": value}})
        assert "hunter2" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(["argv", "env", "cwd", "interrupt_mode", "name", "ready_timeout", "other"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # its first text takes long on a busy machine
@given(st.dictionaries(FIELDS, JSON))
def test_any_json_is_taken_or_refused_in_words(body: dict[str, Any]) -> None:
    try:
        request: StartRequest | None = check_start(body)
        words = "'"
    except ValueError as error:
        request, words = None, str(error)
    assert words.startswith("'")
    if request is not None:
        texts = [*request.argv, *request.env, *request.env.values(), request.cwd or ""]
        assert all("\0" not in text for text in texts)


@pytest.mark.parametrize("python", ["python", "python3", "python3.9", "python3.13"])
def test_a_bare_python_is_the_launchers(python: str) -> None:
    argv = command.resolve_argv([python, "-f", "{connection_file}"], connection_file="/c.json", interpreter="/v/bin/py")
    assert argv == ["/v/bin/py", "-f", "/c.json"]


@pytest.mark.parametrize("program", ["/usr/bin/python3", "python2", "python4", "python3-dbg", "./python", "ipython"])
def test_other_programs_are_literal(program: str) -> None:
    assert command.resolve_argv([program], connection_file="/c.json") == [program]


def test_placeholders() -> None:
    argv = ["x", "a={connection_file},{prefix}/share", "{unknown} {} {{x}}", "{connection_file"]
    resolved = command.resolve_argv(argv, connection_file="/c {prefix}.json", interpreter="/v/bin/python")
    assert resolved == ["x", "a=/c {prefix}.json,/v/share", "{unknown} {} {{x}}", "{connection_file"]
    assert argv[1] == "a={connection_file},{prefix}/share"  # the request is used again at a restart


def test_resource_dir_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"resource_dir.*is not brought"):
        command.resolve_argv(["{resource_dir}/start.sh"], connection_file="/c.json")


def test_base_environment_is_the_users_only() -> None:
    user = {"PATH": "/bin", "HOME": "/h", "USER": "u", "LOGNAME": "u", "SHELL": "/bin/sh", "TZ": "UTC", "TMPDIR": "/t"}
    user |= {"LANG": "C", "LC_ALL": "C", "LC_TIME": "C"}
    own = {"EG_AUTH_TOKEN": "secret", "PYTHONPATH": "/p", "LD_PRELOAD": "x", "XLC_A": "x", "AWS_SECRET": "x"}
    assert command.base_environment({**user, **own}) == user


def test_the_requests_environment_wins() -> None:
    base = {"A": "1", "B": "2"}
    assert command.kernel_environment(base, {"B": "3", "C": "4"}) == {"A": "1", "B": "3", "C": "4"}
    assert base == {"A": "1", "B": "2"}


def test_a_folder_that_is_not_there_becomes_home(tmp_path: Path) -> None:
    folder, home, file = tmp_path / "folder", tmp_path / "home", tmp_path / "file"
    folder.mkdir()
    home.mkdir()
    file.touch()
    assert command.resolve_cwd(str(folder), str(home)) == str(folder)
    for missing in (None, "", str(tmp_path / "none"), str(file), "folder"):
        assert command.resolve_cwd(missing, str(home)) == str(home)
    assert command.resolve_cwd(None, str(tmp_path / "none")) == "/"


@pytest.mark.parametrize(
    ("line", "ipc"),
    [
        ("python -m ipykernel_launcher -f {connection_file}", True),
        ("/opt/venv/bin/python3.12 -Xfrozen_modules=off -m ipykernel_launcher -f {connection_file}", True),
        ("python -X dev -W error -u -m ipykernel -f {connection_file} --debug", True),
        ("python -m ipykernel_launcher --ip=0.0.0.0 -f {connection_file}", False),
        ("python -m ipykernel_launcher --IPKernelApp.transport=tcp -f {connection_file}", False),
        ("python -m xpython_launcher -f {connection_file}", False),
        ("python -c import-ipykernel -m ipykernel_launcher", False),
        ("python kernel.py -m ipykernel_launcher", False),
        ("python -m", False),
        ("python", False),
        ("sudo -u bob python -m ipykernel_launcher", False),
        ("bash -c python", False),
        ("docker run image python -m ipykernel_launcher", False),
        ("R --slave -e IRkernel::main()", False),
        ("", False),
    ],
)
def test_ipc_only_where_ipykernel_runs_directly(line: str, ipc: bool) -> None:
    assert command.speaks_ipc(line.split()) is ipc


def test_failures_without_a_file() -> None:
    kind: dict[str, Any] = {"argv": ["x"], "env": {}, "cwd": None}
    assert "No process could be made" in command.explain_failure("fork", errno.EAGAIN, "", **kind)
    assert "could not be prepared: odd" in command.explain_failure("prepare", None, "odd", **kind)
    assert "'x' cannot be executed: bad value" in command.explain_failure("exec", None, "bad value", **kind)
