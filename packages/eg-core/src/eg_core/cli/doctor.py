"""``eg doctor``: look at what a gateway needs before a user runs into it.

The checks are the core's (``checks.py``) and the plugins' (hook ``eg_doctor_checks``), run side by side, each bounded
in time; what one raises is its failure. Serving is strict about plugins, this is lenient: one that cannot be loaded is
a failed check, and the others are still asked. ``--launch`` then starts a kernel and ends it (``trial.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import Any, NoReturn

from eg_core import app as serving
from eg_core.cli.checks import CoreChecks
from eg_core.cli.trial import launch
from eg_core.errors import GatewayError
from eg_core.hooks import Hooks
from eg_core.plugins import GROUP, PluginManager
from eg_core.types import Check, CheckResult

_LABELS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


class Refused(SystemExit):
    """The configuration cannot be used; the message says why. No ``Exception``, which the application would take for
    a mistake in the configuration file."""


class EnterpriseGatewayApp(serving.EnterpriseGatewayApp):
    """The gateway's own configuration, which does not end the program when it is refused. Of the same name, for
    traitlets finds a class's options by its name."""

    def _refuse(self, why: str) -> NoReturn:
        raise Refused(why)

    def exit(self, exit_status: Any = 0) -> NoReturn:
        if exit_status:
            raise Refused("A value in it is wrong (see above).")
        raise SystemExit(0)


@dataclass(frozen=True)
class Finding:
    check: Check
    result: CheckResult
    seconds: float
    late: bool = False


def run(argv: list[str]) -> int:
    args, rest = _parser().parse_known_args(argv)
    findings = asyncio.run(_doctor(args, rest))
    print(_as_json(findings) if args.json else _as_text(findings), flush=True)
    code = 1 if any(finding.result.status == "fail" for finding in findings) else 0
    if any(finding.late for finding in findings):
        os._exit(code)  # a thread hangs in what was given up, and would be waited for
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eg doctor",
        description="Look at what a gateway with this configuration needs, and say what is wrong. Takes the options of "
        "`eg serve`, too, as --NAME=VALUE. Changes nothing. The exit code is 1 if a check failed.",
    )
    parser.add_argument(
        "prefix", nargs="*", metavar="CHECK", help="only checks whose names begin so (core.store, local)"
    )
    parser.add_argument("--launch", metavar="NAME", help="also start a kernel of this kernelspec, and end it")
    parser.add_argument("--launch-timeout", type=float, default=120.0, metavar="SECONDS", help="default: %(default)g")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


async def _doctor(args: argparse.Namespace, rest: list[str]) -> list[Finding]:
    app = EnterpriseGatewayApp(log_level=logging.CRITICAL)
    try:
        app.initialize(rest)
    except Refused as error:
        return [_finding("core.configuration", "The configuration can be used", CheckResult("fail", str(error)))]
    app.log_level = logging.CRITICAL  # what is wrong is said by the checks
    threads = ThreadPoolExecutor(16, thread_name_prefix="eg-doctor")
    try:
        broken, hooks = _load_plugins(app)
        backends = {name for each in hooks for name in each.backends}
        checks = [
            *broken,
            *CoreChecks(app, threads, backends).all(),
            *(c for each in hooks for c in each.doctor_checks()),
        ]
        findings = await run_checks(_chosen(checks, args.prefix))
        if args.launch:
            findings += await run_checks([_launch_check(app, args.launch, args.launch_timeout)])
        return findings
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _chosen(checks: Sequence[Check], prefixes: Sequence[str]) -> list[Check]:
    return [check for check in checks if not prefixes or check.name.startswith(tuple(prefixes))]


def _finding(name: str, summary: str, result: CheckResult) -> Finding:
    async def done() -> CheckResult:
        return result

    return Finding(Check(name, summary, done), result, 0.0)


def _launch_check(app: EnterpriseGatewayApp, name: str, timeout: float) -> Check:
    return Check(f"launch.{name}", f"A kernel of {name} starts, answers and ends", lambda: launch(app, name), timeout)


async def run_checks(checks: Sequence[Check]) -> list[Finding]:
    """Side by side; in the order given."""
    return list(await asyncio.gather(*(_run_check(check) for check in checks)))


async def _run_check(check: Check) -> Finding:
    began = time.monotonic()
    late = False
    task = asyncio.ensure_future(check.run())
    done, _ = await asyncio.wait({task}, timeout=check.timeout)
    if not done:
        late = True
        task.cancel()
        await asyncio.wait({task}, timeout=5.0)  # it may have to clean up
        result = CheckResult("fail", f"No answer within {check.timeout:g} s.")
    else:
        try:
            result = task.result()
        except GatewayError as error:
            result = CheckResult("fail", error.message)
        except Exception as error:  # noqa: BLE001 - whatever a check does wrong is its failure, and no other's
            result = CheckResult("fail", f"The check itself failed: {type(error).__name__}: {error}")
    return Finding(check, result, time.monotonic() - began, late)


def _load_plugins(app: EnterpriseGatewayApp) -> tuple[list[Check], list[Hooks]]:
    """Failed checks for what cannot be loaded, and hooks over what can: all together, or else one by one."""

    def load(**chosen: Any) -> Hooks:
        return Hooks(PluginManager(parent=app, log=app.log, environ=app.environ, **chosen), app.log)

    backends = dict(app.backends)
    try:
        return [], [load(backends=backends)]
    except GatewayError as error:
        broken = [_failed("core.plugins", "Every plugin can be loaded", error)]
    hooks: list[Hooks] = []
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda each: each.name):
        mine = {name: value for name, value in backends.items() if dict(value).get("type", name) == entry.name}
        try:
            hooks.append(load(entry_points=[entry], backends=mine))
        except GatewayError as error:
            broken.append(_failed(f"{entry.name}.plugin", f"The plugin {entry.name} can be loaded", error))
    return broken, hooks


def _failed(name: str, summary: str, error: GatewayError) -> Check:
    return _finding(name, summary, CheckResult("fail", error.message)).check


# -- telling ----------------------------------------------------------------------------------------------------------


def _as_json(findings: Sequence[Finding]) -> str:
    checks = [
        {
            "name": finding.check.name,
            "summary": finding.check.summary,
            "status": finding.result.status,
            "detail": finding.result.detail,
            "hint": finding.result.hint,
            "seconds": round(finding.seconds, 3),
        }
        for finding in findings
    ]
    return json.dumps({"ok": all(check["status"] != "fail" for check in checks), "checks": checks}, indent=2)


def _as_text(findings: Sequence[Finding]) -> str:
    width = max((len(finding.check.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        status, detail = finding.result.status, " ".join(finding.result.detail.split())
        lines.append(f"{_LABELS[status]}  {finding.check.name:{width}}  {detail}")
        if finding.result.hint and status != "ok":
            lines.append(f"{'':{width + 8}}→ {finding.result.hint}")
    count = {status: sum(finding.result.status == status for finding in findings) for status in _LABELS}
    ran = f"{len(findings)} check{'s' if len(findings) != 1 else ''}"
    lines += ["", f"{ran}: {count['ok']} ok, {count['warn']} to look at, {count['fail']} failed"]
    return "\n".join(lines)
