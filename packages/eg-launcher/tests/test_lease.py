import pytest

from eg_launcher.lease import Lease


class Clocks:
    def __init__(self):
        self.monotonic, self.wall = 100.0, 1_000_000.0

    def pass_(self, seconds, *, asleep=0.0):
        """``asleep``: the machine was suspended, which the monotonic clock doesn't see."""
        self.monotonic += seconds
        self.wall += seconds + asleep


@pytest.fixture
def clocks():
    return Clocks()


def make(clocks, seconds):
    return Lease(seconds, monotonic=lambda: clocks.monotonic, wall=lambda: clocks.wall)


def run(lease, clocks, seconds):
    """Ask every second, as the app does; the first second at which it was over."""
    for second in range(1, seconds + 1):
        clocks.pass_(1)
        if lease.over():
            return second
    return None


def test_it_ends_when_nobody_renews_it(clocks):
    assert run(make(clocks, 30), clocks, 100) == 30


def test_a_request_renews_it(clocks):
    lease = make(clocks, 30)
    assert run(lease, clocks, 29) is None
    lease.renew()
    assert run(lease, clocks, 100) == 30


def test_zero_is_for_ever(clocks):
    assert run(make(clocks, 0), clocks, 10_000) is None


def test_it_cannot_end_while_it_is_held_and_runs_in_full_afterwards(clocks):
    lease = make(clocks, 30)
    lease.hold()
    lease.hold()
    assert run(lease, clocks, 100) is None
    lease.release()
    assert run(lease, clocks, 100) is None
    lease.release()
    assert run(lease, clocks, 100) == 30


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_wall_clock_starts_it_anew(clocks, jump):
    lease = make(clocks, 30)
    run(lease, clocks, 29)
    clocks.pass_(1, asleep=jump)
    assert not lease.over()
    assert run(lease, clocks, 100) == 30


def test_a_stopped_launcher_starts_it_anew(clocks):
    lease = make(clocks, 30)
    run(lease, clocks, 29)
    clocks.pass_(600)
    assert not lease.over()
    assert run(lease, clocks, 100) == 30


def test_a_clock_that_is_set_right_by_a_second_changes_nothing(clocks):
    lease = make(clocks, 30)
    run(lease, clocks, 20)
    clocks.pass_(1, asleep=1.0)
    assert not lease.over()
    assert run(lease, clocks, 100) == 9
