"""One kernel: start, ready, interrupt, restart, shutdown, death; its journal, its clients and the requests that wait.

A kernel outlives its incarnations: after a restart in place the process, its addresses and its session are new, the
journal goes on and clients' sockets stay open. Whatever ends an incarnation, every request that waited for it gets
its end in words. ``changed`` is called when there is something new to tell of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING, Any, Callable

import zmq

from eg_launcher import connection_file, death, portrait
from eg_launcher.command import StartRequest
from eg_launcher.conversation import Conversation
from eg_launcher.frames import ClientMessage
from eg_launcher.incarnation import Incarnation
from eg_launcher.limits import Gate, Limits
from eg_launcher.means import Means
from eg_launcher.output import OutputRing
from eg_launcher.relay import CLIENT_CHANNELS
from eg_launcher.spawner import ExitStatus, Process, SpawnError
from eg_launcher.spill import Room
from eg_launcher.wire import CLOSE_KERNEL_ENDED

if TYPE_CHECKING:
    from eg_launcher.channels import Channel

RESTART_GRACE = 2.0
_SHUT_DOWN = "The kernel was shut down."
_PORT_RACE = "Address already in use"

Changed = Callable[["Kernel"], None]

logger = logging.getLogger(__name__)


class KernelError(Exception):
    """A call that cannot be done now. ``reason`` is one word, ``status`` an HTTP status."""

    def __init__(self, message: str, *, reason: str, status: int = 409) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status


class Kernel:
    """Make one with ``spawned`` or ``attached``; then ``start``. ``state`` is the protocol's."""

    def __init__(
        self,
        kernel_id: str,
        *,
        name: str,
        context: zmq.Context[zmq.Socket[bytes]],
        changed: Changed,
        room: Room,
        start: StartRequest | None = None,
        means: Means | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.id = kernel_id
        self.name = name
        self.state = "starting"
        self.incarnation = 0
        self.exit: dict[str, Any] | None = None
        self.output = OutputRing()
        self.limits = start.limits if start is not None else Limits()
        self._talk = Conversation(Gate.of(self.limits), start.journal if start is not None else None, room)
        self.opening = self._talk.opening
        self.outputs = self._talk.outputs
        self.executions = self._talk.executions
        self.journal = self._talk.journal
        self.channels = self._talk.channels
        self._context = context
        self._changed = changed
        self._start = start
        self._means = means
        self._spawner = means.spawner if means is not None else None
        self._info = info
        self._identity = f"eg-{uuid.uuid4().hex}".encode("ascii")
        self._life: Incarnation | None = None
        self._burial: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._killing: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()
        self._retried = False
        self._gone = False
        self._why = _SHUT_DOWN
        self._born = self._active_at = time.monotonic()
        self._active = False  # since the last wake-up

    @classmethod
    def spawned(cls, kernel_id: str, start: StartRequest, *, means: Means, changed: Changed) -> Kernel:
        """One that ``start`` will start."""
        context, room = means.context, means.room
        return cls(kernel_id, name=start.name, context=context, changed=changed, room=room, start=start, means=means)

    @classmethod
    def attached(
        cls,
        kernel_id: str,
        connection_info: dict[str, Any],
        *,
        name: str,
        context: zmq.Context[zmq.Socket[bytes]],
        changed: Changed,
        room: Room,
    ) -> Kernel:
        """One that runs already. ValueError when the connection info is not usable."""
        info = connection_file.check_connection_info(connection_info)
        return cls(kernel_id, name=name, context=context, changed=changed, room=room, info=info)

    # -- the calls ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the process exists, or the sockets are open; SpawnError, ValueError say why not."""
        async with self._lock:
            await self._begin()
        self._changed(self)

    async def interrupt(self) -> None:
        """Stop what it runs; harmless when it runs nothing."""
        if self.state != "ready" or self._life is None:
            raise KernelError(f"The kernel is {self.state}; it cannot be interrupted.", reason=self.state)
        process = self._life.process
        if process is None or self.interrupt_mode == "message" or self._spawner is None:
            self._life.send_own("control", "interrupt_request", {})
        else:
            await self._spawner.signal(process.pid, SIGINT, group=True)

    async def restart(self) -> None:
        """End the process and start a new one in its place. Returns when it exists; then ``changed`` tells of ready."""
        if self._start is None:
            raise KernelError("A kernel that was attached cannot be restarted.", reason="attached")
        async with self._lock:
            self._check_there()
            self._talk.begin_anew()
            self._set_state("restarting")
            await self._end_life("restart", RESTART_GRACE)
            self._talk.end_requests("KernelRestarted", "The kernel was restarted before this had ended.", older=True)
            self.exit = None
            try:
                await self._begin()
            except BaseException as error:
                self._die(death.without_process(str(error)))
                raise
        self._changed(self)

    async def shutdown(self, grace: float, why: str | None = None) -> None:
        """End it, in ``grace`` seconds at most if it can be; returns when nothing of it is left.

        ``why``: words for whoever waits or is connected.
        """
        async with self._lock:
            self._gone, self._why = True, why or _SHUT_DOWN
            await self._end_life("shutdown", grace)
            self._talk.end_requests("KernelShutDown", why or "The kernel was shut down before this had ended.")
            if self.exit is None:
                self._die(death.without_process(self._why, reason="shutdown"))
        self.close_channels(CLOSE_KERNEL_ENDED, self._why)

    def close(self) -> None:
        """Let go of it without ending it (an attached kernel goes on)."""
        self.journal.close()
        self._cancel_expiry()
        if self._life is not None:
            self._life.close()

    def close_channels(self, code: int, reason: str) -> None:
        for channel in tuple(self.channels):
            channel.close(code, reason)

    def beat(self) -> None:
        """From the app's one timer: pings, and the end of sockets that are silent."""
        now = asyncio.get_running_loop().time()
        for channel in tuple(self.channels):
            channel.beat(now)
        self._talk.beat(now)

    # -- what it is -----------------------------------------------------------------------------------------

    @property
    def execution_state(self) -> str:
        return self.executions.state if self.state == "ready" else self.state

    @property
    def session(self) -> str | None:
        """The kernel's own ``header.session``, as far as known."""
        return self._talk.session

    @property
    def own_session(self) -> str:  # what messages made for it carry
        return self._talk.own_session

    @property
    def process(self) -> Process | None:
        return self._life.process if self._life is not None else None

    @property
    def interrupt_mode(self) -> str:
        return self._start.interrupt_mode if self._start is not None else "message"

    @property
    def activity_age(self) -> float:
        """Seconds since it said something, or was asked."""
        return time.monotonic() - self._active_at

    @property
    def age(self) -> float | None:
        """Seconds since it was started first; of one that is attached nobody here knows it."""
        return time.monotonic() - self._born if self._start is not None else None

    essence = property(portrait.essence)
    describe = portrait.describe
    model = portrait.model

    # -- clients --------------------------------------------------------------------------------------------

    def on_attached(self, channel: Channel, *, anew: bool) -> None:
        """First, the truth: a status, where there is one to tell to somebody who does not only go on."""
        state = self._state_to_tell() if anew else None
        if state is not None:
            channel.say("iopub", self._talk.status(state))
        self._changed(self)

    def on_detached(self, channel: Channel) -> None:
        if channel in self.channels:
            self.channels.discard(channel)
            self._changed(self)

    def submit(self, channel: Channel, message: ClientMessage) -> None:
        """A client's message: sent, held until it can be, or ended at once by a dead kernel."""
        if not self._talk.accept(channel, message):
            return
        self._active_at = time.monotonic()
        self._changed(self)
        if self.state == "dead" or self._gone:
            why = self.exit["message"] if self.exit is not None else "The kernel is being shut down."
            self._talk.end_requests("KernelDied", why)
        else:
            self._send_held(message.channel)

    # -- its incarnations -----------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._start is None:
            assert self._info is not None
            self.incarnation = 1
            self._life = self._incarnation(self._info)
            self._life.connect()
            return
        self.incarnation += 1
        self._retried = False
        await self._spawn()
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(self._start.ready_timeout, self._on_never_answered)

    async def _spawn(self) -> None:
        assert self._start is not None
        assert self._means is not None
        recipe = self._means.recipe(self.id, self._start)
        self._burial = None
        self._life = life = self._incarnation(recipe.info, recipe.file)
        await life.spawn(self._means.spawner, recipe)

    def _incarnation(self, info: dict[str, Any], file: Path | None = None) -> Incarnation:
        ours, known = self._context, self._identity
        return Incarnation(info, context=ours, listener=self, identity=known, output=self.output, file=file)

    async def _end_life(self, why: str, grace: float) -> None:
        """End the process, if there is one, and wait until it is buried."""
        self._cancel_expiry()
        life = None
        while life is not self._life:  # its burial may have begun another
            life = self._life
            assert life is not None
            life.asked = life.asked or why
            await life.end(self._spawner, grace)
            if self._burial is not None:
                await asyncio.shield(self._burial)

    def _on_never_answered(self) -> None:
        life, self._expiry = self._life, None
        if life is None or life.ready or life.process is None or self._spawner is None or life.exited.done():
            return
        life.asked = "never_answered"
        self._killing = asyncio.ensure_future(self._spawner.kill_session(life.process.pid))

    async def _bury(self, life: Incarnation, status: ExitStatus) -> None:
        """A process has ended: take its last words, leave nothing of it, say why, end what waits."""
        assert self._means is not None
        assert self._start is not None
        assert life.process is not None
        await life.settle()
        await self._means.spawner.kill_session(life.process.pid)
        life.close()
        if life.asked is None and not life.ready and not self._retried and _PORT_RACE in life.printed():
            self._retried = True
            logger.warning("kernel %s: another process took one of its ports; it is started again", self.id)
            try:
                await self._spawn()
            except (SpawnError, ValueError, OSError) as error:
                self._die(death.without_process(str(error)))
            return
        oom_before, oom_after = self._means.out_of_memory.at_death(status)
        exit_ = death.describe_exit(
            status,
            stderr=life.last_lines(),
            oom_before=oom_before,
            oom_after=oom_after,
            asked=life.asked in ("shutdown", "restart"),
            never_answered=self._start.ready_timeout if life.asked == "never_answered" else None,
        )
        if exit_["reason"] == "shutdown":
            exit_["message"] = self._why
        if life.asked != "restart":
            self._die(exit_)

    def _die(self, exit_: dict[str, Any]) -> None:
        self._cancel_expiry()
        self.exit = exit_
        name = "KernelShutDown" if exit_["reason"] == "shutdown" else "KernelDied"
        self.state = "dead"
        self._talk.end_requests(name, exit_["message"])
        self._talk.say_status("dead")
        self._changed(self)

    # -- incarnation.Listener -------------------------------------------------------------------------------

    def on_kernel_message(self, channel: str, header: dict[str, Any], parts: list[bytes]) -> None:
        self._active = True
        self._talk.take(channel, header, parts)

    def on_wakeup(self) -> None:
        if self._active:
            self._active = False
            self._active_at = time.monotonic()
            self._talk.pump()
            self._changed(self)

    def on_writable(self, channel: str) -> None:
        self._send_held(channel)

    def on_session(self, session: str) -> None:
        self._talk.session = session

    def on_ready(self, life: Incarnation) -> None:
        if life is not self._life or life.asked is not None:
            return
        self._cancel_expiry()
        self.state = "ready"
        self.executions.state = "busy" if life.busy_elsewhere else "idle"
        self._talk.say_status(self.executions.state)
        self._send_held(*CLIENT_CHANNELS)
        self._changed(self)

    def on_main_shell_idle(self, life: Incarnation) -> None:
        if self.state == "ready" and self.executions.state == "busy":
            self.executions.state = "idle"
            self._talk.say_status("idle")

    def on_exit(self, life: Incarnation, status: ExitStatus) -> None:
        if life is self._life:
            self._burial = asyncio.ensure_future(self._bury(life, status))

    # -- inside ---------------------------------------------------------------------------------------------

    def _check_there(self) -> None:
        if self._gone:
            raise KernelError("The kernel is being shut down.", reason="ending")

    def _set_state(self, state: str) -> None:
        self.state = state
        self._changed(self)

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _send_held(self, *channels: str) -> None:
        if self.state == "ready" and self._life is not None:
            self._talk.send_held(self._life.send, channels)

    def _state_to_tell(self) -> str | None:
        """What a client is told: `restarting` never (it would drop all it waits for), and nothing that is unknown."""
        if self.state in ("ready", "dead"):
            return self.execution_state
        return "starting" if self.session is not None and self.incarnation == 1 else None
