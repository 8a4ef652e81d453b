"""What one request says stays with its kernel, and what the gateway knows stays with the gateway."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eg_integration.channels import V1
from eg_integration.gateway import Gateway

ENVIRON = "dict(__import__('os').environ)"


@pytest.fixture(scope="module")
def store_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture(scope="module")
def module_gateway(gateway_factory: Callable[..., Gateway], store_key: str) -> Iterator[Gateway]:
    """With every secret it can have in its environment, and variables that kernels may and may not see."""
    gateway = gateway_factory("isolation")
    env = {
        "EG_STORE_KEY": store_key,
        "EG_CLIENT_ENVS": "FLAVOUR",
        "EG_INHERITED_ENVS": "SITE,EG_AUTH_TOKEN",  # the token is refused, whoever names it
        "SITE": "lyon",
        "DATABASE_PASSWORD": "correct horse",
        "EG_SOMETHING": "battery staple",
    }
    try:
        yield gateway.start(env=env)
    finally:
        gateway.end()


def _environ(gateway: Gateway, kernel_id: str) -> dict[str, str]:
    with gateway.connect(kernel_id, subprotocol=V1) as client:
        return dict(client.value(ENVIRON))


def test_overlapping_starts_do_not_mix_their_variables(gateway: Gateway) -> None:
    count = 6

    def start(number: int) -> tuple[str, dict[str, str]]:
        env = {"KERNEL_SAME": str(number), f"KERNEL_ONLY_{number}": "yes", "FLAVOUR": f"f{number}"}
        kernel_id = gateway.start_kernel(env=env)
        return kernel_id, _environ(gateway, kernel_id)

    with ThreadPoolExecutor(count) as pool:
        started = list(pool.map(start, range(count)))

    assert len({kernel_id for kernel_id, _ in started}) == count
    for number, (kernel_id, environ) in enumerate(started):
        assert environ["KERNEL_SAME"] == str(number)
        assert environ["FLAVOUR"] == f"f{number}"
        assert environ["KERNEL_ID"] == kernel_id
        assert [name for name in environ if name.startswith("KERNEL_ONLY_")] == [f"KERNEL_ONLY_{number}"]

    later = _environ(gateway, gateway.start_kernel())
    assert not {"KERNEL_SAME", "FLAVOUR"} & set(later)
    assert not [name for name in later if name.startswith("KERNEL_ONLY_")]


def test_a_restart_keeps_a_kernel_s_own_variables(gateway: Gateway) -> None:
    first = gateway.start_kernel(env={"KERNEL_WHOSE": "first"})
    gateway.start_kernel(env={"KERNEL_WHOSE": "second"})
    answer = gateway.request("POST", f"/api/kernels/{first}/restart", {})
    assert answer.status == 200, answer.words
    assert _environ(gateway, first)["KERNEL_WHOSE"] == "first"


@pytest.mark.parametrize("body", [{"name": "python3"}, {"name": "python3", "env": {}}], ids=["no-env", "empty-env"])
def test_a_kernel_gets_only_what_is_named(gateway: Gateway, body: dict[str, object]) -> None:
    """Also when the request has no ``env``, where Enterprise Gateway passed on all it had."""
    kernel_id = gateway.request("POST", "/api/kernels", body).json["id"]
    environ = _environ(gateway, kernel_id)

    assert environ["SITE"] == "lyon"
    assert not {"DATABASE_PASSWORD", "EG_SOMETHING", "EG_AUTH_TOKEN", "EG_STORE_KEY"} & set(environ)
    assert not {"JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "PYTHONUNBUFFERED"} & set(environ)


def test_no_secret_of_the_gateway_in_any_process_it_starts(gateway: Gateway, store_key: str) -> None:
    """Launcher, spawner and kernels: neither in environments, as the kernel sees them in /proc, nor in arguments."""
    gateway.start_kernel(env={"KERNEL_X": "1"})
    gateway.start_kernel("shell")
    started = gateway.processes()
    assert len(started) >= 5

    for secret in (gateway.token, store_key, "correct horse", "battery staple"):
        for process in started:
            assert secret not in process.environ, process.command
            assert secret not in process.command


def test_no_secret_in_files_and_logs(gateway: Gateway, store_key: str) -> None:
    gateway.start_kernel(env={"KERNEL_PASSWORD": "tell nobody"})
    files = [path for path in gateway.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        for secret in (gateway.token, store_key, "tell nobody"):
            assert secret.encode() not in content, path


def test_what_can_be_read_by_others(gateway: Gateway) -> None:
    """Nothing of a gateway's folder is open to other users, whatever the umask."""
    gateway.start_kernel()
    roots = [gateway.folder / "data", gateway.folder / "run"]
    opened = [str(path) for root in roots for path in _reachable(root)]
    assert opened == []


def _reachable(folder: Path) -> Iterator[Path]:
    """What another user could open below ``folder``, if they could get as far as there."""
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if path.is_dir() and mode & 0o011:
            yield from _reachable(path)
        elif not path.is_dir() and not path.is_symlink() and mode & 0o006:
            yield path
