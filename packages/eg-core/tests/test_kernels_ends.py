"""Why kernels end: the list of codes, and that nothing else is said."""

import dataclasses

import pytest

from eg_core import errors
from eg_core.kernels import ends
from eg_core.kernels.ends import EndReason
from eg_core.kernels.states import KernelState
from eg_core.metrics import word
from eg_core.store.records import KernelRecord
from eg_launcher import death
from eg_launcher.spawner import ExitStatus


def record(state, **more):
    fields = dict.fromkeys(field.name for field in dataclasses.fields(KernelRecord))
    return KernelRecord(**{**fields, "kernel_id": "k", "state": state.value, **more})


def test_each_has_a_sentence_and_is_a_label_of_the_metrics():
    assert all(one.meaning.endswith(".") and word(one.value) == one.value for one in EndReason)
    assert {one.reason for one in (errors.LaunchFailed, errors.LaunchTimeout, errors.LaunchCancelled)} < set(EndReason)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"status": ExitStatus(3, None)}, EndReason.EXITED),
        ({"status": ExitStatus(None, 11)}, EndReason.SIGNALLED),
        ({"status": ExitStatus(None, 9), "oom_after": 1}, EndReason.OOM_KILLED),
        ({"status": ExitStatus(None, 9), "never_answered": 2.0}, EndReason.LAUNCH_TIMEOUT),
        ({"status": ExitStatus(None, None)}, EndReason.LOST_CONTACT),
        ({"status": ExitStatus(0, None), "asked": True}, EndReason.SHUTDOWN),
    ],
)
def test_whatever_a_launcher_says_has_a_code_of_the_list(how, code):
    said = death.describe_exit(**{"stderr": [], "oom_before": 0, "oom_after": 0, "asked": False, **how})
    assert EndReason(ends.of_launcher(said["reason"])) is code


@pytest.mark.parametrize("state", list(KernelState))
def test_an_end_that_is_asked_for_says_what_it_was(state):
    code, sentence = ends.when_asked(record(state, reason="oom_killed", message="It was too much."))
    if state is KernelState.DEAD:
        assert (code, sentence) == ("oom_killed", "It was too much.")
    elif state in (KernelState.LAUNCHING, KernelState.STARTING):
        assert (code, "starting" in sentence) == ("cancelled", True)
    else:
        assert (code, sentence) == ("shutdown", "The kernel was shut down.")
