"""Run a gateway with its event loop watched: the longest callback, in CPU of the loop's own thread.

    python loop_watch.py REPORT -m MODULE [ARGUMENTS]

Standard library only, for it runs in each contestant's environment. SIGUSR1 starts a new span (the gateway serves
now) and SIGUSR2 writes the report, a JSON object: ``{"span": N, "longest_ms": …, "callback": …, "callbacks": N}``.
Thread CPU, not wall time: what else the machine does is not the callback's fault. A watched gateway is measured for
this only; the watching costs it about a microsecond a callback.
"""

from __future__ import annotations

import asyncio.events
import json
import runpy
import signal
import sys
import time
from pathlib import Path
from types import FrameType


class Watch:
    def __init__(self, report: Path) -> None:
        self._report = report
        self.spans = 0
        self.begin()

    def begin(self, *_: int | FrameType | None) -> None:
        self.spans += 1
        self.longest, self.callbacks, self.who = 0.0, 0, ""

    def write(self, *_: int | FrameType | None) -> None:
        report = {
            "span": self.spans,
            "longest_ms": self.longest * 1000,
            "callback": self.who,
            "callbacks": self.callbacks,
        }
        new = self._report.with_suffix(".new")
        new.write_text(json.dumps(report))
        new.replace(self._report)


def install(watch: Watch) -> None:
    run = asyncio.events.Handle._run

    def watched(self: asyncio.events.Handle) -> None:
        who, began = self._callback, time.thread_time()  # type: ignore[attr-defined]
        run(self)  # raises nothing but SystemExit and KeyboardInterrupt
        took = time.thread_time() - began
        watch.callbacks += 1
        if took > watch.longest:
            watch.longest, watch.who = took, repr(getattr(who, "__self__", None) or who)

    asyncio.events.Handle._run = watched  # type: ignore[method-assign]


def main() -> None:
    report, _, module = sys.argv[1:4]
    watch = Watch(Path(report))
    install(watch)
    signal.signal(signal.SIGUSR1, watch.begin)
    signal.signal(signal.SIGUSR2, watch.write)
    sys.argv[1:] = sys.argv[4:]
    sys.path.pop(0)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
