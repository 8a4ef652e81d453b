"""One life of a kernel: its addresses and sockets, its process if it is ours, and the gate it passes to be ready.

Ready is a kernel that has answered a ``kernel_info_request`` while its iopub is known to reach us (``iopub_welcome``,
or anything else on it). The request goes out at once and again, ever more rarely, until both are true; nothing
sleeps. What answers the launcher's own requests, and ``iopub_welcome``, ends here: clients never see it.

It owns what must be let go in the end (sockets, pipe, files) and decides nothing: ``Listener`` is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from pathlib import Path
from signal import SIGTERM
from typing import Any, Awaitable, Mapping, Protocol, Sequence

import zmq

from eg_launcher import connection_file
from eg_launcher.means import Recipe
from eg_launcher.output import OutputRing
from eg_launcher.relay import Relay
from eg_launcher.signing import Signer, make_message
from eg_launcher.spawner import ExitStatus, Process, Spawner

FIRST_NUDGE = 0.5
ECHO_NUDGE = 0.02
SLOWEST_NUDGE = 10.0
KILL_TIMEOUT = 10.0
QUIET_TURNS = 3
QUIET_TURN = 0.01
_READ = 64 * 1024
_READS = 16

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Who is told. ``life`` says which incarnation speaks."""

    def on_kernel_message(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None: ...

    def on_wakeup(self) -> None:
        """The messages of one wake-up have all been told."""

    def on_writable(self, channel: str) -> None: ...

    def on_session(self, session: str) -> None:
        """The kernel's own ``header.session``, from its first message."""

    def on_ready(self, life: Incarnation) -> None: ...

    def on_main_shell_idle(self, life: Incarnation) -> None:
        """A kernel that was busy when it was found has come to our request."""

    def on_exit(self, life: Incarnation, status: ExitStatus) -> None: ...


class Incarnation:
    """``asked`` says for whose sake it ends: ``shutdown``, ``restart``, ``never_answered``; None: by itself."""

    def __init__(
        self,
        info: dict[str, Any],
        *,
        context: zmq.Context[zmq.Socket[bytes]],
        listener: Listener,
        identity: bytes,
        output: OutputRing,
        file: Path | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._listener = listener
        self._identity = identity
        self._info = info
        self._file = file
        self._output = output
        self._output_start = output.next
        self._pipe: int | None = None
        self._relay: Relay | None = None
        self._own = f"eg-{uuid.uuid4().hex[:16]}"
        self._marker = f'"{self._own}-'.encode("ascii")
        self._shell_marker = f'"{self._own}-shell'.encode("ascii")
        self._nudger: asyncio.TimerHandle | None = None
        self._delay = FIRST_NUDGE
        self._session: str | None = None
        self._heard = False
        self._answered = False
        self._shell_answered = False
        self.ready = False
        self.asked: str | None = None
        self.process: Process | None = None
        self.exited: asyncio.Future[ExitStatus] = self._loop.create_future()
        self.shutdown_replied: asyncio.Event = asyncio.Event()

    @property
    def attached(self) -> bool:
        """Somebody else's kernel: no process of ours."""
        return self._file is None

    @property
    def busy_elsewhere(self) -> bool:
        """Ready, but its main shell has not come to our request yet: it runs another client's."""
        return self.ready and not self._shell_answered

    # -- beginning ------------------------------------------------------------------------------------------

    async def spawn(self, spawner: Spawner, recipe: Recipe) -> None:
        """Write the connection file, start the process, connect. SpawnError leaves nothing behind."""
        assert self._file is not None
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            connection_file.write_connection_file(self._file, self._info)
            self.process = await spawner.spawn(recipe.argv, recipe.env, recipe.cwd, writer)
        except BaseException:
            os.close(reader)
            self.close()
            raise
        finally:
            os.close(writer)
        self._pipe = reader
        self._loop.add_reader(reader, self._read_output)
        spawner.watch(self.process.pid, self._on_exit)
        self.connect()

    def connect(self) -> None:
        """Open the sockets and ask whether it is there."""
        self._relay = Relay(
            self._context,
            connection_file.urls(self._info),
            Signer(self._info["key"].encode("utf-8"), self._info["signature_scheme"]),
            identity=self._identity,
            patient=self.attached,
            received=self._on_received,
            flush=self._listener.on_wakeup,
            writable=self._listener.on_writable,
        )
        self._nudge()

    # -- messages -------------------------------------------------------------------------------------------

    def send(self, channel: str, parts: Sequence[bytes]) -> bool:
        """A client's message. False: the kernel takes no more on this channel now."""
        return self._relay.send(channel, parts) if self._relay is not None else True

    def send_own(self, channel: str, msg_type: str, content: Mapping[str, Any]) -> None:
        """A request of the launcher's own; what answers it is not forwarded."""
        self.send(channel, make_message(msg_type, content, session=f"{self._own}-{channel}"))

    def _on_received(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None:
        if self._session is None:
            session = header.get("session")
            if isinstance(session, str):
                self._session = session
                self._listener.on_session(session)
        if channel == "iopub":
            self._heard = True
        if self._marker in parts[1]:
            self._on_own(channel, header, parts)
        elif header.get("msg_type") != "iopub_welcome":
            self._listener.on_kernel_message(channel, header, parts)
        if not self.ready:
            self._check_ready()

    def _on_own(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None:
        msg_type = header.get("msg_type")
        if msg_type == "kernel_info_reply":
            self._answered = True
        elif msg_type == "shutdown_reply":
            self.shutdown_replied.set()
        elif msg_type == "status" and b'"idle"' in parts[3] and self._shell_marker in parts[1]:
            waited, self._shell_answered = self.busy_elsewhere, True
            if waited:
                self._listener.on_main_shell_idle(self)

    # -- the gate -------------------------------------------------------------------------------------------

    def _check_ready(self) -> None:
        if not self._answered:
            return
        if self._heard:
            self.ready = True
            self._read_output()
            self._output_start = self._output.next  # what it said to begin with does not explain a later end
            if not self.attached or self._shell_answered:
                self._shell_answered = True
                self._stop_nudging()
            self._listener.on_ready(self)
        elif self._delay >= FIRST_NUDGE:
            # It answers, but the subscription was not there in time for the echo: ask again, for the echo's sake.
            self._delay = ECHO_NUDGE
            self._nudge_later()

    def _nudge(self) -> None:
        self._nudger = None
        self.send_own("shell", "kernel_info_request", {})
        if self.attached and not self.ready:
            self.send_own("control", "kernel_info_request", {})  # answered even while a cell runs
        self._nudge_later()
        self._delay = min(self._delay * 2, SLOWEST_NUDGE)

    def _nudge_later(self) -> None:
        self._stop_nudging()
        if not self.ready and self._relay is not None:
            self._nudger = self._loop.call_later(self._delay, self._nudge)

    def _stop_nudging(self) -> None:
        if self._nudger is not None:
            self._nudger.cancel()
            self._nudger = None

    # -- the end --------------------------------------------------------------------------------------------

    async def end(self, spawner: Spawner | None, grace: float) -> None:
        """Ask it to shut down, then make it: SIGTERM at half of ``grace``, SIGKILL to its whole session in the end."""
        if self.exited.done() or self._relay is None:
            return
        if self.process is None or spawner is None:
            self.send_own("control", "shutdown_request", {"restart": False})
            await wait_for(self.shutdown_replied.wait(), grace)
            await self.settle()
            self.close()
            return
        if self.ready:
            self.send_own("control", "shutdown_request", {"restart": self.asked == "restart"})
            await wait_for(self.exited, grace / 2)
        if not self.exited.done():
            await spawner.signal(self.process.pid, SIGTERM, group=True)
            await wait_for(self.exited, grace / 2)
        if not self.exited.done():
            await spawner.kill_session(self.process.pid)
            await wait_for(self.exited, KILL_TIMEOUT)
        if not self.exited.done():
            logger.error("process %d cannot be killed", self.process.pid)
            self.close()

    def _on_exit(self, status: ExitStatus) -> None:
        self._stop_nudging()
        if not self.exited.done():
            self.exited.set_result(status)
            self._listener.on_exit(self, status)

    async def settle(self) -> None:
        """After its death: take what it had still sent and printed. Returns when nothing comes any more."""
        quiet = 0
        while quiet < QUIET_TURNS and self._relay is not None:
            if self._relay.drain() or self._read_output():
                quiet = 0
                await asyncio.sleep(0)
            else:
                quiet += 1
                await asyncio.sleep(QUIET_TURN)  # libzmq's own thread reads the dead peer's sockets

    def printed(self) -> str:
        """What its process wrote to stdout and stderr, as far as it is kept: since it was ready, if ever it was."""
        return str(self._output.read(self._output_start)["text"])

    def last_lines(self) -> list[str]:
        ring = OutputRing()
        ring.feed(self.printed().encode("utf-8"))
        return ring.last_lines()

    def close(self) -> None:
        """Let go of sockets, pipe and files."""
        self._stop_nudging()
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None
        if self._file is not None:
            connection_file.remove_leftovers(self._file, self._info)

    def _read_output(self) -> bool:
        """Take what is in the pipe; whether there was anything."""
        got = False
        for _ in range(_READS):
            if self._pipe is None:
                break
            try:
                data = os.read(self._pipe, _READ)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._pipe)
                break
            self._output.feed(data)
            got = True
        return got


async def wait_for(awaitable: Awaitable[Any], timeout: float) -> None:
    """Wait for it, no longer than that; a future goes on, a coroutine is cancelled."""
    future = asyncio.ensure_future(awaitable)
    await asyncio.wait([future], timeout=max(0.0, timeout))
    if future is not awaitable:
        future.cancel()
