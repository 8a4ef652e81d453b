"""The state machine of a kernel: states, events, and every transition there is, in one table."""

from __future__ import annotations

import enum


class KernelState(str, enum.Enum):
    """Stored in the kernel's record.

    LAUNCHING: recorded; the backend is getting a launcher. STARTING: a launcher has the kernel, which has not
    answered yet. READY: it has answered (idle or busy is the launcher's word). RESTARTING: a new process, the
    same launcher. DEAD: it failed to start or ended unasked; the record says why. ENDING: the end is
    recorded, clients see 404; what is left at the remote is being removed.
    """

    LAUNCHING = "launching"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DEAD = "dead"
    ENDING = "ending"


class Event(enum.Enum):
    ACCEPTED = "the launcher has started the process"
    ANSWERED = "the kernel has answered"
    FAILED = "the launch failed"
    DIED = "the kernel ended unasked"
    RESTART = "a restart in place was asked for"
    RELAUNCH = "a restart was asked for and its launcher is gone"
    END = "its end was asked for"


_S, _E = KernelState, Event

TRANSITIONS: dict[tuple[KernelState, Event], KernelState] = {
    (_S.LAUNCHING, _E.ACCEPTED): _S.STARTING,
    (_S.LAUNCHING, _E.FAILED): _S.DEAD,
    (_S.LAUNCHING, _E.END): _S.ENDING,
    (_S.STARTING, _E.ANSWERED): _S.READY,
    (_S.STARTING, _E.FAILED): _S.DEAD,
    (_S.STARTING, _E.DIED): _S.DEAD,
    (_S.STARTING, _E.END): _S.ENDING,
    (_S.READY, _E.DIED): _S.DEAD,
    (_S.READY, _E.RESTART): _S.RESTARTING,
    (_S.READY, _E.END): _S.ENDING,
    (_S.RESTARTING, _E.ANSWERED): _S.READY,
    (_S.RESTARTING, _E.FAILED): _S.DEAD,
    (_S.RESTARTING, _E.DIED): _S.DEAD,
    (_S.RESTARTING, _E.END): _S.ENDING,
    (_S.DEAD, _E.RESTART): _S.RESTARTING,
    (_S.DEAD, _E.RELAUNCH): _S.LAUNCHING,
    (_S.DEAD, _E.END): _S.ENDING,
}

PENDING = frozenset({_S.LAUNCHING, _S.STARTING, _S.RESTARTING})
"""States in which somebody waits for the kernel to answer."""


def transition(state: KernelState, event: Event) -> KernelState | None:
    """The state after ``event``, or None where the event does not apply (it came too late, and is ignored)."""
    return TRANSITIONS.get((state, event))
