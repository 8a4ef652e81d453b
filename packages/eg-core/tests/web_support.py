"""The gateway's web over a real registry and store, in this process, and a small client of it."""

import contextlib
import getpass
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from eg_core.handlers.routes import application
from eg_core.handlers.server import make_server
from eg_core.kernels.requests import Composer
from eg_core.kernelspecs.finder import KernelspecFinder

TOKEN = "let-me-in"


@dataclass
class Web:
    registry: object
    port: int
    log: object
    settings: dict

    async def __call__(self, method, path, body=None, *, headers=None, token=TOKEN, raw=None, timeout=60):
        """(status, headers, decoded JSON or text)."""
        sent = {"Authorization": f"token {token}"} if token else {}
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        if data is None and method == "POST":
            data = b""
        answer = await AsyncHTTPClient().fetch(
            HTTPRequest(
                f"http://127.0.0.1:{self.port}{path}",
                method=method,
                headers={**sent, **(headers or {})},
                body=data,
                request_timeout=timeout,
                allow_nonstandard_methods=True,
            ),
            raise_error=False,
        )
        text = answer.body.decode()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.code, answer.headers, json.loads(text) if is_json and text else text


def add_kernelspec(folder: Path, name, argv, **more):
    (folder / name).mkdir(parents=True)
    spec = {"argv": argv, "display_name": name, "language": "python", **more}
    (folder / name / "kernel.json").write_text(json.dumps(spec))
    return folder / name


def add_kernelspecs(folder: Path):
    add_kernelspec(folder, "python3", [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    add_kernelspec(folder, "sleepy", [sys.executable, "-c", "import time; time.sleep(600)"])
    add_kernelspec(folder, "gpu", ["python"], metadata={"eg": {"backend": "gpu-eu", "config": {}}})
    logo = add_kernelspec(folder, "logo", ["python"])
    (logo / "logo-64x64.png").write_bytes(b"PNG")
    (logo / "secret.txt").write_text("no")


@contextlib.asynccontextmanager
async def serving(registry, kernelspecs: Path, *, base_url="/", composer=None, server=None, **settings):
    """``composer``, ``server``: more arguments of those two. ``settings``: the application's."""
    finder = KernelspecFinder(kernel_dirs=[str(kernelspecs)])
    values = {
        "finder": finder,
        "default_kernel_name": "python3",
        "user": getpass.getuser(),
        "inherited_envs": frozenset(),
        "client_envs": frozenset(),
        "environ": {},
    }
    web = application(
        base_url,
        **{
            "registry": registry,
            "finder": finder,
            "composer": Composer(**{**values, **(composer or {})}),
            "gateway_id": "test",
            "auth_token": TOKEN,
            "list_kernels": True,
            "launch_wait": 25.0,
            "log": registry.log,
            "log_function": lambda handler: None,
            **settings,
        },
    )
    http = make_server(web, **(server or {}))
    http.listen(0, "127.0.0.1")
    port = next(iter(http._sockets.values())).getsockname()[1]
    try:
        yield Web(registry, port, registry.log, web.settings)
    finally:
        http.stop()
        await http.close_all_connections()
