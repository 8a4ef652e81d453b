"""Helpers of the event loop, for the core and for plugins: blocking calls, deadlines, ends that must come.

Nothing here owns anything: the threads belong to who passes them (``Plugin.threads``: bounded, one pool a
plugin, so that one slow remote does not stop the others).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_blocking(threads: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in one of ``threads``.

    A cancelled caller is let go at once; the function itself runs on to its end. Where that end
    creates something, wrap the call in `run_to_end` and clean up.
    """
    context = contextvars.copy_context()
    call = functools.partial(context.run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(threads, call)


async def run_to_end(awaitable: Awaitable[T]) -> T:
    """Await to the end even if the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    future = asyncio.ensure_future(awaitable)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return future.result()
    if not future.cancelled() and future.exception() is not None:
        raise cancelled from future.exception()
    raise cancelled


def remaining(deadline: float) -> float:
    """Seconds until ``deadline`` (of ``time.monotonic()``), never negative."""
    return max(0.0, deadline - time.monotonic())


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await for at most ``seconds``; then cancel it, wait for its end, and raise TimeoutError.

    What ended in time is never lost, and a cancellation of the caller is never swallowed.
    """
    future = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({future}, timeout=seconds)
    except asyncio.CancelledError:
        await _cancel(future)
        raise
    if future.done():
        return future.result()
    await _cancel(future)
    if not future.cancelled() and future.exception() is None:
        return future.result()
    raise TimeoutError(f"not done after {seconds:g} s")


async def _cancel(future: asyncio.Future[T]) -> None:
    future.cancel()
    await asyncio.wait({future})
    if not future.cancelled():
        future.exception()  # seen: a failure during the cancellation is nobody's news
