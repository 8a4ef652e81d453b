"""Run a notebook with nbclient and jupyter_server's own GatewayKernelManager; a program, for its gateway client is a
singleton that reads the environment (JUPYTER_GATEWAY_URL, JUPYTER_GATEWAY_AUTH_TOKEN).

    nbclient_run.py NOTEBOOK stock|header

``stock`` changes nothing. jupyter_server's kernel client opens its WebSocket without any credentials, so that works
only with a gateway that asks for none; ``header`` adds the one header that it leaves out.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import nbformat
import websocket
from jupyter_server.gateway.managers import GatewayKernelClient, GatewayKernelManager
from nbclient import NotebookClient


class WithHeader(GatewayKernelClient):
    async def start_channels(self, *args: Any, **kwargs: Any) -> None:
        connect = websocket.create_connection
        header = [f"Authorization: token {os.environ['JUPYTER_GATEWAY_AUTH_TOKEN']}"]
        websocket.create_connection = functools.partial(connect, header=header)
        try:
            await super().start_channels(*args, **kwargs)
        finally:
            websocket.create_connection = connect


class ManagerWithHeader(GatewayKernelManager):
    client_factory = WithHeader


def main(path: str, how: str) -> None:
    manager = ManagerWithHeader if how == "header" else GatewayKernelManager
    notebook = nbformat.read(path, as_version=4)
    try:
        NotebookClient(notebook, kernel_manager_class=manager, timeout=60, allow_errors=True).execute()
    finally:
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
