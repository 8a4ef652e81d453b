import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from eg_launcher.folder import PrivateFolder

OLD = 1_000_000


@pytest.fixture
def base(tmp_path):
    return str(tmp_path)


def test_it_is_private_short_and_removed(base):
    folder = PrivateFolder()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert len(str(folder.path)) < 60
    (folder.path / "kernel.json").write_text("{}")
    folder.remove()
    assert not folder.path.exists()


def test_what_a_killed_launcher_left_is_removed_by_the_next_but_not_a_living_ones(base):
    code = "import sys, os; from eg_launcher.folder import PrivateFolder; f = PrivateFolder(sys.argv[1])\n"
    code += "(f.path / 'key').write_text('secret'); print(f.path, flush=True); os.kill(os.getpid(), 9)"
    left = subprocess.run(
        [sys.executable, "-c", code, base], capture_output=True, text=True, check=False
    ).stdout.strip()
    living = PrivateFolder(base)
    for path in (left, living.path):
        os.utime(path, (OLD, OLD))
    following = PrivateFolder(base)
    assert not Path(left).exists()
    assert living.path.exists()
    living.remove()
    following.remove()
    assert list(Path(base).iterdir()) == []


def test_what_may_be_in_the_making_and_what_is_not_ours_to_remove_stays(tmp_path):
    young, target = tmp_path / "eg-launcher-young", tmp_path / "elsewhere"
    young.mkdir()
    target.mkdir()
    link, file = tmp_path / "eg-launcher-link", tmp_path / "eg-launcher-file"
    link.symlink_to(target)
    file.write_text("")
    theirs = tmp_path / "eg-launcher-checkout"
    theirs.mkdir()
    (theirs / "work.py").write_text("")
    (target / ".eg-launcher").write_text("")
    for path in (link, file, target, theirs):
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    PrivateFolder(str(tmp_path)).remove()
    assert set(tmp_path.iterdir()) == {young, target, link, file, theirs}
