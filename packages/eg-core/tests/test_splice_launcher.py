"""The channels with the real launcher and a real kernel behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
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
        connect = connector(ready["endpoint"]["port"], authority.client_context())
        yield process, LauncherClient(connect, "s3cret")
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
    async with launcher_process() as (process, client):
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
