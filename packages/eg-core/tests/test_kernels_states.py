from itertools import product

from eg_core.kernels.states import PENDING, TRANSITIONS, Event, KernelState, transition


def test_every_living_state_can_end_and_nothing_leaves_ending():
    for state in KernelState:
        expected = None if state is KernelState.ENDING else KernelState.ENDING
        assert transition(state, Event.END) is expected
    assert not [pair for pair in TRANSITIONS if pair[0] is KernelState.ENDING]


def test_every_pending_state_can_be_left_for_better_and_for_worse():
    for state in PENDING:
        after = {transition(state, event) for event in Event} - {None}
        assert KernelState.DEAD in after
        assert after & {KernelState.STARTING, KernelState.READY}


def test_every_state_is_reached():
    reached, more = {KernelState.LAUNCHING}, True
    while more:
        new = {transition(state, event) for state, event in product(reached, Event)} - {None} - reached
        reached, more = reached | new, bool(new)
    assert reached == set(KernelState)


def test_what_comes_too_late_is_ignored():
    assert transition(KernelState.DEAD, Event.DIED) is None
    assert transition(KernelState.READY, Event.FAILED) is None
    assert transition(KernelState.READY, Event.ANSWERED) is None
