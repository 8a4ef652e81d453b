"""The operations of a kernel's life, step by step: each transition of the table, with the remote calls around it.

``steps`` is what an undisturbed run takes, in order, from the operation's own beginning; a test holds both together.
A step is a commit (``commit STATE EVENT`` for one of the table) or a remote call; polls are none, for they change
nothing and come by the clock, and dialling is the beginning of each of the launcher's calls.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from eg_integration.gateway import Answer
from eg_integration.stepped_world import OWNER, World
from eg_integration.waiting import wait_until

UNREACHABLE = {
    ("restarting", "FAILED"): "a launch fails before its kernel is ready, and only then can it be restarted: "
    "a restart that fails is told by the launcher, as the kernel's death",
}
"""Transitions of the table that no operation takes, and why."""

NEW_LAUNCHER = (
    "commit launcher 1",
    "backend launch 1 before",  # around all that the backend does
    "commit handle 1",
    "local spawn 1",
    "local record 1",
    "local credentials 1",
    "local record 2",
    "commit handle 2",
    "backend launch 1 after",
    "launcher events 1",
    "launcher start 1",
)
ANSWERS = ("commit launching ACCEPTED 1", "commit starting ANSWERED 1")
EDGES = ("before", "after")
REMOVED = ("launcher shutdown 1", "backend kill 1")


class Calling:
    """A request on a thread of its own: whoever serves it may be killed."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self.answer: Answer | None = None
        self.broken: Exception | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._call()
        except (OSError, EOFError, ValueError) as error:  # cut, in the middle of a line perhaps
            self.broken = error
        except Exception as error:  # noqa: BLE001 - http.client's own
            self.broken = error

    def status(self) -> int | None:
        """None: it was never answered."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "a request waits for ever"
        return self.answer.status if self.answer is not None else None


@dataclass(frozen=True)
class Operation:
    """``prepare`` makes a kernel, ``act`` begins what is looked at. ``ends`` is its state afterwards, None: it is gone.
    ``asks`` what its client wants: ``launch``, ``restart``, ``end``, or nothing (it ends unasked)."""

    name: str
    asks: str
    kernelspec: str
    steps: tuple[str, ...]
    ends: str | None
    prepare: Callable[[World, str, Operation], None]
    act: Callable[[World, str, Operation], Calling | None]
    may_wait: bool = False

    @property
    def points(self) -> tuple[str, ...]:
        found: list[str] = []
        for step in self.steps:
            found += [step] if step.endswith(EDGES) else [f"{step} {edge}" for edge in EDGES]
        return tuple(found)

    @property
    def transitions(self) -> set[tuple[str, str]]:
        """The table's, as far as it takes them: state and event."""
        commits = [step.split() for step in self.steps if step.startswith("commit ")]
        return {(words[1], words[2]) for words in commits if words[2].isupper()}

    def begin(self, world: World, kernel_id: str, *stops: str) -> Calling | None:
        self.prepare(world, kernel_id, self)
        if (world.steps.folder / "plan").exists():
            world.steps.stop_at(*stops)
        else:
            world.steps.plan(kernel_id, *stops)
        return self.act(world, kernel_id, self)

    def recorded(self, world: World) -> tuple[str, ...]:
        """The points that the gateway has come to since the operation's beginning."""
        trace = world.steps.trace()
        first = self.points[0]
        return tuple(trace[trace.index(first) :]) if first in trace else tuple(trace)


def new_id() -> str:
    return str(uuid.uuid4())


# -- before -----------------------------------------------------------------------------------------------------


def no_launcher(world: World, kernel_id: str, operation: Operation) -> None:
    del kernel_id, operation
    world.kill_launchers()


def a_launcher(world: World, kernel_id: str, operation: Operation) -> None:
    """One that runs already, and holds nothing."""
    del kernel_id, operation
    if not world.launchers():
        world.gateway.delete_kernel(world.gateway.start_kernel("light"))


def ready(world: World, kernel_id: str, operation: Operation) -> None:
    answer = _post(world, kernel_id, operation.kernelspec)
    assert answer.status == 201, answer.words
    assert world.state(kernel_id) == "ready"
    world.next_start_is_another(kernel_id)


def begun(state: str) -> Callable[[World, str, Operation], None]:
    def prepare(world: World, kernel_id: str, operation: Operation) -> None:
        answer = _post(world, kernel_id, operation.kernelspec, wait=False)
        assert answer.status == 201, answer.words
        world.until_state(kernel_id, state)

    return prepare


def held_launching(world: World, kernel_id: str, operation: Operation) -> None:
    """It has a launcher, which is about to be told."""
    a_launcher(world, kernel_id, operation)
    world.steps.plan(kernel_id, "launcher start 1 before")
    assert _post(world, kernel_id, operation.kernelspec, wait=False).status == 201
    world.steps.wait_at("launcher start 1 before")


def restarting(world: World, kernel_id: str, operation: Operation) -> None:
    ready(world, kernel_id, operation)
    Calling(lambda: _restart(world, kernel_id))
    world.until_state(kernel_id, "restarting")
    wait_until(
        lambda: [one for one in world.processes_of(kernel_id) if "7706" in one.command], "its second process", 30
    )


def dead(world: World, kernel_id: str, operation: Operation) -> None:
    """Its launcher lives."""
    ready(world, kernel_id, operation)
    world.kill_kernel(kernel_id)
    world.until_state(kernel_id, "dead")


def lost(world: World, kernel_id: str, operation: Operation) -> None:
    """Its launcher is gone, and the gateway has let go of it."""
    ready(world, kernel_id, operation)
    launcher_id = world.launcher_of(kernel_id)
    world.kill_launchers()
    world.until_state(kernel_id, "dead")
    wait_until(lambda: launcher_id not in world.launcher_rows(), "the lost launcher to be forgotten", 30)


# -- what is asked ----------------------------------------------------------------------------------------------


def launch(world: World, kernel_id: str, operation: Operation) -> Calling:
    return Calling(lambda: _post(world, kernel_id, operation.kernelspec, wait=False))


def restart(world: World, kernel_id: str, operation: Operation) -> Calling:
    del operation
    return Calling(lambda: _restart(world, kernel_id))


def end(world: World, kernel_id: str, operation: Operation) -> Calling:
    del operation
    return Calling(lambda: world.gateway.request("DELETE", f"/api/kernels/{kernel_id}"))


def kill_kernel(world: World, kernel_id: str, operation: Operation) -> None:
    del operation
    world.kill_kernel(kernel_id)


def kill_launcher(world: World, kernel_id: str, operation: Operation) -> None:
    del kernel_id, operation
    world.kill_launchers()


def wait_to_be_culled(world: World, kernel_id: str, operation: Operation) -> None:
    del world, kernel_id, operation


def _post(world: World, kernel_id: str, kernelspec: str, *, wait: bool = True) -> Answer:
    body = {"name": kernelspec, "env": {"KERNEL_ID": kernel_id, "KERNEL_USERNAME": OWNER}}
    headers = {} if wait else {"Prefer": "respond-async"}
    return world.gateway.request("POST", "/api/kernels", body, headers=headers)


def _restart(world: World, kernel_id: str) -> Answer:
    return world.gateway.request("POST", f"/api/kernels/{kernel_id}/restart", {})


_JOINED = (
    "commit launcher 1",
    "backend launch 1 before",
    "commit handle 1",
    "backend launch 1 after",
    "commit launcher gone 1",
    "launcher start 1",
)
_GONE = ("launcher shutdown 1", "backend kill 1", "commit kernel gone 1")

OPERATIONS = (
    Operation("launch", "launch", "light", ("commit kernel 1", *NEW_LAUNCHER, *ANSWERS), "ready", no_launcher, launch),
    Operation("launch-joins", "launch", "light", ("commit kernel 1", *_JOINED, *ANSWERS), "ready", a_launcher, launch),
    Operation(
        "launch-fails", "launch", "absent",
        ("launcher start 1", *REMOVED, "commit launching FAILED 1"), "dead", a_launcher, launch,
    ),
    Operation(
        "launch-falls", "launch", "falls",
        ("commit launching ACCEPTED 1", "commit starting DIED 1"), "dead", a_launcher, launch,
    ),
    Operation(
        "launch-late", "launch", "late",
        ("commit launching ACCEPTED 1", *REMOVED, "commit starting FAILED 1"), "dead", a_launcher, launch,
    ),
    Operation("end-launching", "end", "light", ("commit launching END 1", *_GONE), None, held_launching, end),
    Operation(
        "end-starting", "end", "mute", ("commit starting END 1", *_GONE), None, begun("starting"), end, may_wait=True
    ),
    Operation("end-ready", "end", "light", ("commit ready END 1", *_GONE), None, ready, end),
    Operation(
        "end-restarting", "end", "mute-again",
        ("commit restarting END 1", *_GONE), None, restarting, end, may_wait=True,
    ),
    Operation("end-dead", "end", "light", ("commit dead END 1", *_GONE), None, dead, end),
    Operation(
        "restart", "restart", "light",
        ("commit ready RESTART 1", "launcher restart 1", "commit restarting ANSWERED 1"), "ready", ready, restart,
    ),
    Operation(
        "restart-falls", "restart", "falls-again",
        ("commit ready RESTART 1", "launcher restart 1", "commit restarting DIED 1"), "dead", ready, restart,
    ),
    Operation(
        "restart-dead", "restart", "light",
        ("commit dead RESTART 1", "launcher restart 1", "commit restarting ANSWERED 1"), "ready", dead, restart,
    ),
    Operation(
        "restart-lost", "restart", "light",
        ("backend kill 1", "commit dead RELAUNCH 1", *NEW_LAUNCHER, *ANSWERS), "ready", lost, restart,
    ),
    Operation("dies", "", "light", ("commit ready DIED 1",), "dead", ready, kill_kernel),
    Operation(
        "is-lost", "", "light",
        ("commit ready DIED 1", "backend kill 1", "commit launcher gone 1"), "dead", ready, kill_launcher,
    ),
    Operation("is-culled", "", "culled", ("commit ready DIED 1", *REMOVED), "dead", ready, wait_to_be_culled),
)  # fmt: skip
