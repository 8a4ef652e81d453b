"""The store's contract, on SQLite and on a real PostgreSQL."""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eg_core.errors import InvalidRequest, LaunchDenied
from eg_core.store.records import KernelRecord, LauncherRecord, Quota, SessionRecord
from eg_core.store.rows import KERNEL_FIELDS, LIMITS, MESSAGE_LENGTH
from eg_core.store.store import DuplicateKernel, Store, StoreError, StoreUnavailable
from eg_core.types import KernelHandle, KernelStart, ProcessInfo

POSTGRESQL_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def record(kernel_id="k1", **changes):
    values = {
        "kernel_id": kernel_id,
        "kernelspec": "python3",
        "backend": "local",
        "owner": "alice",
        "run_as": None,
        "state": "launching",
        "reason": None,
        "message": None,
        "options": {"image": "a/b:1", "cpus": 2.5, "nested": {"list": [1, None, True]}},
        "labels": {"team": "blau-weiß"},
        "start": KernelStart(["python3", "-f", "{connection_file}"], {"TOKEN": "s3cret", "A": "ü"}, "/srv", "message"),
        "handle": None,
        "process": None,
        "exit": None,
        "created_at": 1_700_000_000.25,
        "updated_at": 1_700_000_000.5,
    }
    return KernelRecord(**{**values, **changes})


@pytest.fixture(scope="module")
def postgresql():
    """A PostgreSQL server of its own, on a Unix socket, never as root."""
    pytest.importorskip("psycopg", reason="the PostgreSQL driver (psycopg) is not installed")
    if not POSTGRESQL_BINARIES:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql: its half of the store's contract is not tested")
    binaries = POSTGRESQL_BINARIES[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="eg-pg-"))
    identity = {}
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        user = "nobody"
        shutil.chown(folder, "nobody", "nogroup")
    options = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **identity}
    login = user or "tester"
    server = None
    try:
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", login, "-A", "trust", "-N", "--locale=C", "-E", "UTF8"],
            check=True, **options,
        )  # fmt: skip
        server = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            **{**options, "stdout": subprocess.DEVNULL},
        )
        url = f"postgresql://{login}@/postgres?host={folder}"
        wait_for_postgresql(url, server)
        yield url
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)
            server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_postgresql(url, server):
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(url, connect_timeout=5):
                return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def own_database(server_url):
    import psycopg

    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield server_url.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store/eg.db"
    else:
        with own_database(request.getfixturevalue("postgresql")) as database:
            yield database


@pytest.fixture
def key():
    return secrets.token_bytes(32)


@pytest.fixture
async def store(url, key):
    store = Store(url, key)
    await store.open()
    yield store
    await store.close()


async def test_gateway_id_is_made_once(url, key):
    ids = set()
    for _ in range(3):
        store = Store(url, key)
        ids.add(await store.open())
        await store.close()
        await store.close()
    assert len(ids) == 1
    assert len(ids.pop()) == 32


async def test_stores_opened_at_once_agree(url, key):
    stores = [Store(url, key) for _ in range(4)]
    try:
        assert len(set(await asyncio.gather(*(store.open() for store in stores)))) == 1
        made = await asyncio.gather(*(store.secret("ca", lambda: secrets.token_bytes(8)) for store in stores))
        assert len(set(made)) == 1
    finally:
        for store in stores:
            await store.close()


async def test_another_key_is_refused_in_words(store, url, key):
    await store.add_kernel(record())
    other = Store(url, bytes(32))
    with pytest.raises(StoreError, match=r"written with another key.*EG_STORE_KEY") as caught:
        await other.open()
    assert caught.value.reason == "store_key"
    assert [kernel.kernel_id for kernel in await store.kernels()] == ["k1"]


async def test_a_kernel_comes_back_as_it_was(store):
    plain = record()
    full = record(
        "k2",
        run_as="alice",
        reason="signal",
        message="killed",
        handle=KernelHandle("k2", "l1", "gpu-eu", {"endpoint": {"path": "/x"}, "n": 1}),
        process=ProcessInfo(1, 2, 3, "host"),
        exit={"reason": "signal", "signal": "SIGKILL", "code": None, "stderr": ["a", "b"], "message": "m"},
        created_at=1_800_000_000.0,
    )
    await store.add_kernel(full)
    await store.add_kernel(plain)
    assert await store.kernels() == [plain, full]
    for kernel_id in ("k1", "k2", "k2"):
        await store.remove_kernel(kernel_id)
    assert await store.kernels() == []


async def test_a_taken_id_says_by_what(store):
    await store.add_kernel(record())
    with pytest.raises(DuplicateKernel) as caught:
        await store.add_kernel(record(owner="mallory"))
    assert caught.value.existing == record()


async def test_update_changes_what_is_named_and_nothing_else(store):
    await store.add_kernel(record())
    await store.add_kernel(record("k2"))
    handle = KernelHandle("k1", "l1", "local", {"a": [1]})
    before = time.time()
    changed = await store.update_kernel("k1", expect="launching", state="starting", handle=handle)
    assert changed == dataclasses.replace(record(), state="starting", handle=handle, updated_at=changed.updated_at)
    assert before <= changed.updated_at <= time.time()
    assert await store.update_kernel("k1", expect="launching", state="dead") is None
    assert await store.update_kernel("nobody", state="dead") is None
    assert await store.kernels() == [changed, record("k2")]
    assert (await store.update_kernel("k1", handle=None)).handle is None
    for name in ("created_at", "nonsense"):
        with pytest.raises(TypeError, match=name):
            await store.update_kernel("k1", **{name: 1.0})


async def test_of_many_that_compare_and_set_one_wins(url, key):
    stores = [Store(url, key) for _ in range(2)]
    for store in stores:
        await store.open()
    try:
        await stores[0].add_kernel(record())
        for turn in range(20):
            expect = "launching" if turn == 0 else f"state{turn - 1}"
            answers = await asyncio.gather(
                *(store.update_kernel("k1", expect=expect, state=f"state{turn}") for store in stores for _ in range(3))
            )
            assert sum(answer is not None for answer in answers) == 1
    finally:
        for store in stores:
            await store.close()


async def test_of_many_that_add_one_id_one_wins(url, key):
    stores = [Store(url, key) for _ in range(2)]
    for store in stores:
        await store.open()
    try:
        for turn in range(10):
            answers = await asyncio.gather(
                *(store.add_kernel(record(f"k{turn}")) for store in stores for _ in range(3)), return_exceptions=True
            )
            assert sum(answer is None for answer in answers) == 1
            assert sum(isinstance(answer, DuplicateKernel) for answer in answers) == 5
    finally:
        for store in stores:
            await store.close()


async def test_launchers_come_back_with_their_tokens(store):
    first, second = LauncherRecord("l1", "local", "t0ken", 1.5), LauncherRecord("l2", "gpu-eu", "other", 2.5)
    await store.add_launcher(second)
    await store.add_launcher(first)
    assert await store.launchers() == [first, second]
    with pytest.raises(InvalidRequest, match="l1 is in use"):
        await store.add_launcher(first)
    await store.remove_launcher("l1")
    await store.remove_launcher("l1")
    assert await store.launchers() == [second]
    assert "other" not in repr(second)


async def test_a_secret_is_made_once_and_kept(url, key):
    store = Store(url, key)
    await store.open()
    assert await store.secret("ca", lambda: b"first") == b"first"
    assert await store.secret("ca", lambda: b"second") == b"first"
    await store.close()
    await store.open()
    assert await store.secret("ca", lambda: b"third") == b"first"
    with pytest.raises(ValueError, match="at most"):
        await store.secret("big", lambda: bytes(100_000))
    await store.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owner": "x" * 256}, "owner has 256 characters; at most 255"),
        ({"owner": ""}, "owner must be a string"),
        ({"owner": None}, "owner must be a string"),
        ({"backend": "a\0b"}, "backend holds characters"),
        ({"kernelspec": "a\ud800"}, "kernelspec holds characters"),
        ({"labels": {"a": "x" * LIMITS["labels"]}}, f"labels takes .* at most {LIMITS['labels']}"),
        ({"options": {"a": "x" * LIMITS["options"]}}, "options takes"),
        ({"options": {"a": object()}}, "options cannot be written as JSON"),
        ({"labels": ["a"]}, "labels must be an object"),
        ({"start": KernelStart(["x" * LIMITS["start"]], {})}, "start takes"),
        ({"handle": KernelHandle("k", "l", "b", {"a": "x" * LIMITS["handle"]})}, "handle takes"),
    ],
)
async def test_what_is_out_of_bounds_is_refused_by_name(store, changes, words):
    with pytest.raises(InvalidRequest, match=words):
        await store.add_kernel(record(**changes))
    assert await store.kernels() == []
    await store.add_kernel(record())
    with pytest.raises(InvalidRequest, match=words):
        await store.update_kernel("k1", **changes)
    assert await store.kernels() == [record()]


async def test_the_words_of_a_death_are_cut_not_refused(store):
    await store.add_kernel(record())
    ending = {
        "reason": "exited",
        "code": 1,
        "stderr": [f"{n} " + "é\0\ud800" * 5000 for n in range(100)],
        "message": "m",
    }
    changed = await store.update_kernel("k1", state="dead", message="x\0\udcff" * 10_000, exit=ending)
    assert len(changed.message) == MESSAGE_LENGTH
    assert changed.message.startswith("x\ufffd?x")
    assert changed.exit["code"] == 1
    assert 5 <= len(changed.exit["stderr"]) <= 40
    assert all(line.startswith("…") for line in changed.exit["stderr"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
OBJECT = st.dictionaries(st.text(), JSON, max_size=4)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=OBJECT, env=st.dictionaries(st.text(), st.text(), max_size=4), argv=st.lists(st.text()), state=OBJECT)
def test_any_json_comes_back(tmp_path, options, env, argv, state):
    async def there_and_back():
        store = Store(f"sqlite:///{tmp_path}/eg.db", bytes(32))
        await store.open()
        written = record(options=options, start=KernelStart(argv, env), handle=KernelHandle("k1", "l", "b", state))
        await store.add_kernel(written)
        try:
            assert await store.kernels() == [written]
        finally:
            await store.remove_kernel("k1")
            await store.close()

    asyncio.run(there_and_back())


async def test_a_thousand_kernels_are_listed_quickly(store):
    for number in range(1000):
        await store.add_kernel(record(f"k{number:04}", created_at=float(number)))
    took = []
    for _ in range(3):
        before = time.perf_counter()
        kernels = await store.kernels()
        took.append(time.perf_counter() - before)
    print(f"1000 kernels listed in {min(took) * 1000:.1f} ms")
    assert len(kernels) == 1000
    assert min(took) < 0.5


async def test_no_secret_is_legible_at_rest(tmp_path, key):
    store = Store(f"sqlite:///{tmp_path}/store/eg.db", key)
    await store.open()
    marks = [f"mark-{name}-{secrets.token_hex(8)}" for name in ("env", "options", "token", "secret", "changed")]
    start = KernelStart(["python3"], {"PASSWORD": marks[0]})
    await store.add_kernel(record(start=start, options={"password": marks[1]}))
    await store.add_launcher(LauncherRecord("l1", "local", marks[2], 1.0))
    await store.secret("ca", marks[3].encode)
    await store.update_kernel("k1", start=KernelStart(["python3"], {"PASSWORD": marks[4]}))

    def legible():
        files = list((tmp_path / "store").iterdir())
        assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
        found = b"".join(path.read_bytes() for path in files)
        assert b"python3" in found  # the kernelspec's name: what is looked for would be found
        return [mark for mark in [*marks, key] if (mark if isinstance(mark, bytes) else mark.encode()) in found]

    assert legible() == []
    await store.close()
    assert legible() == []
    assert oct((tmp_path / "store").stat().st_mode & 0o777) == "0o700"


async def test_a_value_moved_to_another_row_is_refused(store):
    import sqlalchemy

    await store.add_kernel(record())
    await store.add_kernel(record("k2", start=KernelStart(["evil"], {})))
    other = "(SELECT start FROM eg_kernels WHERE kernel_id = 'k2')"
    with store._opened.begin() as connection:
        connection.execute(sqlalchemy.text(f"UPDATE eg_kernels SET start = {other} WHERE kernel_id = 'k1'"))
    with pytest.raises(StoreError, match="kernels/k1/start cannot be decrypted"):
        await store.kernels()


async def test_a_closed_store_says_so(store):
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        await store.kernels()


async def test_a_cancelled_call_leaves_the_store_usable(store):
    calls = [asyncio.ensure_future(store.add_kernel(record(f"k{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    kept = {kernel.kernel_id for kernel in await store.kernels()}
    assert {f"k{n}" for n in range(1, 20, 2)} <= kept


async def test_a_store_on_a_full_or_locked_disk_is_told_in_words(tmp_path, key, monkeypatch):
    import sqlite3

    monkeypatch.setattr("eg_core.store.engine._BUSY_SECONDS", 0.1)
    store = Store(f"sqlite:///{tmp_path}/eg.db", key)
    await store.open()
    blocker = sqlite3.connect(tmp_path / "eg.db", isolation_level=None)
    try:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="try again") as caught:
            await store.add_kernel(record())
        assert "locked" in caught.value.detail
        assert await store.kernels() == []  # a reader does not wait for a writer
        blocker.execute("ROLLBACK")
        await store.add_kernel(record())
    finally:
        blocker.close()
        await store.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://root:hunter2@db/eg", "mysql"),
        ("nonsense hunter2", "cannot be parsed"),
        ("sqlite:////proc/hunter/eg.db", "cannot be opened"),
    ],
)
async def test_a_useless_url_is_refused_without_repeating_its_password(url, words, key):
    with pytest.raises(StoreError, match=words) as caught:
        await Store(url, key).open()
    assert "hunter2" not in str(caught.value)


async def test_a_cut_connection_is_made_anew(postgresql, key):
    import psycopg

    with own_database(postgresql) as database:
        store = Store(database, key)
        await store.open()
        await store.add_kernel(record())
        with psycopg.connect(database, autocommit=True) as connection:
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            cut = connection.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
            ).fetchall()
        assert cut
        assert await store.kernels() == [record()]
        await store.close()


async def test_an_absent_server_is_told_in_words(key):
    pytest.importorskip("psycopg", reason="the PostgreSQL driver (psycopg) is not installed")
    with pytest.raises(StoreUnavailable) as caught:
        await Store("postgres://me:hunter2@127.0.0.1:1/eg", key).open()
    assert "hunter2" not in f"{caught.value} {caught.value.detail}"


def test_every_field_of_a_record_has_a_column():
    from eg_core.store.schema import KernelRow

    assert set(KERNEL_FIELDS) == set(KernelRow.__table__.columns.keys())


# -- processes ----------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from eg_core.store.store import Store, DuplicateKernel
from eg_core.store.records import KernelRecord
from eg_core.types import KernelStart

def record(kernel_id):
    return KernelRecord(kernel_id, "python3", "local", "alice", None, "launching", None, None, {"pad": "x" * 20000}, {},
        KernelStart(["python3"], {"A": "b"}), None, None, None, 1.0, 1.0)

async def main(url, key, name, mode):
    store = Store(url, bytes.fromhex(key))
    print("id", await store.open(), flush=True)
    number = 0
    while mode == "forever" or number < int(mode):
        kernel_id = f"{name}-{number}"
        try:
            await store.add_kernel(record(kernel_id))
            print("added", kernel_id, flush=True)
            if await store.update_kernel(kernel_id, expect="launching", state="ready") is not None:
                print("ready", kernel_id, flush=True)
            if number % 3 == 0:
                print("removing", kernel_id, flush=True)
                await store.remove_kernel(kernel_id)
                print("removed", kernel_id, flush=True)
        except DuplicateKernel:
            print("taken", kernel_id, flush=True)
        number += 1
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.contextmanager
def writers(url, key, *names, mode):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, key.hex(), name, mode], stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


async def test_what_was_answered_survives_a_killed_writer(url, key):
    for turn in range(4):
        with writers(url, key, f"w{turn}", mode="forever") as [process]:
            lines = [process.stdout.readline() for _ in range(25 + 7 * turn)]
            process.kill()
            lines += process.stdout.read().splitlines()
        told = [line.split() for line in lines if line.count(" ") == 1]
        store = Store(url, key)
        assert await store.open() == told[0][1]
        kernels = {kernel.kernel_id: kernel.state for kernel in await store.kernels()}
        await store.close()
        said = {}
        for word, kernel_id in told[1:]:
            said.setdefault(kernel_id, []).append(word)
        for kernel_id, words in said.items():
            if "removed" in words:
                assert kernel_id not in kernels
            elif "removing" not in words:
                assert kernels[kernel_id] == "ready" or "ready" not in words
        strangers = [kernel_id for kernel_id in kernels if kernel_id.startswith(f"w{turn}-") and kernel_id not in said]
        assert len(strangers) <= 1  # the one that was being added
    if url.startswith("sqlite"):
        import sqlite3

        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


async def test_processes_that_start_at_once_share_one_store(url, key):
    with writers(url, key, "same", "same", "own", mode="15") as processes:
        told = [process.communicate(timeout=60)[0].splitlines() for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({lines[0] for lines in told}) == 1
    added = [line for lines in told for line in lines if line.startswith("added same-")]
    kept = [line for line in added if int(line.split("-")[1]) % 3]
    assert len(kept) == len(set(kept)) == 10
    store = Store(url, key)
    await store.open()
    states = {kernel.kernel_id: kernel.state for kernel in await store.kernels()}
    await store.close()
    assert set(states.values()) == {"ready"}
    assert len(states) == 20


# -- quota and sessions -------------------------------------------------------------------------------------------

COUNTED = frozenset({"launching", "ready"})


async def outcomes(work):
    done = await asyncio.gather(*work, return_exceptions=True)
    return [
        getattr(error, "reason", error) for error in done if error is not None and not isinstance(error, KernelRecord)
    ]


async def test_racing_kernels_never_pass_the_quota_even_from_two_stores(url, store, key):
    quota = Quota(COUNTED, total=5, per_owner=3)
    second = Store(url, key)
    await second.open()
    stores = (store, second)
    refused = await outcomes(
        stores[n % 2].add_kernel(record(f"k{n}", owner=f"user{n % 3}"), quota=quota) for n in range(60)
    )
    await second.close()
    assert len(await store.kernels()) == 5
    assert set(refused) <= {"max_kernels", "max_kernels_per_user"}
    assert len(refused) == 55


async def test_what_is_not_in_a_counted_state_takes_no_place(store):
    quota = Quota(COUNTED, total=1)
    await store.add_kernel(record("a"), quota=quota)
    with pytest.raises(LaunchDenied, match="max_kernels is 1"):
        await store.add_kernel(record("b"), quota=quota)
    await store.update_kernel("a", state="dead")
    await store.add_kernel(record("b"), quota=quota)
    with pytest.raises(LaunchDenied):
        await store.update_kernel("a", expect="dead", state="launching", quota=quota)
    assert (await store.update_kernel("b", state="ready", quota=quota)).state == "ready"
    await store.remove_kernel("b")
    assert (await store.update_kernel("a", expect="dead", state="launching", quota=quota)).state == "launching"


async def test_a_users_quota_of_nothing_lets_nobody_start(store):
    with pytest.raises(LaunchDenied, match="user 'alice' has 0 kernels"):
        await store.add_kernel(record("a"), quota=Quota(COUNTED, per_owner=0))
    await store.add_kernel(record("a"), quota=Quota(COUNTED))


async def test_sessions_are_kept_changed_and_removed(store):
    one = SessionRecord("s1", "k1", "alice", "a/ü.ipynb", "ü", "notebook", 1.5)
    await store.add_session(one)
    assert await store.sessions() == [one]
    other = dataclasses.replace(one, kernel_id="k2", path="b")
    assert await store.update_session(other)
    assert await store.sessions() == [other]
    with pytest.raises(InvalidRequest, match="path must have at most"):
        await store.update_session(dataclasses.replace(one, path="x" * 5000))
    assert await store.remove_session("s1")
    assert not await store.remove_session("s1")
    assert not await store.update_session(one)
