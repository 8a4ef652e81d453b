import os
import socket
import subprocess
import sys

import pytest

from eg_core.errors import GatewayError
from eg_core.listening import DataDirLock, bind, inherited, is_loopback


def test_a_taken_port_moves_on_to_the_next():
    first = bind("127.0.0.1", 0, 0)
    port = first[0].getsockname()[1]
    second = bind("127.0.0.1", port, 50)
    assert second[0].getsockname()[1] != port
    with pytest.raises(GatewayError, match=f"Port {port}"):
        bind("127.0.0.1", port, 0)
    for sock in first + second:
        sock.close()


def test_an_address_that_is_not_ours_is_refused_in_words():
    with pytest.raises(GatewayError, match=r"Cannot listen on 192\.0\.2\.1:0"):
        bind("192.0.2.1", 0, 0)


def test_loopback():
    assert [is_loopback(ip) for ip in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(ip) for ip in ("0.0.0.0", "", "::", "192.0.2.1", "example.org")] == [False] * 5


def test_one_gateway_per_data_folder(tmp_path):
    with DataDirLock(tmp_path), pytest.raises(GatewayError, match="Another gateway uses"), DataDirLock(tmp_path):
        pass
    with DataDirLock(tmp_path):
        pass


# -- sockets that somebody else listens on --------------------------------------------------------------------


def handed(**variables):
    return {"LISTEN_PID": str(os.getpid()), **variables}


def test_what_is_meant_for_another_process_is_left_alone():
    assert inherited({}) == ()
    assert inherited({"LISTEN_FDS": "1"}) == ()
    assert inherited({"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}) == ()


@pytest.mark.parametrize("count", ["", "0", "-1", "17", "x", "1" * 5000, "\u0661"])
def test_a_count_that_is_none_is_refused_by_name(count):
    with pytest.raises(GatewayError, match=r"LISTEN_FDS is .* from 1 to 16") as refused:
        inherited(handed(LISTEN_FDS=count))
    assert len(refused.value.message) < 100


INHERITING = """
import os, sys
from eg_core.errors import GatewayError
from eg_core.listening import inherited
try:
    found = inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[1]})
    print([(sock.getsockname()[1], sock.getblocking(), sock.get_inheritable()) for sock in found])
except GatewayError as error:
    print(error)
"""


def inheriting(*socks, count=None):
    """What a process says that is given these as descriptors from 3 on."""
    script = "; ".join(f"os.dup2({sock.fileno()}, {100 + n})" for n, sock in enumerate(socks))
    script += "; " + "; ".join(f"os.dup2({100 + n}, {3 + n})" for n, _ in enumerate(socks))
    done = subprocess.run(
        [sys.executable, "-c", f"import os; {script}\n{INHERITING}", str(count or len(socks))],
        pass_fds=[sock.fileno() for sock in socks],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_sockets_that_listen_are_taken_and_kept_from_children():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [sock.getsockname()[1] for sock in (one, other)]
        assert inheriting(one, other) == str([(port, False, False) for port in ports])


def test_what_is_no_tcp_socket_that_listens_is_refused(tmp_path):
    with socket.socket() as deaf, socket.socket(socket.AF_UNIX) as unix, (tmp_path / "file").open("w") as file:
        unix.bind(str(tmp_path / "sock"))
        unix.listen()
        assert inheriting(deaf).endswith("is no TCP socket that listens.")
        assert inheriting(unix).endswith("is no TCP socket that listens.")
        assert "descriptor 3, which is no socket" in inheriting(file)
