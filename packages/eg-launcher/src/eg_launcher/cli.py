"""The command line: arguments and credentials in, one ready line out. What is wrong is said in one line, exit code 2.

Nothing heavy is imported before the arguments are good, so that ``--help`` and refusals need no pyzmq.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import secrets
import stat
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

from eg_launcher import __version__, logfile, wire

if TYPE_CHECKING:
    from eg_launcher.app import Settings

DEFAULT_LEASE = 120.0
_MAX_FILE = 1024 * 1024
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

EPILOG = """\
By itself, without a gateway:

  A kernel that runs already, on a WebSocket for any Jupyter client:

    eg-launcher attach --connection-file ~/.local/share/jupyter/runtime/kernel-1234.json \\
        --tcp 127.0.0.1:8889 --insecure-loopback

  A kernel of its own:

    eg-launcher spawn --tcp 127.0.0.1:8889 --insecure-loopback \\
        -- python -m ipykernel_launcher -f {connection_file}

  Both print on stderr the URL of the kernel's WebSocket and the token they have made.
  They speak Jupyter's kernel WebSocket protocol at /api/kernels/ID/channels. Ctrl-C ends them.
"""


class UsageError(Exception):
    """What the user has to change, in one sentence."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if sys.platform == "win32":
            raise UsageError("Windows is not supported: run eg-launcher on Linux, for example in WSL.")
        return _main(arguments)
    except UsageError as error:
        print(f"eg-launcher: {error}", file=sys.stderr)
        return 2


def _main(argv: list[str]) -> int:
    command: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1 :]
    args = make_parser().parse_args(argv)
    if command and args.mode != "spawn":
        raise UsageError("only spawn takes a command after --")
    settings, alone = _settings(args, command)
    try:
        logfile.configure(args.log)
    except OSError as error:
        raise UsageError(f"the log {args.log} cannot be written: {_words(error)}") from None
    return _run(settings, args.log, alone=alone)


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="eg-launcher",
        description="Runs beside a Jupyter kernel: starts it or attaches to it, keeps what it says, and serves its "
        "channels as Jupyter's kernel WebSocket protocol on one port.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{__version__} (protocol {wire.PROTOCOL})")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="spawn|attach", parser_class=_Parser)
    spawn = modes.add_parser("spawn", help="start kernels, as a gateway asks for them or from a command after --")
    attach = modes.add_parser("attach", help="serve a kernel that runs already")
    attach.add_argument("--connection-file", required=True, metavar="FILE", help="the kernel's connection file")
    for mode in (spawn, attach):
        _add_common(mode)
        mode.epilog = EPILOG
        mode.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--unix", metavar="PATH", help="listen on a Unix socket, in a folder of mode 0700")
    where.add_argument("--tcp", metavar="HOST:PORT", help="listen on TCP with TLS; port 0 picks a free one")
    parser.add_argument(
        "--credentials",
        metavar="-|FILE",
        help='one JSON object {"launcher_id", "token", "certificate", "key"} on standard input or in a file of mode '
        "0600; without it a token is made and shown",
    )
    parser.add_argument("--insecure-loopback", action="store_true", help="on a loopback address, allow TCP without TLS")
    parser.add_argument(
        "--lease",
        type=_seconds,
        metavar="SECONDS",
        help="end kernels and itself after this long without a gateway; 0 is for ever (default: "
        f"{DEFAULT_LEASE:.0f}, without --credentials 0)",
    )
    parser.add_argument(
        "--spill",
        metavar="FOLDER",
        help="keep on disk, here, what a kernel has said and memory does not hold (default: the first of TMPDIR and "
        "/var/tmp that lies on a disk)",
    )
    parser.add_argument("--single", action="store_true", help="hold one kernel, and end with it")
    parser.add_argument("--kernel-id", type=_kernel_id, metavar="ID", help="the kernel's id (default: a new one)")
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="write the log here instead of to stderr; one of 1 MiB and an older one (FILE.1) are kept",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return value


def _kernel_id(text: str) -> str:
    if not _ID.match(text):
        raise argparse.ArgumentTypeError("must be at most 64 letters, digits, '-', '_' and '.'")
    return text


def _settings(args: argparse.Namespace, command: list[str]) -> tuple[Settings, bool]:
    alone = args.credentials is None
    credentials = _make_credentials() if alone else read_credentials(args.credentials)
    host, port = ("", 0) if args.tcp is None else _address(args.tcp)
    if args.tcp is not None and credentials["certificate"] is None:
        _check_loopback(host, insecure=args.insecure_loopback)
    attach = None if args.mode == "spawn" else _read_connection_file(args.connection_file)
    lease = args.lease if args.lease is not None else 0.0 if alone else DEFAULT_LEASE
    kernel_id = args.kernel_id or (_id_of(args.connection_file) if attach is not None else str(uuid.uuid4()))
    from eg_launcher.app import Settings  # noqa: PLC0415 - not before the arguments are good

    return Settings(
        launcher_id=credentials["launcher_id"],
        token=credentials["token"],
        certificate=credentials["certificate"],
        key=credentials["key"],
        unix=args.unix,
        host=host,
        port=port,
        lease=lease,
        single=args.single,
        spill=args.spill,
        kernel_id=kernel_id,
        start=_start_request(command) if command else None,
        attach=attach,
    ), alone


def _start_request(command: list[str]) -> Any:
    from eg_launcher.command import check_start  # noqa: PLC0415

    try:
        return check_start({"argv": command, "env": dict(os.environ), "cwd": str(Path.cwd()), "name": command[0][:64]})
    except ValueError as error:
        raise UsageError(f"the command after -- cannot be started: {error}") from None


def _make_credentials() -> dict[str, Any]:
    return {"launcher_id": str(uuid.uuid4()), "token": secrets.token_hex(24), "certificate": None, "key": None}


def read_credentials(source: str) -> dict[str, Any]:
    text = sys.stdin.read(_MAX_FILE) if source == "-" else _read_secret(source)
    try:
        value = json.loads(text)
    except ValueError:
        raise UsageError("the credentials are not JSON") from None
    if not isinstance(value, dict):
        raise UsageError("the credentials must be a JSON object")
    for name in ("launcher_id", "token"):
        if not isinstance(value.get(name), str) or not value[name]:
            raise UsageError(f"the credentials lack {name!r}")
    for name in ("certificate", "key"):
        if not isinstance(value.setdefault(name, None), (str, type(None))):
            raise UsageError(f"the credentials' {name!r} must be PEM text or null")
    if (value["certificate"] is None) is not (value["key"] is None):
        raise UsageError("the credentials need both 'certificate' and 'key', or neither")
    return value


def _read_secret(path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UsageError(f"others can read {path}: chmod 600 it")
            return file.read(_MAX_FILE)
    except (OSError, ValueError) as error:
        raise UsageError(f"the credentials in {path} cannot be read: {_words(error)}") from None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--tcp must be HOST:PORT, not {text!r}")
    return host, int(port)


def _check_loopback(host: str, *, insecure: bool) -> None:
    from eg_launcher.listener import is_loopback  # noqa: PLC0415

    if not is_loopback(host):
        raise UsageError(f"without a certificate it does not listen on {host}: only on a loopback address")
    if not insecure:
        raise UsageError("the credentials hold no certificate; to do without TLS on loopback say --insecure-loopback")


def _read_connection_file(path: str) -> dict[str, Any]:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            value = json.loads(file.read(_MAX_FILE))
    except (OSError, ValueError) as error:
        raise UsageError(f"the connection file {path} cannot be read: {_words(error)}") from None
    ports = ("shell_port", "iopub_port", "stdin_port", "control_port")
    if not isinstance(value, dict) or not all(isinstance(value.get(name), int) for name in ports):
        raise UsageError(f"{path} is not a kernel's connection file: it lacks {', '.join(ports)}")
    return value


def _id_of(connection_file: str) -> str:
    """A kernel's own id, when its connection file is named after it."""
    stem = Path(connection_file).stem
    name = stem.partition("kernel-")[2] or stem
    return name if _ID.match(name) else str(uuid.uuid4())


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not what it should be"


def _run(settings: Settings, log: str | None, *, alone: bool) -> int:
    import asyncio  # noqa: PLC0415

    from eg_launcher.app import run  # noqa: PLC0415
    from eg_launcher.http1 import HttpError  # noqa: PLC0415
    from eg_launcher.listener import ListenError  # noqa: PLC0415
    from eg_launcher.spawner import SpawnError  # noqa: PLC0415

    def ready(line: dict[str, Any]) -> None:
        if alone:
            print(how_to_connect(settings, line["endpoint"]), file=sys.stderr, flush=True)
        try:
            print(json.dumps(line), flush=True)
        except BrokenPipeError:
            raise UsageError("who has started it reads no more") from None
        finally:
            logfile.detach(log)

    try:
        return asyncio.run(run(settings, ready))
    except KeyboardInterrupt:
        return 130
    except (ListenError, SpawnError, HttpError) as error:
        raise UsageError(" ".join(str(error).split())) from None


def how_to_connect(settings: Settings, endpoint: dict[str, Any]) -> str:
    """For a person: where the kernel's WebSocket is, and the token that opens it."""
    holds_one = settings.attach is not None or settings.start is not None
    path = f"/api/kernels/{settings.kernel_id if holds_one else 'ID'}/channels"
    if "path" in endpoint:
        url = f"ws+unix://{endpoint['path']}:{path}"
    else:
        host = f"[{endpoint['host']}]" if ":" in endpoint["host"] else endpoint["host"]
        url = f"ws://{host}:{endpoint['port']}{path}"
    lines = [
        "eg-launcher serves Jupyter's kernel WebSocket protocol here:",
        f"    {url}?token={settings.token}",
        f"or send the header    Authorization: token {settings.token}",
    ]
    if not holds_one:
        lines.append(f"Start a kernel within 10 s: POST {path.replace('/channels', '/start')} with its argv.")
    return "\n".join([*lines, "Ctrl-C ends it" + (", not the kernel." if settings.attach else " and its kernel.")])
