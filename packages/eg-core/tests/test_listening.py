import pytest

from eg_core.errors import GatewayError
from eg_core.listening import DataDirLock, bind, is_loopback


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
