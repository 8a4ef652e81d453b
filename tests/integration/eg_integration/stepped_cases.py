"""One death: an operation is stopped at a point, somebody is killed, and what becomes of it is compared with what was
promised, by the store's file and the host's processes as much as by the API.
"""

from __future__ import annotations

from dataclasses import dataclass

from eg_integration.operations import OPERATIONS, Calling, Operation, new_id
from eg_integration.stepped_world import Row, World, start_gateway
from eg_integration.waiting import wait_until

VICTIMS = ("gateway", "launcher", "kernel")
SETTLED_WITHIN = 40.0


@dataclass(frozen=True)
class Case:
    operation: Operation
    point: str
    victim: str

    def __str__(self) -> str:
        return f"{self.operation.name}, {self.point}: the {self.victim}"


def all_cases() -> list[Case]:
    return [Case(one, point, victim) for one in OPERATIONS for victim in VICTIMS for point in one.points]


class Death:
    """``run`` it once; it raises AssertionError, and says whether there was anybody to kill."""

    def __init__(self, world: World, case: Case) -> None:
        self.world, self.case, self.operation = world, case, case.operation
        self.kernel_id = new_id()
        self.calling: Calling | None = None
        self.before: Row | None = None
        self.trace: list[str] = []
        self.struck = True

    def run(self) -> bool:
        self.calling = self.operation.begin(self.world, self.kernel_id, self.case.point)
        self.world.steps.wait_at(self.case.point)
        self.before = self.world.rows().get(self.kernel_id)
        self.trace = self.world.steps.trace()
        self._strike()
        status = self.calling.status() if self.calling is not None else None
        if self.case.victim != "gateway":
            self._check_answer(status)
        self._settle(status)
        self._check_outcome()
        self.world.check_bystander()
        self._clear_up()
        return self.struck

    def _settle(self, status: int | None) -> None:
        try:
            wait_until(lambda: not self._problems(status), "all to be well", SETTLED_WITHIN, 0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}; wrong: {self._problems(status)}") from None

    def _strike(self) -> None:
        world = self.world
        if self.case.victim == "gateway":
            world.kill_gateway()
            start_gateway(world.gateway)
            return
        self.struck = world.kill_launchers() if self.case.victim == "launcher" else world.kill_kernel(self.kernel_id)
        world.steps.go_on()

    # -- what is promised -----------------------------------------------------------------------------------

    @property
    def _recorded(self) -> bool:
        """What was asked for stood in the store when somebody was killed, or was to be written there afterwards."""
        first = {"launch": "commit kernel 1 after", "end": f"{self.operation.steps[0]} after"}.get(self.operation.asks)
        return self.case.victim != "gateway" or first is None or first in self.trace

    def _problems(self, status: int | None) -> list[str]:
        """Of where it shall be in the end, and of store, host and API among one another."""
        asks, there = self.operation.asks, self.world.state(self.kernel_id) is not None
        may_wait = self.operation.may_wait and not self._recorded
        wrong = self.world.disagreements(self.kernel_id, may_wait=may_wait)
        if asks == "end" and (status == 204 or self._recorded) and there:
            wrong.append("its end was recorded or answered, and it is still there")
        if (asks != "end" or not self._recorded) and there == (asks == "launch" and not self._recorded):
            wrong.append("it is there" if there else "it is lost")
        return wrong + [f"a stray: {command}" for command in self.world.strays()]

    def _check_answer(self, status: int | None) -> None:
        if self.calling is not None:
            assert status is not None, f"{self.case}: no answer: {self.calling.broken!r}"
            wanted = {"launch": {201}, "end": {204}}.get(self.operation.asks, {200, 404, 500, 503})
            assert status in wanted, f"{self.case}: answered with {self.calling.answer}"

    def _check_outcome(self) -> None:
        row = self.world.rows().get(self.kernel_id)
        state = row and row.state
        if not self.struck:
            assert state == self.operation.ends, f"{self.case}: nobody was killed, and it is {row}"
        if self._untouched and self.before is not None:
            assert row is not None
            assert (row.state, row.process) == ("ready", self.before.process), f"{self.case}: it was {self.before}"
        if state == "ready":
            self.world.check_works(self.kernel_id)

    @property
    def _untouched(self) -> bool:
        """The gateway was killed before it had told anybody that this kernel shall end."""
        if self.case.victim != "gateway" or self.before is None:
            return False
        if self.operation.asks == "end":
            return self.before.state == "ready"
        return self.operation.name in {"restart", "restart-falls"} and self.trace[-1] in self.operation.points[:3]

    def _clear_up(self) -> None:
        self.world.steps.clear()
        self.world.gateway.delete_kernel(self.kernel_id)
        self.world.until_state(self.kernel_id, None)
        wait_until(lambda: not self.world.processes_of(self.kernel_id), "its processes to be gone", 20)
