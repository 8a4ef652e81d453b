import base64
import os
import subprocess
import sys

import pytest

from eg_core.store.errors import StoreError
from eg_core.store.keys import load_key

KEY = bytes(range(32))


def test_a_key_is_made_once_and_only_for_its_owner(tmp_path):
    folder = tmp_path / "new" / "data"
    key = load_key(folder, None)
    assert len(key) == 32
    assert load_key(folder, None) == load_key(folder, "") == key
    assert [path.name for path in folder.iterdir()] == ["store.key"]
    assert (folder / "store.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex(),
        KEY.hex().upper(),
        base64.b64encode(KEY).decode(),
        base64.urlsafe_b64encode(KEY).decode().rstrip("=") + "\n",
    ],
)
def test_the_environment_value_wins_and_makes_no_file(tmp_path, text):
    assert load_key(tmp_path, text) == KEY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["short", "ü" * 32, "0" * 63, base64.b64encode(bytes(31)).decode(), "x" * 10_000])
def test_a_useless_value_is_refused_without_repeating_it(tmp_path, text):
    with pytest.raises(StoreError, match=r"EG_STORE_KEY must be 32 random bytes") as caught:
        load_key(tmp_path, text)
    assert text not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    load_key(tmp_path, None)
    (tmp_path / "store.key").chmod(mode)
    with pytest.raises(StoreError, match="chmod 600"):
        load_key(tmp_path, None)


def test_a_damaged_or_odd_file_is_refused(tmp_path):
    path = tmp_path / "store.key"
    path.touch(0o600)
    with pytest.raises(StoreError, match=r"store\.key must be 32"):
        load_key(tmp_path, None)
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(StoreError, match="not a regular file"):
        load_key(tmp_path, None)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be"):
        load_key(tmp_path / "file", None)
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(StoreError, match="cannot be written"):
            load_key(tmp_path, None)


def test_processes_that_start_at_once_get_one_key(tmp_path):
    code = "import sys, pathlib; from eg_core.store.keys import load_key; sys.stdin.read(); \
print(load_key(pathlib.Path(sys.argv[1]), None).hex())"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "data"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        process.stdin.close()
        process.stdin = None
    keys = {process.communicate(timeout=30)[0] for process in processes}
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 64
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["store.key"]
