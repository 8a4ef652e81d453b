import json
import stat
from pathlib import Path

import pytest

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


def test_ports_are_not_those_of_outgoing_connections_nor_another_kernel_s(tmp_path):
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    given = [connection_file.make_connection_info(tmp_path, name="n", ipc=False) for _ in range(100)]
    ports = [info[port] for info in given for port in connection_file.PORTS]
    assert len(set(ports)) == len(ports)
    assert first <= 10_000 or all(10_000 <= port < first for port in ports)


def test_without_a_range_of_their_own_any_free_port_will_do(tmp_path, monkeypatch):
    low = tmp_path / "range"
    monkeypatch.setattr(connection_file, "_EPHEMERAL", low)
    low.write_text("1024\t65535\n")
    assert all(port > 1024 for port in connection_file._free_ports(5))
    low.write_text("nonsense")
    assert all(10_000 <= port < 32_768 for port in connection_file._free_ports(5))


def test_no_free_port_is_said(monkeypatch):
    monkeypatch.setattr(connection_file.socket.socket, "bind", refuse)
    with pytest.raises(OSError, match="no 5 free ports"):
        connection_file._free_ports(5)


def refuse(*_):
    raise OSError(98, "Address already in use")
