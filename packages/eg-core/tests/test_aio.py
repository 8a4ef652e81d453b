import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from eg_core import aio


async def test_blocking_calls_run_in_the_given_threads_and_no_more_than_those():
    at_once, most, lock = 0, 0, threading.Lock()

    def call(number):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return number

    with ThreadPoolExecutor(2) as threads:
        results = await asyncio.gather(*(aio.run_blocking(threads, call, n) for n in range(8)))
    assert list(results) == list(range(8))
    assert most == 2


async def test_a_blocking_callers_failure_is_the_callers():
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="invalid literal"):
        await aio.run_blocking(threads, int, "x")


async def test_run_to_end_outlives_cancellation_and_then_cancels():
    ended = False
    go = asyncio.Event()

    async def work():
        nonlocal ended
        await go.wait()
        ended = True

    task = asyncio.create_task(aio.run_to_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_within_gives_what_ended_in_time_and_the_failure_of_what_failed():
    async def answer():
        return 42

    async def fail():
        raise KeyError("x")

    assert await aio.within(1, answer()) == 42
    with pytest.raises(KeyError):
        await aio.within(1, fail())


async def test_within_cancels_what_is_late_and_waits_for_its_end():
    cleaned = False

    async def late():
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned = True

    with pytest.raises(TimeoutError):
        await aio.within(0.01, late())
    assert cleaned


async def test_within_passes_the_callers_cancellation_on():
    cancelled = False
    waiting = asyncio.Event()

    async def work():
        nonlocal cancelled
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    task = asyncio.create_task(aio.within(60, work()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled


def test_remaining_is_never_negative():
    assert aio.remaining(time.monotonic() - 5) == 0
    assert 4 < aio.remaining(time.monotonic() + 5) <= 5
