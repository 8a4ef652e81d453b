import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from traitlets.config import Config

from eg_core.errors import NoSuchKernelspec
from eg_core.kernelspecs import finder as finder_module
from eg_core.kernelspecs import spec as spec_module
from eg_core.kernelspecs.finder import KernelspecFinder

GOOD = {"argv": ["python3", "-f", "{connection_file}"], "display_name": "Good", "language": "python"}


def install(folder: Path, name: str, document=GOOD, files=()):
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (path / "kernel.json").write_text(text, encoding="utf-8")
    for file in files:
        (path / file).write_text(file)
    return path


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "user", tmp_path / "system"


@pytest.fixture
def finder(folders):
    return KernelspecFinder(kernel_dirs=[str(folder) for folder in folders], ensure_native_kernel=False)


@pytest.fixture
def reads(monkeypatch):
    """The names of the kernelspecs that were read from disk."""
    names = []

    def read(name, folder):
        names.append(name)
        return spec_module.read_kernelspec(name, folder)

    monkeypatch.setattr(finder_module, "read_kernelspec", read)
    return names


def test_earlier_folders_win_and_names_are_lower_case(finder, folders):
    user, system = folders
    install(user, "Python3", {**GOOD, "display_name": "mine"})
    install(system, "python3", {**GOOD, "display_name": "theirs"})
    install(system, "R.4-x_y")
    (system / "empty").mkdir()
    (system / "file").touch()
    specs = finder.find_all()
    assert list(specs) == ["python3", "r.4-x_y"]
    assert specs["python3"].display_name == finder.get("PYTHON3").display_name == "mine"
    assert specs["python3"].resource_dir == user / "Python3"


def test_all_fields_are_read(finder, folders):
    document = {
        **GOOD,
        "env": {"A": "b"},
        "interrupt_mode": "MESSAGE",
        "metadata": {"eg": {"backend": "gpu", "config": {"cpus": 2}}, "debugger": True},
        "kernel_protocol_version": "5.5",
        "unknown": 1,
    }
    path = install(
        folders[0], "full", document, ["logo-64x64.png", "logo-svg.svg", "kernel.js", "kernel.css", "run.sh"]
    )
    spec = finder.get("full")
    assert (spec.argv, spec.env, spec.language) == (GOOD["argv"], {"A": "b"}, "python")
    assert (spec.backend, spec.options) == ("gpu", {"cpus": 2})
    assert spec.model("/base/") == {
        "name": "full",
        "spec": {
            "argv": GOOD["argv"],
            "env": {"A": "b"},
            "display_name": "Good",
            "language": "python",
            "interrupt_mode": "message",
            "metadata": document["metadata"],
            "kernel_protocol_version": "5.5",
        },
        "resources": {
            "kernel.css": "/base/kernelspecs/full/kernel.css",
            "kernel.js": "/base/kernelspecs/full/kernel.js",
            "logo-64x64": "/base/kernelspecs/full/logo-64x64.png",
            "logo-svg": "/base/kernelspecs/full/logo-svg.svg",
        },
    }
    assert finder.resource("FULL", "logo-svg.svg") == path / "logo-svg.svg"


def test_the_least_kernelspec_has_a_whole_model(finder, folders):
    install(folders[0], "least", {"argv": ["x"]})
    assert finder.get("least").model("/") == {
        "name": "least",
        "spec": {
            "argv": ["x"],
            "env": {},
            "display_name": "least",
            "language": "",
            "interrupt_mode": "signal",
            "metadata": {},
        },
        "resources": {},
    }


def test_jupyter_servers_gateway_client_takes_the_models(finder, folders):
    from jupyter_server.gateway.managers import GatewayKernelSpecManager

    install(folders[0], "a", GOOD, ["logo-64x64.png"])
    install(folders[0], "b")
    answer = {"default": "a", "kernelspecs": {n: s.model("/gateway/") for n, s in finder.find_all().items()}}

    class Server:
        base_url = "/lab/"

    class Stand:
        parent = Server()
        log = logging.getLogger("stand")

    replaced = GatewayKernelSpecManager._replace_path_kernelspec_resources(Stand(), answer)
    assert replaced["kernelspecs"]["a"]["resources"] == {"logo-64x64": "/lab/kernelspecs/a/logo-64x64.png"}
    assert replaced["kernelspecs"]["b"]["resources"] == {}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "Expecting property name"),
        ("[]", "must hold an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"argv": ["x"], "metadata": {"a": NaN}}', "NaN"),
        ({}, "argv must be"),
        ({"argv": []}, "argv must be"),
        ({"argv": "x"}, "argv must be"),
        ({"argv": ["x", 1]}, "argv must be"),
        ({"argv": ["x\0"]}, "NUL"),
        ({"argv": ["x"], "env": {"A": 1}}, "env must be"),
        ({"argv": ["x"], "env": ["A"]}, "env must be"),
        ({"argv": ["x"], "env": {"A=B": ""}}, "variable's name"),
        ({"argv": ["x"], "metadata": []}, "metadata must be"),
        ({"argv": ["x"], "interrupt_mode": "shout"}, "interrupt_mode must be one of signal, message"),
        ({"argv": ["x"], "display_name": 1}, "display_name must be"),
        ({"argv": ["x"], "metadata": {"process_proxy": {"class_name": "acme.Own"}}}, "acme.Own"),
        ({"argv": ["x"], "display_name": "x" * spec_module.MAX_KERNEL_FILE}, "larger than 1048576 bytes"),
    ],
)
def test_a_broken_one_is_left_out_and_said_once_per_change(finder, folders, caplog, document, words):
    install(folders[0], "broken", document)
    install(folders[1], "broken")
    install(folders[1], "good")
    for _ in range(3):
        assert list(finder.find_all()) == ["good"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert words in said[0]
    assert str(folders[0] / "broken") in said[0]
    install(folders[0], "broken", "still broken")
    assert list(finder.find_all()) == ["good"]
    assert len(caplog.records) == 2
    install(folders[0], "broken")
    assert list(finder.find_all()) == ["broken", "good"]
    install(folders[0], "broken", document)
    assert list(finder.find_all()) == ["good"]
    assert len(caplog.records) == 3


def test_odd_files_and_names_are_left_out(finder, folders, caplog):
    install(folders[0], "good")
    install(folders[0], "with space")
    install(folders[0], "ünicode")
    (folders[0] / "folder" / "kernel.json").mkdir(parents=True)
    (folders[0] / "pipe").mkdir()
    os.mkfifo(folders[0] / "pipe" / "kernel.json")
    (folders[0] / "dangling").symlink_to("nowhere")
    install(folders[0], "latin").joinpath("kernel.json").write_bytes(b'{"argv": ["\xe9"]}')
    assert list(finder.find_all()) == ["good"]
    assert len(caplog.records) == 5


def test_an_unreadable_folder_is_said_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    finder = KernelspecFinder(kernel_dirs=[str(tmp_path / "file"), str(tmp_path / "no")], ensure_native_kernel=False)
    for _ in range(2):
        assert finder.find_all() == {}
    assert [record.getMessage() for record in caplog.records] == [
        f"Kernelspecs in {tmp_path / 'file'} cannot be read: Not a directory"
    ]


def test_every_change_is_seen(finder, folders):
    user, _ = folders
    assert finder.find_all() == {}
    path = install(user, "a")
    assert list(finder.find_all()) == ["a"]
    for number in range(200):  # faster than a file system's clock ticks, and of the same size
        install(user, "a", {**GOOD, "display_name": f"{number:03}"})
        assert finder.get("a").display_name == f"{number:03}"
    (path / "logo-x.png").touch()
    assert finder.get("a").resources == {"logo-x": "logo-x.png"}
    (path / "kernel.json").unlink()
    assert finder.find_all() == {}
    install(user, "a")
    assert list(finder.find_all()) == ["a"]
    path.rename(user / "b")
    assert list(finder.find_all()) == ["b"]


def test_a_settled_kernelspec_is_read_once(finder, folders, reads, monkeypatch):
    install(folders[0], "a")
    install(folders[1], "b")
    monkeypatch.setattr(finder_module, "_COARSE_CLOCK", -1.0)  # as if all changes were long ago
    for _ in range(3):
        assert list(finder.find_all()) == ["a", "b"]
    assert reads == ["a", "b"]
    install(folders[1], "b", {**GOOD, "display_name": "changed"})
    assert finder.get("b").display_name == "changed"
    assert reads == ["a", "b", "b"]


def test_finding_again_is_cheap(finder, folders, monkeypatch):
    for number in range(100):
        install(folders[0], f"k{number:03}", GOOD, ["logo-64x64.png"])
    monkeypatch.setattr(finder_module, "_COARSE_CLOCK", -1.0)
    took = []
    for _ in range(10):
        before = time.perf_counter()
        assert len(finder.find_all()) == 100
        took.append(time.perf_counter() - before)
    print(f"100 kernelspecs: first {took[0] * 1000:.1f} ms, again {min(took[1:]) * 1000:.2f} ms")
    assert min(took[1:]) < took[0] / 2


def test_only_declared_resources_are_given(finder, folders, tmp_path):
    path = install(folders[0], "a", GOOD, ["logo-a.png", "run.sh", "logo-b"])
    (tmp_path / "secret").write_text("secret")
    (path / "logo-link.png").symlink_to(tmp_path / "secret")
    (path / "logo-up.png").symlink_to("../../secret")
    (path / "logo-loop.png").symlink_to("logo-loop.png")
    (path / "logo-good.png").symlink_to("logo-a.png")
    (path / "logo-folder").mkdir()
    assert finder.get("a").resources == {"logo-a": "logo-a.png", "logo-b": "logo-b", "logo-good": "logo-good.png"}
    hidden = ["kernel.json", "run.sh", "logo-link.png", "logo-up.png", "logo-folder", "logo-a", "LOGO-A.png"]
    crooked = ["", ".", "..", "../a/logo-a.png", "./logo-a.png", "/etc/passwd", "logo-b/../logo-a.png", "logo-a.png\0"]
    for name in hidden + crooked:
        with pytest.raises(KeyError):
            finder.resource("a", name)
    with pytest.raises(NoSuchKernelspec):
        finder.resource("../a", "logo-a.png")


def test_a_resource_that_became_a_link_is_refused(finder, folders, tmp_path, monkeypatch):
    path = install(folders[0], "a", GOOD, ["logo-a.png"])
    (tmp_path / "secret").touch()
    kept = finder.find_all()
    monkeypatch.setattr(finder, "find_all", lambda: kept)  # as if it had been looked up just before
    (path / "logo-a.png").unlink()
    (path / "logo-a.png").symlink_to(tmp_path / "secret")
    with pytest.raises(KeyError):
        finder.resource("a", "logo-a.png")


def test_a_linked_kernelspec_folder_is_followed(finder, folders, tmp_path):
    install(tmp_path, "elsewhere", GOOD, ["logo-a.png"])
    folders[0].mkdir()
    (folders[0] / "linked").symlink_to(tmp_path / "elsewhere")
    assert finder.resource("linked", "logo-a.png").read_text() == "logo-a.png"


def test_an_unknown_name_is_told_with_the_known_ones(finder, folders):
    with pytest.raises(NoSuchKernelspec, match="there are: none"):
        finder.get("x")
    install(folders[0], "a")
    install(folders[0], "b")
    with pytest.raises(NoSuchKernelspec, match=r"'../x'; there are: a, b\."):
        finder.get("../x")


def test_only_allowed_ones_are_offered(folders):
    install(folders[0], "a")
    install(folders[0], "b")
    config = Config({"KernelspecFinder": {"kernel_dirs": [str(folders[0])], "allowed_kernelspecs": {"A", "c"}}})
    finder = KernelspecFinder(config=config)
    assert list(finder.find_all()) == ["a"]
    with pytest.raises(NoSuchKernelspec):
        finder.get("b")


def test_the_native_kernel_stands_in(folders):
    finder = KernelspecFinder(kernel_dirs=[str(folders[0])])
    spec = finder.get("python3")
    assert spec.argv == [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert spec.backend == "local"
    assert "logo-64x64" in spec.resources
    assert finder.resource("python3", "logo-64x64.png").read_bytes().startswith(b"\x89PNG")
    install(folders[0], "python3", {**GOOD, "display_name": "installed"})
    assert finder.get("python3").display_name == "installed"
    install(folders[0], "python3", "broken")
    assert finder.find_all() == {}


def test_by_default_it_looks_where_jupyter_does(monkeypatch, tmp_path):
    install(tmp_path / "kernels", "mine")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert "mine" in KernelspecFinder().find_all()


def test_what_get_returns_may_be_edited(finder, folders):
    install(folders[0], "a", {**GOOD, "env": {"A": "b"}, "metadata": {"eg": {"backend": "x", "config": {"n": []}}}})
    spec = finder.get("a")
    spec.env["LEAK"] = "1"
    spec.argv.append("leak")
    spec.options["n"].append("leak")
    again = finder.get("a")
    assert (again.env, again.argv, again.options) == ({"A": "b"}, GOOD["argv"], {"n": []})


def test_threads_may_look_at_the_same_time(finder, folders):
    stop = threading.Event()
    problems = []

    def look():
        while not stop.is_set():
            try:
                for spec in finder.find_all().values():
                    assert spec.argv
            except Exception as error:  # noqa: BLE001
                problems.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100):
        path = install(folders[number % 2], f"k{number % 7}")
        if number % 5 == 0:
            (path / "kernel.json").unlink()
            path.rmdir()
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
