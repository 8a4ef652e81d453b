"""The channels with the real launcher and a real kernel behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import struct
import sys
import uuid

from eg_core.kernels.states import KernelState
from eg_core.launchers.client import LauncherClient
from eg_core.launchers.credentials import CertificateAuthority, make_credentials
from eg_launcher.websocket import Opcode
from splice_support import KERNEL_ID, WAIT, Gateway, RawClient, StandInKernel, connector, request, until


@contextlib.asynccontextmanager
async def launcher_process():
    """A launcher on a TLS port of loopback: its process and a client."""
    authority = CertificateAuthority.from_pem(CertificateAuthority.create())
    credentials = make_credentials("launcher-1", "s3cret", *authority.issue("launcher-1"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "eg_launcher", "spawn", "--credentials", "-", "--tcp", "127.0.0.1:0", "--lease", "30"),
        stdin=pipe,
        stdout=pipe,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(credentials.encode() + b"\n")
        process.stdin.close()
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), WAIT))
        port, context = ready["endpoint"]["port"], authority.client_context()
        yield process, LauncherClient(connector(port, context), "s3cret"), (port, context)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), WAIT)


def execute(code: str) -> tuple[str, bytes]:
    msg_id = uuid.uuid4().hex
    message = json.loads(request("execute_request", msg_id=msg_id))
    message["content"] = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    return msg_id, json.dumps(message).encode()


async def told(seen: list[dict], client: RawClient, msg_id: str, msg_type: str) -> dict:
    """The first message of that type under ``msg_id``. ``seen`` keeps the others: channels have no common order."""
    while True:
        for message in seen:
            if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == msg_type:
                return message
        opcode, payload = await client.receive()
        if opcode is Opcode.TEXT:
            seen.append(json.loads(payload))


async def test_a_cell_from_before_the_kernel_was_there_to_the_launchers_death():
    async with launcher_process() as (process, client, _):
        kernel = StandInKernel(client)
        kernel.state, kernel.session = KernelState.LAUNCHING, None
        gateway = Gateway(kernel)
        try:
            early_saw: list[dict] = []
            late_saw: list[dict] = []
            early = await RawClient.connect(gateway)
            msg_id, text = execute("print(6 * 7); 'x' * 3_000_000")
            early.send(Opcode.TEXT, text)
            status = await client.status()
            assert status["launcher_id"] == "launcher-1"
            body = {"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "env": {}, "cwd": None}
            body |= {"interrupt_mode": "signal", "name": "python3", "ready_timeout": 60}
            await client.start(KERNEL_ID, body)
            async for event in client.events():
                told_of = event.get("kernels", {}).get(KERNEL_ID) or event.get("kernel") or {}
                if told_of.get("state") == "ready":
                    kernel.session = told_of["session"]
                    break
            kernel.state = KernelState.READY
            assert (await told(early_saw, early, msg_id, "stream"))["content"]["text"] == "42\n"
            result = await told(early_saw, early, msg_id, "execute_result")
            assert len(result["content"]["data"]["text/plain"]) == 3_000_002
            assert (await told(early_saw, early, msg_id, "execute_reply"))["content"]["status"] == "ok"
            late = await RawClient.connect(gateway)
            msg_id, text = execute("print('seen by both')")
            late.send(Opcode.TEXT, text)
            await told(late_saw, late, msg_id, "stream")
            await told(early_saw, early, msg_id, "stream")
            process.kill()
            for one in (early, late):
                (code, _), _ = await one.receive_close()
                assert code == 1012
            await until(lambda: gateway.legs == 0 and not kernel.sockets, "all closed")
        finally:
            await gateway.stop()


class Breaker:
    """A port in front of the launcher's, whose connections can be reset."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Breaker:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        for writer in tuple(self._writers):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)
        for pair in ((reader, to_writer), (to_reader, writer)):
            self._writers.add(pair[1])
            task = asyncio.create_task(self._copy(*pair))
            self._tasks.add(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(16 * 1024):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)


async def test_a_leg_that_breaks_alone_is_made_again_and_nobody_notices():
    """Requests and output in both directions while the leg is reset again and again: each once, in order."""
    async with launcher_process() as (_, client, (port, context)), Breaker(port) as breaker:
        broken = LauncherClient(connector(breaker.port, context), "s3cret")
        body = {"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "env": {}, "cwd": None}
        body |= {"interrupt_mode": "signal", "name": "python3", "ready_timeout": 60}
        await client.start(KERNEL_ID, body)
        kernel = StandInKernel(broken)
        async for event in client.events():
            told_of = event.get("kernels", {}).get(KERNEL_ID) or event.get("kernel") or {}
            if told_of.get("state") == "ready":
                kernel.session = told_of["session"]
                break
        gateway = Gateway(kernel)
        try:
            page = await RawClient.connect(gateway)
            seen: list[dict] = []
            cells = [execute(f"for i in range(200): print({n}, i, flush=True)") for n in range(20)]
            for n, (_, text) in enumerate(cells):
                page.send(Opcode.TEXT, text)
                if n % 2:
                    breaker.reset()
                await told(seen, page, cells[max(0, n - 2)][0], "execute_reply")
                if n % 3 == 0:
                    breaker.reset()
            for msg_id, _ in cells:
                await told(seen, page, msg_id, "execute_reply")
            msg_id, text = execute("print('last')")
            page.send(Opcode.TEXT, text)
            await told(seen, page, msg_id, "stream")
            for n, (msg_id, _) in enumerate(cells):
                under = [m for m in seen if m["parent_header"].get("msg_id") == msg_id]
                printed = "".join(m["content"]["text"] for m in under if m["msg_type"] == "stream")
                assert printed == "".join(f"{n} {i}\n" for i in range(200))
                assert len([m for m in under if m["msg_type"] == "execute_input"]) == 1
            links = {about["query"]["link"] for about in kernel.opened}
            assert len(links) == 1
            assert len(kernel.opened) > 5
        finally:
            await gateway.stop()
