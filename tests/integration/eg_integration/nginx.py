"""nginx as a reverse proxy with little patience: it cuts requests that take too long, and sockets that are silent."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from eg_integration.waiting import wait_until

CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    client_max_body_size 64m;
    location / {{ proxy_pass {upstream}; proxy_read_timeout {request}s; }}
    location ~ /channels$ {{ proxy_pass {upstream}; proxy_read_timeout {idle}s; proxy_send_timeout {idle}s; }}
  }}
}}
"""


def find_nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Nginx:
    """Ends with the ``with`` block. ``request``: seconds without an answer after which a request is cut with 504;
    ``idle``: seconds of silence after which a WebSocket is cut."""

    def __init__(self, folder: Path, upstream: str, *, request: int, idle: int) -> None:
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, port=port, upstream=upstream, request=request, idle=idle))
        self._command: Sequence[str] = [str(find_nginx()), "-p", str(folder), "-e", "stderr", "-c", str(config)]

    def __enter__(self) -> Nginx:
        with (self._folder / "error.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._listens, f"nginx to listen at {self.url}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"nginx ended:\n{(self._folder / 'error.log').read_text()}")
        where = urlsplit(self.url)
        with socket.socket() as sock:
            return sock.connect_ex((where.hostname or "", where.port or 0)) == 0

    def seen(self) -> list[str]:
        """Its access log's lines; a WebSocket's comes when it ends."""
        return (self._folder / "access.log").read_text().splitlines()
