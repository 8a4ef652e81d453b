"""The command line: what it refuses in one line, what it understands, what it tells a person."""

import io
import json
import os
import subprocess
import sys

import pytest

from eg_launcher import cli
from eg_launcher.cli import UsageError

ALONE = ["--tcp", "127.0.0.1:0", "--insecure-loopback"]
GOOD = {"launcher_id": "l", "token": "t", "certificate": None, "key": None}


def settings(*argv, command=()):
    return cli._settings(cli.make_parser().parse_args(list(argv)), list(command))


def write(path, value, mode=0o600):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)
    return str(path)


@pytest.fixture
def connection_file(tmp_path):
    ports = {f"{name}_port": 1000 for name in ("shell", "iopub", "stdin", "control", "hb")}
    return write(tmp_path / "kernel-4711.json", {"ip": "127.0.0.1", "transport": "tcp", "key": "", **ports})


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "spawn|attach"),
        (["fly"], "fly"),
        (["spawn"], "--unix --tcp is required"),
        (["spawn", "--tcp", "127.0.0.1"], "HOST:PORT"),
        (["spawn", "--tcp", ":80"], "HOST:PORT"),
        (["spawn", "--tcp", "127.0.0.1:70000"], "HOST:PORT"),
        (["spawn", "--tcp", "127.0.0.1:x"], "HOST:PORT"),
        (["spawn", "--tcp", "127.0.0.1:0", "--unix", "s"], "not allowed with"),
        (["spawn", "--tcp", "127.0.0.1:0"], "--insecure-loopback"),
        (["spawn", "--tcp", "0.0.0.0:0", "--insecure-loopback"], "only on a loopback address"),
        (["spawn", "--tcp", "example.org:1", "--insecure-loopback"], "only on a loopback address"),
        (["spawn", "--credentials", "/no/such/file", *ALONE], "No such file"),
        (["spawn", "--lease", "soon", *ALONE], "--lease"),
        (["spawn", "--lease", "-1", *ALONE], "0 or more"),
        (["spawn", "--lease", "nan", *ALONE], "0 or more"),
        (["spawn", "--kernel-id", "../x", *ALONE], "--kernel-id"),
        (["attach", *ALONE], "--connection-file"),
        (["attach", "--connection-file", "/no/such/file", *ALONE], "No such file"),
        (["attach", "--connection-file", "x", *ALONE, "--", "python"], "only spawn"),
        (["spawn", *ALONE, "--", "a", "b\0"], "argv"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(argv, words, capfd):
    assert cli.main(argv) == 2
    one_line(*capfd.readouterr(), words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--log", "/no/such/folder/log", *ALONE], "No such file"),
        ([*ALONE, "--", "/no/such/program"], "/no/such/program"),
        ([*ALONE, "--", "python", "{resource_dir}"], "resource_dir"),
        (["--unix", "/proc/x/s"], "/proc/x"),
        (["--tcp", "127.0.0.1:1", "--insecure-loopback", "--credentials", "-"], "credentials"),
    ],
)
def test_what_keeps_it_from_listening_is_said_in_one_line(argv, words):
    done = subprocess.run(
        [sys.executable, "-m", "eg_launcher", "spawn", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    one_line(done.stdout, done.stderr, words)


def one_line(out, err, words):
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("eg-launcher: ")
    assert words in err


def test_windows_is_refused_in_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    assert cli.main(["spawn", *ALONE]) == 2
    assert "Windows is not supported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nonsense", "not JSON"),
        ("[]", "object"),
        ({}, "launcher_id"),
        ({**GOOD, "token": ""}, "token"),
        ({**GOOD, "token": 1}, "token"),
        ({**GOOD, "certificate": 1}, "certificate"),
        ({**GOOD, "certificate": "SECRET"}, "both"),
    ],
)
def test_credentials_that_are_not_good(tmp_path, value, words):
    with pytest.raises(UsageError, match=words) as caught:
        cli.read_credentials(write(tmp_path / "c", value))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_credentials_that_others_can_read_are_refused(tmp_path, mode):
    with pytest.raises(UsageError, match="chmod 600"):
        cli.read_credentials(write(tmp_path / "c", GOOD, mode))


def test_credentials_from_a_file_and_from_stdin(tmp_path, monkeypatch):
    assert cli.read_credentials(write(tmp_path / "c", GOOD)) == GOOD
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"launcher_id": "l", "token": "t"}) + "\n"))
    assert cli.read_credentials("-") == GOOD


def test_defaults_with_and_without_a_gateway(tmp_path):
    credentials = write(tmp_path / "c", GOOD)
    made, alone = settings("spawn", "--credentials", credentials, "--unix", "s")
    assert (alone, made.lease, made.token, made.unix) == (False, 120.0, "t", "s")
    made, alone = settings("spawn", *ALONE)
    assert (alone, made.lease, len(made.token)) == (True, 0.0, 48)
    assert made.token not in repr(made)
    assert settings("spawn", *ALONE)[0].token != made.token
    made, _ = settings("spawn", "--credentials", credentials, "--tcp", "[::1]:8", "--insecure-loopback", "--lease", "5")
    assert (made.host, made.port, made.lease) == ("::1", 8, 5.0)


def test_a_certificate_needs_no_flag(tmp_path):
    credentials = write(tmp_path / "c", {**GOOD, "certificate": "C", "key": "K"})
    made, _ = settings("spawn", "--credentials", credentials, "--tcp", "0.0.0.0:0")
    assert (made.host, made.certificate) == ("0.0.0.0", "C")


def test_a_command_gets_this_environment_and_folder():
    made, _ = settings("spawn", *ALONE, command=["python", "-f", "{connection_file}"])
    assert made.start.argv == ["python", "-f", "{connection_file}"]
    assert made.start.env["PATH"] == os.environ["PATH"]
    assert made.start.cwd == os.getcwd()  # noqa: PTH109


def test_attach_takes_the_id_from_the_file(connection_file):
    made, _ = settings("attach", "--connection-file", connection_file, *ALONE)
    assert made.kernel_id == "4711"
    assert made.attach["shell_port"] == 1000
    assert settings("attach", "--connection-file", connection_file, "--kernel-id", "k", *ALONE)[0].kernel_id == "k"


@pytest.mark.parametrize("value", ["nonsense", "[]", {"shell_port": 1}, {"shell_port": "1"}])
def test_a_file_that_is_no_connection_file(tmp_path, value):
    with pytest.raises(UsageError, match="connection"):
        settings("attach", "--connection-file", write(tmp_path / "x.json", value), *ALONE)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ({"host": "127.0.0.1", "port": 8}, "ws://127.0.0.1:8/api/kernels/k/channels?token="),
        ({"host": "::1", "port": 8}, "ws://[::1]:8/api/kernels/k/channels?token="),
        ({"path": "/run/s"}, "ws+unix:///run/s:/api/kernels/k/channels?token="),
    ],
)
def test_how_to_connect(connection_file, endpoint, url):
    made, _ = settings("attach", "--connection-file", connection_file, "--kernel-id", "k", *ALONE)
    words = cli.how_to_connect(made, endpoint)
    assert url + made.token in words
    assert "not the kernel" in words


def test_help_shows_the_recipe_without_pyzmq():
    code = "import sys; sys.modules['zmq'] = None; from eg_launcher.cli import main; main(sys.argv[1:])"
    for argv in (["--help"], ["spawn", "--help"], ["attach", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
        if argv != ["--version"]:
            assert "eg-launcher attach --connection-file" in done.stdout
            assert "--insecure-loopback" in done.stdout
