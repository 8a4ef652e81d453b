"""``eg kernels``: the kernels of a running gateway, by its REST API, as any client would. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

DEFAULT_URL = "http://127.0.0.1:8888"
TIMEOUT = 60.0  # a restart answers after 25 s, ready or not
FOLLOW_EVERY = 1.0
_DONE = {"interrupt": "interrupted", "restart": "restarted", "stop": "stopped"}


class Failed(Exception):
    """The gateway said no, or cannot be reached; the message says which and why."""


class Gateway:
    def __init__(self, url: str, token: str) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise Failed(f"The gateway's URL must begin with http:// or https://, not {url!r}.")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"token {token}"

    def __call__(self, method: str, path: str) -> Any:
        """The answer's JSON; None for an answer without a body."""
        data = b"{}" if method == "POST" else None
        request = urllib.request.Request(f"{self._url}{path}", data, self._headers, method=method)  # noqa: S310 - checked
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                body = answer.read()
            return json.loads(body) if body else None
        except urllib.error.HTTPError as error:
            raise Failed(_words(error)) from error
        except (OSError, HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise Failed(f"The gateway at {self._url} cannot be reached: {why}.") from error
        except ValueError as error:
            raise Failed(f"What answers at {self._url} is no gateway: {error}.") from error

    def kernels(self) -> list[dict[str, Any]]:
        found = self("GET", "/api/kernels")
        if not isinstance(found, list):
            raise Failed(f"What answers at {self._url} is no gateway.")
        return found

    def find(self, beginning: str) -> str:
        """The id of the one kernel whose id begins so."""
        found = [kernel["id"] for kernel in self.kernels() if kernel["id"].startswith(beginning.lower())]
        if len(found) == 1:
            return str(found[0])
        raise Failed(f"{len(found) or 'No'} kernels have an id that begins with {beginning!r}.")


def run(argv: list[str], environ: Mapping[str, str] = os.environ) -> int:
    args = _parser().parse_args(argv)
    try:
        gateway = Gateway(args.url or environ.get("EG_URL") or DEFAULT_URL, environ.get("EG_AUTH_TOKEN", ""))
        if args.command == "list":
            _list(gateway, as_json=args.json)
        elif args.command == "log":
            _log(gateway, gateway.find(args.id), follow=args.follow)
        else:
            _act(gateway, args.command, args.ids)
    except Failed as error:
        print(f"eg kernels: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eg kernels",
        description="The kernels of a running gateway. The token is EG_AUTH_TOKEN. Of an id its beginning is enough.",
    )
    parser.add_argument("--url", help=f"the gateway's URL, its base_url included (default: EG_URL, or {DEFAULT_URL})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="all kernels, with their states")
    listing.add_argument("--json", action="store_true", help="print the gateway's own JSON")
    log = commands.add_parser("log", help="what a kernel's process has written to stdout and stderr")
    log.add_argument("id", metavar="ID")
    log.add_argument("-f", "--follow", action="store_true", help="go on until the kernel is gone")
    for name, words in (
        ("interrupt", "interrupt what they execute"),
        ("restart", "restart them: a new process, the same id"),
        ("stop", "end them"),
    ):
        commands.add_parser(name, help=words).add_argument("ids", metavar="ID", nargs="+")
    return parser


def _list(gateway: Gateway, *, as_json: bool) -> None:
    kernels = gateway.kernels()
    if as_json:
        print(json.dumps(kernels, indent=2))
        return
    head = ("ID", "KERNELSPEC", "STATE", "CLIENTS", "IDLE", "")
    rows = [
        (
            str(kernel["id"]),
            str(kernel.get("name", "")),
            str(kernel.get("execution_state", "")),
            str(kernel.get("connections", "")),
            _age(str(kernel.get("last_activity", ""))),
            " ".join(str(kernel.get("reason") or "").split())[:100],
        )
        for kernel in kernels
    ]
    print(_columns([head, *rows]) if rows else "There is no kernel.")


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _age(stamp: str) -> str:
    """Since then, in the largest unit that counts."""
    try:
        then = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        return ""
    seconds = max(0, round((datetime.now(timezone.utc) - then).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _log(gateway: Gateway, kernel_id: str, *, follow: bool) -> None:
    after = 0
    while True:
        answer = gateway("GET", f"/api/kernels/{quote(kernel_id)}/log?after={after}")
        if answer["first"] > after:
            print(f"[{answer['first'] - after} bytes are no longer kept]", file=sys.stderr)
        sys.stdout.write(answer["text"])
        sys.stdout.flush()
        moved, after = answer["next"] > after, answer["next"]
        if not follow:
            return
        if not moved:
            time.sleep(FOLLOW_EVERY)


def _act(gateway: Gateway, command: str, beginnings: Sequence[str]) -> None:
    """All of them are found before anything is done to one."""
    for kernel_id in [gateway.find(beginning) for beginning in beginnings]:
        path = f"/api/kernels/{quote(kernel_id)}"
        if command == "stop":
            gateway("DELETE", path)
        else:
            gateway("POST", f"{path}/{command}")
        print(f"{kernel_id} {_DONE[command]}")


def _words(error: urllib.error.HTTPError) -> str:
    try:
        answer = json.loads(error.read())
        words = str(answer.get("message") or answer.get("reason"))
    except (ValueError, AttributeError, OSError):
        words = ""
    if error.code == 401:
        return "The gateway wants a token: set EG_AUTH_TOKEN."
    return words or f"The gateway answered {error.code} {error.reason}."
