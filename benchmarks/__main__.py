"""Measure this gateway beside the incumbents, in one run.

    python -m benchmarks            # all of it, under 12 minutes
    python -m benchmarks --quick    # a sample, under 90 seconds; the seed that drew it is printed

Prints a table (ratios first) and what was reached of the targets; writes ``benchmark.md`` and ``benchmark.json``.
The first run installs the incumbents and keeps them. A missed target is no failure, nor is a machine too busy
to come to the end in time, nor what an incumbent does not do: the exit code says only whether we could be measured.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from pathlib import Path

if sys.platform != "linux":
    sys.exit("The benchmarks read /proc: they run on Linux only.")

from benchmarks import processes, report, run


def _interrupted(*_: object) -> None:
    """Ends the processes first: threads wait for their answers."""
    processes.end_all()
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a sample with small counts")
    parser.add_argument("--smoke", action="store_true", help="everything, with counts too small to mean anything")
    parser.add_argument("--seed", type=int, default=None, help="draw the sample of this seed")
    parser.add_argument("--only", default="eg,EG,KG", help="gateways, by comma (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(".ci-artifacts"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed  # noqa: S311 - no secret
    try:
        names = run.known(name for name in options.only.split(",") if name)
    except ValueError as error:
        parser.error(str(error))
    make_plan = run.plan_smoke if options.smoke else run.plan_quick if options.quick else run.plan_full
    plan = make_plan(seed, names)
    print(f"seed {seed}; {plan.kind}", file=sys.stderr, flush=True)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupted)
    processes.become_subreaper()
    one = run.Run(plan)
    try:
        one.measure()
    except KeyboardInterrupt:
        print("interrupted: what was started has been ended", file=sys.stderr)
        return 130
    finally:
        processes.end_all()
    facts = one.facts()
    text = report.render(one.samples, facts)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmark.md").write_text(text)
    (options.out / "benchmark.json").write_text(json.dumps(report.as_json(one.samples, facts), indent=1) + "\n")
    print(text)
    return 1 if one.failures else 0


if __name__ == "__main__":
    sys.exit(main())
