"""Gateway, launcher and kernel are killed before and after every commit and every remote call of a launch, a restart,
an end and a death: nothing is left and nothing is lost, whoever it was and wherever."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eg_integration import operations
from eg_integration.gateway import Gateway
from eg_integration.operations import OPERATIONS, UNREACHABLE, Operation
from eg_integration.stepped_cases import VICTIMS, Case, Death, all_cases
from eg_integration.stepped_world import World
from eg_integration.waiting import wait_until

from eg_core.kernels.states import TRANSITIONS

SAMPLE = 12
COMMAND = f"{sys.executable} {Path(__file__).parent / 'eg_integration' / 'stepping_gateway.py'}"


@pytest.fixture
def new_world() -> Iterator[Callable[[], World]]:
    """Worlds, one after the other: a new one ends the one before."""
    gateways: list[Gateway] = []

    def make() -> World:
        if gateways:
            gateways.pop().end()
        gateways.append(Gateway.new(COMMAND, name="at"))
        return World(gateways[0])

    yield make
    for one in gateways:
        one.end()


def test_the_operations_take_every_transition_of_the_table() -> None:
    """And their cases are as many as the table's commits and the remote calls between them make."""
    table = {(state.value, event.name) for state, event in TRANSITIONS}
    assert set(UNREACHABLE) < table
    taken = set().union(*(one.transitions for one in OPERATIONS))
    assert taken == table - set(UNREACHABLE)
    cases = all_cases()
    assert len({str(case) for case in cases}) == len(cases)
    commits = {(words[1], words[2]) for case in cases if (words := case.point.split())[2].isupper()}
    assert len(commits) == len(TRANSITIONS) - len(UNREACHABLE)
    print(f"\n{len(TRANSITIONS)} transitions, {len(UNREACHABLE)} of them never taken; {len(cases)} cases")


@pytest.mark.full
@pytest.mark.timeout(300)
def test_the_steps_are_these(new_world: Callable[[], World]) -> None:
    """An undisturbed run of each operation takes the steps that are listed, in that order."""
    world = new_world()
    for operation in OPERATIONS:
        kernel_id = operations.new_id()
        calling = operation.begin(world, kernel_id)
        wait_until(
            lambda made=operation: made.points[-1] in world.steps.trace(), f"{operation.name} to end: {world.steps}", 30
        )
        if calling is not None:
            assert calling.status() is not None
        world.until_state(kernel_id, operation.ends)
        assert operation.recorded(world) == operation.points, operation.name
        world.steps.clear()
        world.gateway.delete_kernel(kernel_id)
        world.until_state(kernel_id, None)
    world.check_nothing_left()


@pytest.mark.timeout(240)
def test_deaths_at_some_steps(new_world: Callable[[], World], seed: int) -> None:
    chosen = random.Random(seed).sample(all_cases(), SAMPLE)
    _die(new_world, chosen)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_deaths_at_every_step(new_world: Callable[[], World], operation: Operation, victim: str) -> None:
    _die(new_world, [case for case in all_cases() if (case.operation, case.victim) == (operation, victim)])


def _die(new_world: Callable[[], World], cases: list[Case]) -> None:
    """All of them in one world, or in a new one after one that went wrong."""
    world = new_world()
    wrong: list[str] = []
    struck = 0
    for case in cases:
        death = Death(world, case)
        try:
            struck += death.run()
            print(f"{case}: well")
        except Exception:  # noqa: BLE001 - the others are run nevertheless
            why = traceback.format_exc(limit=-4)
            wrong.append(f"{case}: {why}\nsteps: {death.trace}\nlog: {world.told()[-3000:]}")
            world = new_world()
    print(f"{len(cases)} cases, in {len(cases) - struck} of them there was nobody to kill")
    assert not wrong, "\n\n".join(wrong)
    world.check_nothing_left()
