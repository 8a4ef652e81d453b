"""A floor: what a bare tornado server carries, with no kernel behind it. ``python bare_tornado.py PORT``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

KERNELS = [{"id": f"{number:036d}", "name": "stub", "execution_state": "idle"} for number in range(20)]


class Api(RequestHandler):
    def get(self) -> None:
        self.finish({"version": "0"})


class Kernels(RequestHandler):
    def get(self) -> None:
        self.finish(json.dumps(KERNELS))


class Channels(WebSocketHandler):
    prepared: list[str]

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[0] if subprotocols else None

    def open(self, *_: str, **__: str) -> None:
        self.set_nodelay(True)

    async def on_message(self, message: str | bytes) -> None:
        """Default protocol only: the four messages of an echo, or a burst, as texts made beforehand."""
        request = json.loads(message)
        parent, code = request["header"], request["content"]["code"]
        say = self.write_message
        await say(frame(parent, "iopub", "status", {"execution_state": "busy"}))
        if code == "blast":
            for number, text in enumerate(self.prepared):
                sent = say(text)
                if number % 100 == 99 or len(text) > 65536:
                    await sent
        else:
            if code.startswith("prepare "):
                count, size = map(int, code.split()[1:])
                texts = (f"{number:08d} {'x' * (size - 9)}" for number in range(count))
                self.prepared = [frame(parent, "iopub", "stream", {"name": "stdout", "text": text}) for text in texts]
            await say(frame(parent, "iopub", "stream", {"name": "stdout", "text": "0\n"}))
        await say(frame(parent, "shell", "execute_reply", {"status": "ok", "execution_count": 1}))
        await say(frame(parent, "iopub", "status", {"execution_state": "idle"}))


def frame(parent: dict[str, Any], channel: str, kind: str, content: dict[str, Any]) -> str:
    header = {**parent, "msg_type": kind, "username": "stub"}
    return json.dumps(
        {
            "channel": channel,
            "header": header,
            "parent_header": parent,
            "metadata": {},
            "content": content,
            "buffers": [],
        }
    )


async def main() -> None:
    routes = [(r"/api", Api), (r"/api/kernels", Kernels), (r"/api/kernels/[^/]+/channels", Channels)]
    Application(routes).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
