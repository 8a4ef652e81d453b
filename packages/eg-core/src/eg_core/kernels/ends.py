"""Why kernels end: each code there is, and what it means.

The same code stands in the REST model (``reason_code``), in the record of events, in the metrics and in the gateway's
log; the sentence beside it, for whoever ran the notebook, is told there and in the notebook. A backend may have words
of its own for what kept a launch from succeeding.
"""

from __future__ import annotations

import enum

from eg_core.kernels.states import KernelState
from eg_core.store.records import KernelRecord


class EndReason(str, enum.Enum):
    meaning: str

    def __new__(cls, code: str, meaning: str) -> EndReason:
        self = str.__new__(cls, code)
        self._value_ = code
        self.meaning = meaning
        return self

    # It ran
    EXITED = "exited", "Its process ended by itself; the exit code is told."
    SIGNALLED = "signalled", "A signal ended its process: a compiled library crashed, or somebody killed it."
    OOM_KILLED = "oom_killed", "It was killed because its machine or container ran out of memory."
    LOST_CONTACT = "lost_contact", "Its launcher, its host or its container is gone, and the kernel with it."
    CULLED_IDLE = "culled_idle", "Nothing had happened for longer than cull_idle_timeout allows."
    CULLED_BUSY = "culled_busy", "One cell had been running for longer than cull_busy_timeout allows."
    CULLED_AGE = "culled_age", "It had run for longer than cull_max_age allows."
    SHUTDOWN = "shutdown", "Somebody asked for its end."
    # It never ran
    LAUNCH_FAILED = "launch_failed", "It could not be started, for none of the reasons below."
    LAUNCH_TIMEOUT = "launch_timeout", "It did not answer within its launch timeout."
    CANCELLED = "cancelled", "It was deleted, or its client went away, while it was starting."
    EXEC_FAILED = "exec_failed", "Its program cannot be executed where it was to run."
    LAUNCHER_FAILED = "launcher_failed", "Its launcher could not be started."
    LAUNCHER_LOST = "launcher_lost", "Its launcher ended before it could start the kernel."
    LAUNCHER_PROTOCOL = "launcher_protocol", "Its launcher is of a version that this gateway does not speak to."
    BACKEND_UNAVAILABLE = "backend_unavailable", "The resource manager did not answer."
    DENIED = "denied", "The site's rules do not allow it."
    GATEWAY_ENDED = "gateway_ended", "The gateway was killed before a launcher had it; what had been begun was removed."
    INTERNAL_ERROR = "internal_error", "A fault of the gateway's or of a plugin's; the gateway's log has it."


_OF_LAUNCHER = {
    "signal": EndReason.SIGNALLED,
    "out_of_memory": EndReason.OOM_KILLED,
    "never_answered": EndReason.LAUNCH_TIMEOUT,
    "lost": EndReason.LOST_CONTACT,
}


def of_launcher(word: str) -> str:
    """The code for what a launcher's *exit* says."""
    return _OF_LAUNCHER.get(word, word)


def when_asked(record: KernelRecord) -> tuple[str | None, str | None]:
    """Code and sentence of a kernel whose end is asked for; one that is dead keeps its own."""
    state = KernelState(record.state)
    if state is KernelState.DEAD:
        return record.reason, record.message
    if state in (KernelState.LAUNCHING, KernelState.STARTING):
        return EndReason.CANCELLED.value, f"Kernel {record.kernel_id} was deleted while it was starting."
    return EndReason.SHUTDOWN.value, "The kernel was shut down."
