import json
import stat

from eg_launcher import connection_file


def test_ipc_needs_a_short_path(tmp_path):
    short = tmp_path / "s"
    info = connection_file.make_connection_info(short, name="n", ipc=True)
    assert info["transport"] == ("ipc" if len(str(short)) + 11 <= 107 else "tcp")
    long = tmp_path / ("x" * 100)
    info = connection_file.make_connection_info(long, name="n", ipc=True)
    assert (info["transport"], info["ip"]) == ("tcp", "127.0.0.1")
    assert len({info[port] for port in connection_file.PORTS}) == 5


def test_urls():
    info = {"transport": "tcp", "ip": "::1", "shell_port": 1, "iopub_port": 2}
    assert connection_file.urls(info) == {"shell": "tcp://[::1]:1", "iopub": "tcp://[::1]:2"}
    info = {"transport": "ipc", "ip": "/run/x", "control_port": 4}
    assert connection_file.urls(info) == {"control": "ipc:///run/x-4"}


def test_the_file_is_its_owners_only_and_goes_with_its_sockets(tmp_path):
    path = tmp_path / "kernel.json"
    info = connection_file.make_connection_info(tmp_path, name="n", ipc=True)
    connection_file.write_connection_file(path, info)
    connection_file.write_connection_file(path, info)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == info
    if info["transport"] == "ipc":
        (tmp_path / f"{info['ip']}-1").touch()
    connection_file.remove_leftovers(path, info)
    connection_file.remove_leftovers(path, info)
    assert list(tmp_path.iterdir()) == []
