"""The core's own checks of ``eg doctor``: what a gateway with this configuration needs of its host.

All blocking, run in threads; what one raises is its failure.
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from datetime import datetime, timedelta, timezone
from functools import partial
from importlib import metadata
from pathlib import Path

from cryptography import x509

from eg_core import aio
from eg_core.app import EnterpriseGatewayApp
from eg_core.errors import GatewayError
from eg_core.kernelspecs.finder import Kernelspec, KernelspecFinder
from eg_core.listening import DataDirLock, is_loopback
from eg_core.plugins import GROUP
from eg_core.store.look import look
from eg_core.tls import server_context
from eg_core.types import Check, CheckResult

MIN_PYTHON = (3, 10)
MIN_FILES = 4096
MIN_FREE = 256 * 1024 * 1024
SHORT_TOKEN = 16
EXPIRES_SOON = timedelta(days=14)
LOCAL = "local"


class CoreChecks:
    """``backends`` are the names of the instances that could be made."""

    def __init__(self, app: EnterpriseGatewayApp, threads: Executor, backends: Collection[str]) -> None:
        self._app = app
        self._threads = threads
        self._backends = backends
        self._data_dir = app.data_folder(app.port)

    def all(self) -> list[Check]:
        looks: tuple[tuple[str, str, Callable[[], CheckResult]], ...] = (
            ("python", "Python is new enough", self.python),
            ("versions", "What is installed belongs together", self.versions),
            ("token", "Clients must give a token", self.token),
            ("port", "The port is free", self.port),
            ("tls", "The certificate can be used", self.tls),
            ("data-dir", "The data folder is there and private", self.data_dir),
            ("store", "The store answers and the key is its own", self.store),
            ("files", "Enough files may be open", self.files),
            ("kernelspecs", "Every kernelspec can be offered", self.kernelspecs),
            ("default-kernel", "There is a kernelspec for requests that name none", self.default_kernel),
        )
        return [
            Check(f"core.{name}", summary, partial(aio.run_blocking, self._threads, look), timeout=20.0)
            for name, summary, look in looks
        ]

    # -- what is installed -------------------------------------------------------------------------------------

    def python(self) -> CheckResult:
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        if sys.version_info < MIN_PYTHON:
            return CheckResult("fail", f"{here} is too old.", "Install eg-core with Python 3.10 or newer.")
        return CheckResult("ok", f"{here}.")

    def versions(self) -> CheckResult:
        names = ["eg-core", "eg-launcher", "tornado", "pyzmq", "jupyter_client", "sqlalchemy"]
        names += {point.dist.name for point in metadata.entry_points(group=GROUP) if point.dist is not None} - {
            "eg-core"
        }
        found, missing = [], []
        for name in names:
            try:
                found.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                missing.append(name)
        if missing:
            return CheckResult("fail", f"Not installed: {', '.join(missing)}.", "pip install --upgrade eg-core")
        return CheckResult("ok", ", ".join(found))

    # -- how it is reached ---------------------------------------------------------------------------------------

    def token(self) -> CheckResult:
        app = self._app
        hint = "Set EG_AUTH_TOKEN, for example to what `openssl rand -hex 32` prints."
        if not app.auth_token:
            if is_loopback(app.ip):
                return CheckResult("warn", "No token is set: every user of this machine can run code as you.", hint)
            status = "warn" if app.allow_unauthenticated else "fail"
            why = f"No token is set and {app.ip} can be reached from other machines."
            return CheckResult(status, why, hint)  # type: ignore[arg-type]
        if len(app.auth_token) < SHORT_TOKEN:
            return CheckResult("warn", f"The token has {len(app.auth_token)} characters and may be guessed.", hint)
        return CheckResult("ok", "A token is set.")

    def port(self) -> CheckResult:
        app = self._app
        where = f"{app.ip}:{app.port}"
        try:
            family, _, _, _, address = socket.getaddrinfo(
                app.ip or None, app.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.create_server(address[:2], family=family):
                return CheckResult("ok", f"{where} is free." if app.port else f"{app.ip} can be listened on.")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return CheckResult("fail", f"Cannot listen on {where}: {error.strerror or error}.", "Set ip and port.")
        if self._in_use():
            return CheckResult("ok", f"A gateway with this data folder is running; {where} is in use.")
        hint = "See who has it with `ss -ltnp`, or choose another with --port."
        if app.port_retries > 0:
            return CheckResult("warn", f"{where} is in use: the gateway would take a port near it.", hint)
        return CheckResult("fail", f"{where} is in use.", hint)

    def tls(self) -> CheckResult:
        app = self._app
        server_context(  # raises in words
            certfile=app.certfile, keyfile=app.keyfile, client_ca=app.client_ca, ssl_version=app.ssl_version
        )
        if not app.certfile:
            if is_loopback(app.ip):
                return CheckResult("ok", "No TLS is configured, and none is needed on this address.")
            return CheckResult(
                "warn",
                "No TLS is configured: tokens and code pass in the clear.",
                "Set certfile, or serve behind a proxy that has TLS.",
            )
        certificate = x509.load_pem_x509_certificate(Path(app.certfile).read_bytes())
        left = certificate.not_valid_after_utc - datetime.now(timezone.utc)
        when = f"The certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
        if left < timedelta(0):
            return CheckResult("fail", f"{when}: it has expired.", "Renew it.")
        return CheckResult("warn" if left < EXPIRES_SOON else "ok", f"{when}.", "Renew it soon.")

    # -- what it keeps -------------------------------------------------------------------------------------------

    def data_dir(self) -> CheckResult:
        path = self._data_dir
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            return CheckResult("fail", f"{there} is no folder that this user can write to.", "Set data_dir.")
        free = shutil.disk_usage(there).free
        if free < MIN_FREE:
            return CheckResult(
                "fail", f"Only {free // 1024**2} MiB are free in {there}.", "Make room, or set data_dir."
            )
        if there != path:
            return CheckResult("ok", f"{path} will be made.")
        status = path.stat()
        if status.st_uid != os.geteuid():
            return CheckResult(
                "warn", f"{path} belongs to user id {status.st_uid}.", "Give the gateway one of its own."
            )
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            return CheckResult("warn", f"Others can enter {path} (mode {mode:04o}).", f"Run: chmod 700 {path}")
        used = "; a gateway is using it" if self._in_use() else ""
        return CheckResult("ok", f"{path} is private{used}.")

    def store(self) -> CheckResult:
        url = self._app.store_url or f"sqlite:///{self._data_dir / 'eg.db'}"
        return CheckResult("ok", look(url, self._data_dir, self._app.environ.get("EG_STORE_KEY")))

    def files(self) -> CheckResult:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < MIN_FILES:
            return CheckResult(
                "warn",
                f"This user may open {hard} files: a client takes one or two of them.",
                "Raise the hard limit (systemd: LimitNOFILE=65536; limits.conf: nofile).",
            )
        return CheckResult("ok", f"{'Any number of' if hard == resource.RLIM_INFINITY else hard} files may be open.")

    def _in_use(self) -> bool:
        if not (self._data_dir / "gateway.lock").exists():
            return False
        try:
            with DataDirLock(self._data_dir):
                return False
        except GatewayError:
            return True
        except OSError:
            return False

    # -- what it offers ------------------------------------------------------------------------------------------

    def kernelspecs(self) -> CheckResult:
        finder = KernelspecFinder(parent=self._app)
        specs = finder.find_all()
        wrong = [f"{path}: {problem}" for path, problem in finder.problems().items()]
        wrong += [f"{spec.name}: {why}" for spec in specs.values() if (why := self._why_not(spec)) is not None]
        if not specs:
            return CheckResult(
                "fail", "There is no kernelspec.", "Run: pip install ipykernel; see `jupyter kernelspec list`."
            )
        if wrong:
            return CheckResult("warn", f"{'; '.join(wrong)}.", "`jupyter kernelspec list` says where they are.")
        return CheckResult("ok", f"{len(specs)} can be offered: {', '.join(specs)}.")

    def _why_not(self, spec: Kernelspec) -> str | None:
        if spec.backend not in self._backends:
            have = ", ".join(sorted(self._backends)) or "none"
            return f"it wants backend {spec.backend!r}, which is not here (there are: {have})"
        if spec.backend != LOCAL:
            return None
        program = spec.argv[0]
        if not _is_python(program) and shutil.which(program, path=self._app.environ.get("PATH")) is None:
            return f"it runs {program}, which is not there"
        if not any("{connection_file}" in argument for argument in spec.argv):
            return "its argv has no {connection_file}, so the kernel cannot know where to listen"
        return None

    def default_kernel(self) -> CheckResult:
        name = self._app.force_kernel_name or self._app.default_kernel_name or "python3"
        spec = KernelspecFinder(parent=self._app).get(name)  # raises in words
        why = self._why_not(spec)
        if why is not None:
            return CheckResult("fail", f"{name} cannot work: {why}.", "Set default_kernel_name.")
        return CheckResult("ok", f"{name} runs {' '.join(spec.argv)[:200]}")


def _is_python(program: str) -> bool:
    """A bare name that the launcher replaces by its own interpreter."""
    return program == "python" or (program.startswith("python3") and "/" not in program)
