"""When a launcher ends by itself, and what it does with calls that cross each other; kernels are stand-ins here
(``test_end_to_end`` has real ones)."""

import asyncio

import pytest

from eg_launcher import app
from eg_launcher.app import Launcher
from eg_launcher.command import StartRequest
from eg_launcher.http1 import HttpError
from eg_launcher.lease import Lease
from eg_launcher.means import Means
from eg_launcher.spawner import SpawnError

REQUEST = StartRequest(["x"])


class StubKernel:
    """``behaviour`` says how it fails: "" not at all, "exec" at its start, "end" at its end, "never" ends."""

    behaviour = ""
    made = 0

    def __init__(self, kernel_id):
        self.id = kernel_id
        self.essence = ()
        self.closed = []
        self.gate = asyncio.Event()
        self.gate.set()
        StubKernel.made += 1

    @classmethod
    def spawned(cls, kernel_id, request, **_):
        return cls(kernel_id)

    @classmethod
    def attached(cls, kernel_id, info, **_):
        return cls(kernel_id)

    async def start(self):
        await asyncio.sleep(0)
        if self.behaviour == "exec":
            raise SpawnError("exec_failed", "no such program")

    async def shutdown(self, grace, why=None):
        if self.behaviour == "end":
            raise RuntimeError("a bug")
        if self.behaviour == "never":
            await asyncio.Event().wait()

    def describe(self):
        return {"id": self.id, "exit": None}

    def close(self):
        pass

    def close_channels(self, code, reason):
        self.closed.append(code)


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(app, "time", made)  # its own clock, not the loop's
    return made


@pytest.fixture
def behave(monkeypatch):
    monkeypatch.setattr(app, "Kernel", StubKernel)
    monkeypatch.setattr(StubKernel, "made", 0)
    return lambda behaviour: monkeypatch.setattr(StubKernel, "behaviour", behaviour)


@pytest.fixture
async def make(behave, clock):
    def launcher(*, lease=30.0, single=False, spawner=True):
        return Launcher(
            launcher_id="l",
            lease=Lease(lease, monotonic=clock.monotonic, wall=clock.monotonic),
            single=single,
            means=Means(None, None, None, None) if spawner else None,
            context=None,
            room=None,
        )

    return launcher


def seconds_until_end(launcher, clock, connections=0, limit=100):
    for second in range(1, limit):
        clock.now += 1
        if launcher.reason_to_end(connections) is not None:
            return second
    return None


@pytest.mark.parametrize(("lease", "seconds"), [(30.0, 10), (0.0, 10), (4.0, 4)])
async def test_it_ends_when_it_is_idle(make, clock, lease, seconds):
    launcher = make(lease=lease)
    assert seconds_until_end(launcher, clock) == seconds


async def test_a_connection_or_a_kernel_keeps_it(make, clock):
    launcher = make(lease=0.0)
    assert seconds_until_end(launcher, clock, connections=1) is None
    await launcher.start("k", REQUEST)
    assert seconds_until_end(launcher, clock) is None
    await launcher.shutdown("k", 0)
    assert seconds_until_end(launcher, clock) == 10


async def test_whoever_connects_keeps_it_for_a_while(make, clock):
    launcher = make(lease=0.0)
    clock.now += 9
    assert launcher.reason_to_end(0, called_at=clock.now) is None
    assert seconds_until_end(launcher, clock) == 10
    clock.now += 1
    assert launcher.reason_to_end(0, called_at=clock.now - 11) is not None


async def test_the_lease_ends_it_whatever_it_holds(make, clock):
    launcher = make(lease=30.0)
    await launcher.start("k", REQUEST)
    assert seconds_until_end(launcher, clock, connections=1) == 30


async def test_single_ends_when_its_kernel_is_gone_and_somebody_knows(make, clock):
    launcher = make(lease=0.0, single=True)
    assert seconds_until_end(launcher, clock) is None
    await launcher.start("k", REQUEST)
    assert seconds_until_end(launcher, clock) is None
    await launcher.shutdown("k", 0)
    assert seconds_until_end(launcher, clock) is None
    launcher.status(told=True)
    assert seconds_until_end(launcher, clock) == 1
    with pytest.raises(HttpError, match="all the kernels"):
        await launcher.start("another", REQUEST)


async def test_single_may_try_again_when_its_kernel_did_not_start(make, behave):
    launcher = make(single=True)
    behave("exec")
    with pytest.raises(SpawnError):
        await launcher.start("k", REQUEST)
    behave("")
    assert (await launcher.start("k", REQUEST))[1]


async def test_crossing_starts_of_one_id_are_one(make):
    launcher = make()
    answers = await asyncio.gather(*(launcher.start("k", REQUEST) for _ in range(10)))
    assert sum(created for _, created in answers) == 1
    assert len({id(kernel) for kernel, _ in answers}) == 1
    assert StubKernel.made == 1


async def test_crossing_starts_of_one_id_fail_together_and_leave_nothing(make, behave):
    launcher = make()
    behave("exec")
    answers = await asyncio.gather(*(launcher.start("k", REQUEST) for _ in range(10)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [SpawnError] * 10
    assert launcher.kernels == {}


async def test_a_shutdown_that_crosses_a_start_waits_for_it(make, behave):
    launcher = make()
    starting = asyncio.ensure_future(launcher.start("k", REQUEST))
    await asyncio.sleep(0)
    task = launcher.shutdown("k", 0)
    assert launcher.shutdown("k", 0) is task
    with pytest.raises(HttpError, match="shut down"):
        await launcher.start("k", REQUEST)
    await task
    await asyncio.gather(starting, return_exceptions=True)
    assert launcher.kernels == {}
    behave("exec")
    starting = asyncio.ensure_future(launcher.start("k", REQUEST))
    await asyncio.sleep(0)
    await launcher.shutdown("k", 0)
    assert isinstance((await asyncio.gather(starting, return_exceptions=True))[0], SpawnError)


async def test_a_kernel_whose_end_fails_is_forgotten_all_the_same(make, behave, caplog):
    launcher = make()
    kernel, _ = await launcher.start("k", REQUEST)
    behave("end")
    await launcher.shutdown("k", 0)
    assert launcher.kernels == {}
    assert kernel.closed
    assert "a bug" in caplog.text


async def test_the_end_has_a_deadline_and_refuses_newcomers(make, behave, monkeypatch):
    launcher = make()
    await launcher.start("k", REQUEST)
    behave("never")
    monkeypatch.setattr(app, "END_MARGIN", 0.05)
    await asyncio.wait_for(launcher.end(0.0), 5)
    with pytest.raises(HttpError, match="about to end"):
        await launcher.start("another", REQUEST)
    for task in launcher._leaving.values():
        task.cancel()
    await asyncio.gather(*launcher._leaving.values(), return_exceptions=True)


async def test_attached_kernels_are_spared_when_told_so(make):
    launcher = make(spawner=False)
    launcher.attach("k", {}, "python3")
    with pytest.raises(HttpError, match="starts none"):
        await launcher.start("another", REQUEST)
    await launcher.end(0.0, spare_attached=True)
    assert list(launcher.kernels) == ["k"]
    await launcher.end(0.0)
    assert launcher.kernels == {}


async def test_kernels_are_bounded(make, monkeypatch):
    monkeypatch.setattr(app, "MAX_KERNELS", 2)
    launcher = make()
    await launcher.start("a", REQUEST)
    await launcher.start("b", REQUEST)
    with pytest.raises(HttpError, match="all the kernels"):
        await launcher.start("c", REQUEST)
