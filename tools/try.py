"""The README's first command: install everything into an environment of its own, and run ``eg lab``.

    python3 tools/try.py                      a gateway with local kernels and a JupyterLab; prints the URL to open
    python3 tools/try.py NOTEBOOK.ipynb       runs the notebook through the gateway, and writes it back

Needs Python 3.10 and pip, nothing else. The environment is ``.venv`` here, or ``$EG_VENV``.
"""

from __future__ import annotations

import hashlib
import sys

from _venv import ROOT, Venv, check_python, replace_process

PACKAGES = ("packages/eg-launcher", "packages/eg-core[lab]")


def state_of_sources() -> str:
    """Changes when an installed copy is out of date."""
    digest = hashlib.sha256(sys.version.encode())
    for package in PACKAGES:
        folder = ROOT / package.partition("[")[0]
        for path in [folder / "pyproject.toml", *sorted((folder / "src").rglob("*"))]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    check_python()
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return
    venv = Venv()
    venv.make()
    stamp, state = venv.folder / "eg-installed", state_of_sources()
    if not stamp.exists() or stamp.read_text() != state:
        print("Installing the gateway, a launcher, JupyterLab and nbclient …", flush=True)
        venv.install(*(str(ROOT / package) for package in PACKAGES))
        stamp.write_text(state)
    replace_process([venv.script("eg"), "lab", *sys.argv[1:]])


if __name__ == "__main__":
    main()
