"""A small client of gateway and launcher for tests: REST over ``http.client``, ``channels.py`` for the rest.

Synchronous, one connection per call, every wait with a deadline; ``AsyncGatewayClient`` is the same in threads.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import websocket

from eg_core.testing.channels import TIMEOUT, Channels, Execution

__all__ = ["AsyncGatewayClient", "Channels", "ClientError", "Execution", "GatewayClient", "Http", "LauncherApi"]

Connect = Callable[[], socket.socket]
"""Gives a connected, blocking socket, TLS done."""


class ClientError(Exception):
    """An answer that is not 2xx: its status and what it says."""

    def __init__(self, status: int, body: Any) -> None:
        said = body.get("message", body) if isinstance(body, dict) else body
        super().__init__(f"{status}: {said}")
        self.status = status
        self.body = body


class Http:
    """JSON calls to one server."""

    def __init__(self, connect: Connect, token: str, *, host: str = "localhost", base: str = "") -> None:
        self._connect = connect
        self._token = token
        self._host = host
        self._base = base.rstrip("/")

    def call(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        """One call. Raises ClientError unless the answer is 2xx."""
        connection = http.client.HTTPConnection(self._host, timeout=TIMEOUT)
        connection.sock = self._connect()
        sent = {"Authorization": f"token {self._token}", "Connection": "close", **(headers or {})}
        try:
            connection.request(method, self._base + path, None if body is None else json.dumps(body), sent)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        answer = _parsed(raw)
        if not 200 <= response.status < 300:
            raise ClientError(response.status, answer)
        return answer

    def channels(self, path: str, *, comes_back: bool = True) -> Channels:
        """A WebSocket to a kernel's channels; ``path`` is open for more of a query."""

        def dial(query: str) -> websocket.WebSocket:
            sock = self._connect()
            try:
                return websocket.create_connection(
                    f"ws://{self._host}{self._base}{path}{query}",
                    socket=sock,
                    header=[f"Authorization: token {self._token}"],
                    suppress_origin=True,
                    timeout=TIMEOUT,
                )
            except BaseException:
                sock.close()
                raise

        return Channels(dial, comes_back=comes_back)


class LauncherApi:
    """The launcher's calls, as ``launcher-protocol.md`` has them."""

    def __init__(self, connect: Connect, token: str) -> None:
        self._http = Http(connect, token)

    def status(self) -> dict[str, Any]:
        return dict(self._http.call("GET", "/status"))

    def start(self, kernel_id: str, body: dict[str, Any]) -> dict[str, Any]:
        return dict(self._http.call("POST", f"/kernels/{kernel_id}/start", body))

    def interrupt(self, kernel_id: str) -> None:
        self._http.call("POST", f"/kernels/{kernel_id}/interrupt", {})

    def restart(self, kernel_id: str) -> dict[str, Any]:
        return dict(self._http.call("POST", f"/kernels/{kernel_id}/restart", {}))

    def shutdown(self, kernel_id: str, grace: float = 2.0) -> None:
        self._http.call("POST", f"/kernels/{kernel_id}/shutdown", {"grace": grace})

    def channels(self, kernel_id: str) -> Channels:
        return self._http.channels(f"/kernels/{kernel_id}/channels?peer=strong&", comes_back=False)

    def ready(self, kernel_id: str, timeout: float = TIMEOUT, *, incarnation: int = 1) -> dict[str, Any]:
        """Wait until the kernel has answered; RuntimeError with its exit if it died."""

        def look() -> dict[str, Any] | None:
            kernel: dict[str, Any] = self.status()["kernels"].get(kernel_id, {})
            if kernel.get("state") == "dead":
                raise RuntimeError(f"kernel {kernel_id} is dead: {kernel.get('exit')}")
            return kernel if kernel.get("state") == "ready" and kernel["incarnation"] >= incarnation else None

        return dict(wait_for(look, timeout, f"kernel {kernel_id} ready"))


class GatewayClient:
    """The gateway's REST API and channels, as a stock client sees them."""

    def __init__(self, url: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.url = url
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname or "127.0.0.1", parts.port or (443 if self._secure else 80))
        self.http = Http(self._dial, token, host=parts.netloc, base=parts.path)

    def kernelspecs(self) -> dict[str, Any]:
        return dict(self.http.call("GET", "/api/kernelspecs"))

    def kernels(self) -> list[dict[str, Any]]:
        return list(self.http.call("GET", "/api/kernels"))

    def kernel(self, kernel_id: str) -> dict[str, Any]:
        return dict(self.http.call("GET", f"/api/kernels/{kernel_id}"))

    def start(
        self, name: str | None = None, env: dict[str, str] | None = None, *, prefer: str | None = None
    ) -> dict[str, Any]:
        """Start a kernel; its model. ``prefer``: how long to wait for it, as in RFC 7240."""
        body: dict[str, Any] = {} if name is None else {"name": name}
        return dict(
            self.http.call(
                "POST",
                "/api/kernels",
                body | ({} if env is None else {"env": env}),
                headers=None if prefer is None else {"Prefer": prefer},
            )
        )

    def interrupt(self, kernel_id: str) -> None:
        self.http.call("POST", f"/api/kernels/{kernel_id}/interrupt")

    def restart(self, kernel_id: str) -> Any:
        return self.http.call("POST", f"/api/kernels/{kernel_id}/restart")

    def shut_down(self, kernel_id: str) -> None:
        self.http.call("DELETE", f"/api/kernels/{kernel_id}")

    def log(self, kernel_id: str) -> Any:
        return self.http.call("GET", f"/api/kernels/{kernel_id}/log")

    def channels(self, kernel_id: str) -> Channels:
        return self.http.channels(f"/api/kernels/{kernel_id}/channels?")

    def execute(self, kernel_id: str, code: str, timeout: float = TIMEOUT) -> Execution:
        """Run code over a WebSocket of its own."""
        with self.channels(kernel_id) as channels:
            return channels.execute(code, timeout)

    def _dial(self) -> socket.socket:
        sock = socket.create_connection(self._address, timeout=TIMEOUT)
        if not self._secure:
            return sock
        return ssl.create_default_context().wrap_socket(sock, server_hostname=self._address[0])


class AsyncGatewayClient:
    """``GatewayClient`` for tests that run on a loop: the same calls, awaited."""

    def __init__(self, url: str, token: str) -> None:
        self.sync = GatewayClient(url, token)

    async def start(self, name: str | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self.sync.start, name, env)

    async def kernel(self, kernel_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self.sync.kernel, kernel_id)

    async def kernels(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.sync.kernels)

    async def execute(self, kernel_id: str, code: str, timeout: float = TIMEOUT) -> Execution:
        return await asyncio.to_thread(self.sync.execute, kernel_id, code, timeout)

    async def interrupt(self, kernel_id: str) -> None:
        await asyncio.to_thread(self.sync.interrupt, kernel_id)

    async def restart(self, kernel_id: str) -> Any:
        return await asyncio.to_thread(self.sync.restart, kernel_id)

    async def shut_down(self, kernel_id: str) -> None:
        await asyncio.to_thread(self.sync.shut_down, kernel_id)


def wait_for(look: Callable[[], Any], timeout: float, what: str) -> Any:
    """Ask until the answer is truthy, and return it; TimeoutError names what was waited for."""
    until = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(0.02)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")
