"""The README's second command: make the developers' environment, and run the tests.

    python3 tools/test.py [PYTEST ARGUMENTS]

Unit, contract and house tests, and of the integration tests those that need nothing this machine lacks; what was left
out is said at the end (``--require NAME`` makes it a failure). Needs Python 3.10 and pip, nothing else. Hatch goes to
``.venv`` here, or ``$EG_VENV``; it keeps its environment in its own folder ($HATCH_DATA_DIR moves that).
"""

from __future__ import annotations

import os
import sys

from _venv import ROOT, Venv, check_python, replace_process

HATCH = "hatch>=1.16"


def main() -> None:
    check_python()
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return
    venv = Venv()
    venv.make()
    if not venv.script("hatch").exists():
        print("Installing hatch …", flush=True)
        venv.install(HATCH)
    print("Making the developers' environment, and running the tests …", flush=True)
    os.chdir(ROOT)
    replace_process([venv.script("hatch"), "run", "test", *sys.argv[1:]])


if __name__ == "__main__":
    main()
