"""The kernelspecs of the suite: good ones, and one for each way in which a kernel fails to start."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
FAREWELL = "the licence server said no"

SLOW = "import sys, time; time.sleep(4); from ipykernel import kernelapp; kernelapp.launch_new_instance()"
"""Four seconds of imports, say."""

ARGV: dict[str, list[str]] = {
    "python3": IPYKERNEL,
    # A kernel behind a shell that has children of its own, one of which has left the session.
    "shell": [
        "bash",
        "-c",
        f"sleep 7700 & setsid sleep 7701 & {sys.executable} -m ipykernel_launcher -f {{connection_file}}; true",
    ],
    "absent": ["/nowhere/to/be/found/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "exits": [sys.executable, "-c", f"import sys; print({FAREWELL!r}, file=sys.stderr); sys.exit(3)"],
    "slow": [sys.executable, "-c", SLOW, "-f", "{connection_file}"],
    "silent": [sys.executable, "-c", "import time; time.sleep(7702)", "{connection_file}"],
}


def write_kernelspecs(folder: Path) -> Path:
    """A JUPYTER_PATH entry with all of them."""
    # Some machines need a hint to run numpy; kernels inherit nothing, so their kernelspec carries it.
    hints = {name: os.environ[name] for name in ("OPENBLAS_CORETYPE",) if name in os.environ}
    for name, argv in ARGV.items():
        spec = folder / "kernels" / name
        spec.mkdir(parents=True)
        display = "Python 3 (test)" if name == "python3" else f"Test: {name}"
        content = {"argv": argv, "display_name": display, "language": "python", "env": hints, "metadata": {}}
        (spec / "kernel.json").write_text(json.dumps(content))
    (folder / "kernels" / "python3" / "kernel.js").write_text("// declared resource\n")
    (folder / "kernels" / "python3" / "logo-64x64.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "kernels" / "python3" / "private.txt").write_text("nobody should read this\n")
    return folder
