"""What ``eg doctor`` looks at for kernels on this host. Blocking; called in the plugin's threads."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from eg_core.builtin import starter
from eg_core.builtin.folder import choose_runtime_dir
from eg_core.types import CheckResult
from eg_launcher.wire import SUPPORTED_PROTOCOLS

VERSION_TIMEOUT = 15.0
_PROTOCOL = re.compile(r"protocol (\d+)")


def platform() -> CheckResult:
    here = str(sys.platform)
    if here == "linux":
        return CheckResult("ok", "This is Linux.")
    if here == "win32":
        return CheckResult("fail", "Local kernels need Linux or macOS.", "Run the gateway in WSL.")
    return CheckResult("warn", f"On {here} local kernels are best effort.", "Use Linux for what matters.")


def runtime_dir(given: str, environ: Mapping[str, str]) -> CheckResult:
    try:
        return CheckResult("ok", f"Sockets go to {choose_runtime_dir(given, environ)}.")
    except ValueError as error:
        return CheckResult("fail", f"There is {error}", "Set LocalBackend.runtime_dir to a short private path.")


def launcher(command: Sequence[str], environ: Mapping[str, str]) -> CheckResult:
    """Whether the launcher's command runs, and speaks a protocol of ours."""
    argv, words = [*command, "--version"], " ".join(command)
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            check=False,
            timeout=VERSION_TIMEOUT,
            text=True,
            env=starter.launcher_environment(environ),
        )
    except (OSError, ValueError) as error:
        return CheckResult(
            "fail", f"The launcher ({words}) cannot be run: {error}", "See LocalBackend.launcher_command."
        )
    except subprocess.TimeoutExpired:
        return CheckResult("fail", f"The launcher ({words}) said nothing within {VERSION_TIMEOUT:g} s.")
    said = (done.stdout + done.stderr).strip()
    found = _PROTOCOL.search(said)
    if done.returncode != 0 or found is None:
        last = said.splitlines()[-1][:300] if said else "nothing"
        return CheckResult(
            "fail", f"The launcher ({words}) ended with {done.returncode} and said: {last}", "Reinstall eg-launcher."
        )
    if int(found.group(1)) not in SUPPORTED_PROTOCOLS:
        return CheckResult(
            "fail",
            f"The launcher speaks protocol {found.group(1)}, this gateway {', '.join(map(str, SUPPORTED_PROTOCOLS))}.",
            "Upgrade eg-launcher and eg-core together.",
        )
    return CheckResult("ok", f"The launcher runs: {said.splitlines()[0]}.")
