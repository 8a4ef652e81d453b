"""The store away, locked, full, broken, old, new, or of another key: what runs goes on, and nothing is overwritten."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eg_integration.channels import Channels
from eg_integration.gateway import Answer, Gateway
from eg_integration.postgresql import PostgreSQL, find_postgresql
from eg_integration.waiting import wait_until

pytestmark = pytest.mark.timeout(180)


def works(client: Channels) -> None:
    assert client.value("kept") == 7


def refuses_in_words(gateway: Gateway, kernel_id: str) -> None:
    """What needs the store says so; nothing else is harmed."""
    for refused in (
        gateway.request("POST", "/api/kernels", {"name": "python3"}),
        gateway.request("DELETE", f"/api/kernels/{kernel_id}"),
    ):
        assert refused.status == 503, refused.words
        assert "store" in refused.words
        assert refused.json["reason_code"] == "store_unavailable"
        assert "Traceback" not in refused.words
    assert gateway.model(kernel_id)["execution_state"] in {"idle", "busy"}


def serves(gateway: Gateway, kernel_id: str) -> None:
    """Everything works again, and nobody is forgotten."""
    wait_until(lambda: gateway.request("GET", "/healthz").status == 200, "the store to answer again", 60)
    another = wait_until(lambda: _started(gateway), "a kernel to be started", 60)
    assert {kernel["id"] for kernel in gateway.list_kernels()} == {kernel_id, another}
    gateway.delete_kernel(another)
    with gateway.connect(kernel_id) as client:
        works(client)


def _started(gateway: Gateway) -> str | None:
    answer = gateway.request("POST", "/api/kernels", {"name": "python3"})
    return str(answer.json["id"]) if answer.status == 201 else None


@contextlib.contextmanager
def with_kernel(gateway: Gateway) -> Iterator[tuple[str, Channels]]:
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        client.run("kept = 7")
        yield kernel_id, client


# -- while it runs ------------------------------------------------------------------------------------------------


def test_a_store_that_is_locked(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start()
    with with_kernel(gateway) as (kernel_id, client):
        blocker = sqlite3.connect(gateway.folder / "data/eg.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        try:
            refuses_in_words(gateway, kernel_id)
            works(client)
        finally:
            blocker.close()
        serves(gateway, kernel_id)


@pytest.fixture
def small_disk(new_gateway: Callable[..., Gateway], needs: Callable[..., None]) -> Iterator[Gateway]:
    """A gateway whose data folder is a disk of 1 MiB."""
    gateway = new_gateway()
    data = gateway.folder / "data"
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", data], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    needs("mount", mounted, "a disk of the test's own needs mount: run as root")
    yield gateway
    gateway.end()
    subprocess.run(["umount", data], check=True)


def test_a_store_on_a_full_disk(small_disk: Gateway) -> None:
    gateway = small_disk.start()
    with with_kernel(gateway) as (kernel_id, client):
        full = gateway.folder / "data/full"
        _fill(full)
        refused = _until_refused(gateway)
        assert "store" in refused.words
        works(client)
        full.unlink()
        for model in gateway.list_kernels():
            if model["id"] != kernel_id:
                gateway.delete_kernel(model["id"])
        serves(gateway, kernel_id)
    gateway.stop(signal.SIGKILL)
    gateway.start()
    serves(gateway, kernel_id)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def _until_refused(gateway: Gateway) -> Answer:
    """The store's own journal has some room left of what it was once."""
    for _ in range(200):
        answer = gateway.request("POST", "/api/kernels", {"name": "silent"}, headers={"Prefer": "respond-async"})
        if answer.status != 201:
            assert answer.status == 503, answer.words
            return answer
    raise AssertionError("a full disk took 200 kernels")


def test_a_store_that_is_away(new_gateway: Callable[..., Gateway], needs: Callable[..., None]) -> None:
    needs("postgresql", find_postgresql(), "install postgresql")
    with PostgreSQL() as server:
        gateway = new_gateway().start("--EnterpriseGatewayApp.poll_interval=1", env={"EG_STORE_URL": server.url})
        dying = gateway.start_kernel()
        with with_kernel(gateway) as (kernel_id, client), gateway.connect(dying) as its:
            server.stop()
            refuses_in_words(gateway, kernel_id)
            assert gateway.request("GET", "/healthz").status == 503
            works(client)
            ended = its.finish(its.execute("import os; os._exit(3)"))  # told at once, recorded later
            assert "exit code 3" in ended.reply["evalue"]
            server.start()
            assert its.until_closed(60).code >= 4000
            wait_until(lambda: gateway.model(dying)["execution_state"] == "dead", "the death to be recorded", 60)
            gateway.delete_kernel(dying)
            serves(gateway, kernel_id)
        gateway.stop()
        refused = _start_refused(gateway, env={"EG_STORE_URL": server.url.replace("postgres?", "nowhere?")})
        assert "store" in refused
        gateway.start(env={"EG_STORE_URL": server.url})
        serves(gateway, kernel_id)


# -- at the start -------------------------------------------------------------------------------------------------


def _start_refused(gateway: Gateway, **options: dict[str, str]) -> str:
    with pytest.raises(AssertionError, match="the gateway ended with 1") as refused:
        gateway.start(**options)
    assert "Traceback" not in str(refused.value)
    return str(refused.value)


def _edit(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_what_cannot_be_read_is_refused_and_left_as_it_is(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway().start()
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        client.run("kept = 7")
    gateway.stop()
    store, key = gateway.folder / "data/eg.db", gateway.folder / "data/store.key"
    good, good_key = store.read_bytes(), key.read_bytes()

    store.write_bytes(b"This is no database. " * 1000)
    assert "not a database" in _start_refused(gateway)
    assert store.read_bytes() == b"This is no database. " * 1000
    store.write_bytes(good[: 5 * 4096] + os.urandom(4096) + good[6 * 4096 :])
    broken = store.read_bytes()
    assert "store" in _start_refused(gateway)
    assert store.read_bytes() == broken

    store.write_bytes(good)
    key.write_text(secrets.token_hex(32))
    assert "another key" in _start_refused(gateway)
    key.write_bytes(good_key)
    _edit(store, "UPDATE eg_schema SET version_num = '0999'")
    assert "newer version" in _start_refused(gateway)

    store.write_bytes(good)
    gateway.start()
    serves(gateway, kernel_id)


def test_a_store_of_the_previous_schema_is_migrated(new_gateway: Callable[..., Gateway]) -> None:
    """0002 has added the table of sessions."""
    gateway = new_gateway().start()
    kernel_id = gateway.start_kernel()
    with gateway.connect(kernel_id) as client:
        client.run("kept = 7")
    gateway.stop()
    store = gateway.folder / "data/eg.db"
    _edit(store, "DROP TABLE eg_sessions", "UPDATE eg_schema SET version_num = '0001'")
    gateway.start()
    serves(gateway, kernel_id)
    answer = gateway.request(
        "POST", "/api/sessions", {"path": "a.ipynb", "type": "notebook", "kernel": {"id": kernel_id}}
    )
    assert answer.status == 201, answer.words
