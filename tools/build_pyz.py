"""Build ``dist/eg-launcher.pyz``: the whole launcher in one file, to be put beside a kernel where nothing of ours is.

    python3 tools/build_pyz.py [FILE]

It needs Python 3.9 or newer and pyzmq there (ipykernel brings it); what is missing it says in one line, exit code 2.
It is a shell script with a zip behind it, so that it can say so without any Python too: run it as
``./eg-launcher.pyz``, ``sh eg-launcher.pyz`` or ``python3 eg-launcher.pyz``. $EG_PYTHON names the Python to use. The
same sources give the same bytes. Standard library only.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "packages/eg-launcher/src/eg_launcher"
DEFAULT = ROOT / "dist/eg-launcher.pyz"
LONG_AGO = (1980, 1, 1, 0, 0, 0)

# Read by sh up to `exit`; what follows is no text.
HEAD = b"""\
#!/bin/sh
for python in ${EG_PYTHON:+"$EG_PYTHON"} python3 python; do
    if command -v "$python" >/dev/null 2>&1; then exec "$python" "$0" "$@"; fi
done
echo "eg-launcher: there is no Python on PATH here; it needs Python 3.9 or newer with pyzmq" >&2
exit 2
"""

# Any Python from 2.7 on must be able to read this, and only this.
MAIN = b'''\
"""Says what is missing before anything that an old Python cannot read is imported."""
import sys


def missing():
    here = "%d.%d.%d (%s)" % (sys.version_info[0], sys.version_info[1], sys.version_info[2], sys.executable)
    if sys.version_info < (3, 9):
        return "it needs Python 3.9 or newer; this is " + here
    try:
        import zmq
    except ImportError as error:
        return "it needs pyzmq, which Python " + here + " cannot import: " + " ".join(str(error).split())
    if zmq.pyzmq_version_info() < (25,):
        return "it needs pyzmq 25 or newer; Python " + here + " has " + zmq.pyzmq_version()
    return None


if __name__ == "__main__":
    words = missing()
    if words is not None:
        sys.stderr.write("eg-launcher: " + words + "\\n")
        sys.exit(2)
    from eg_launcher.cli import main

    sys.exit(main())
'''


def build(target: Path) -> None:
    """Write the file, whole or not at all."""
    archive = io.BytesIO(HEAD)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
        _add(zipped, "__main__.py", MAIN)
        for source in sorted(PACKAGE.rglob("*.py")):
            _add(zipped, str(source.relative_to(PACKAGE.parent)), source.read_bytes())
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(archive.getvalue())
    partial.chmod(0o755)
    partial.replace(target)


def _add(zipped: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    zipped.writestr(entry, content)


def main() -> int:
    target = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else DEFAULT
    build(target)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
