"""The application: reads the configuration, builds every layer, serves, and lets go of what runs when it ends.

The only module that knows all layers, and (with ``kernels/env``) the only one that reads the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_core.application import JupyterApp, base_aliases, base_flags
from jupyter_core.paths import jupyter_data_dir
from tornado.httpserver import HTTPServer
from traitlets import Bool, Dict, Float, Integer, TraitError, Unicode, validate
from traitlets import List as ListTrait

from eg_core import __version__
from eg_core.errors import GatewayError
from eg_core.handlers.leg import Switchboard
from eg_core.handlers.routes import application
from eg_core.hooks import Hooks
from eg_core.kernels.launchers import Launchers
from eg_core.kernels.reconciler import Reconciler
from eg_core.kernels.registry import KernelRegistry, Settings
from eg_core.kernels.requests import Composer
from eg_core.kernels.states import KernelState
from eg_core.kernelspecs.finder import KernelspecFinder
from eg_core.launchers.credentials import CertificateAuthority
from eg_core.listening import DataDirLock, bind, is_loopback
from eg_core.logs import RequestLog
from eg_core.metrics import KernelCount, Metrics, Watched
from eg_core.options.watching import WatchingOptions
from eg_core.plugins import PluginError, PluginManager, plugin_classes
from eg_core.store.keys import load_key
from eg_core.store.store import Store
from eg_core.types import GatewayInfo

END_TIMEOUT = 15.0
CLOSE_TIMEOUT = 2.0
"""Seconds in which clients take their Close frames when the gateway ends."""
CONFIRM_WITHIN = 5.0


def _flag(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on")


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


ENVIRONMENT: dict[str, tuple[str, Any]] = {
    "PORT": ("port", int),
    "PORT_RETRIES": ("port_retries", int),
    "IP": ("ip", str),
    "BASE_URL": ("base_url", str),
    "AUTH_TOKEN": ("auth_token", str),
    "LIST_KERNELS": ("list_kernels", _flag),
    "DEFAULT_KERNEL_NAME": ("default_kernel_name", str),
    "CLIENT_ENVS": ("client_envs", _names),
    "INHERITED_ENVS": ("inherited_envs", _names),
    "KERNEL_LAUNCH_TIMEOUT": ("kernel_launch_timeout", float),
    "DATA_DIR": ("data_dir", str),
    "STORE_URL": ("store_url", str),
    "KEEP_KERNELS": ("keep_kernels", _flag),
    "LOG_FORMAT": ("log_format", str),
    "AUTHENTICATE_PROMETHEUS": ("authenticate_prometheus", _flag),
}
"""``EG_*`` variables (``KG_*`` where there is no ``EG_*``): defaults below the configuration file and command line."""


class EnterpriseGatewayApp(WatchingOptions, JupyterApp):
    """Starts Jupyter kernels through backend plugins and carries their channels to Jupyter clients."""

    name = "jupyter-enterprise-gateway"
    version = __version__
    description = __doc__ or ""
    examples = """
EG_AUTH_TOKEN=… eg serve --port 8888            # local kernels, on this machine only
    eg serve --help-all                             # every option, the installed backends' included
    """
    aliases = {  # noqa: RUF012 - traitlets' own convention
        **base_aliases,
        "ip": "EnterpriseGatewayApp.ip",
        "port": "EnterpriseGatewayApp.port",
        "port_retries": "EnterpriseGatewayApp.port_retries",
        "base-url": "EnterpriseGatewayApp.base_url",
        "data-dir": "EnterpriseGatewayApp.data_dir",
    }
    flags = {  # noqa: RUF012 - traitlets' own convention
        **base_flags,
        "keep-kernels": (
            {"EnterpriseGatewayApp": {"keep_kernels": True}},
            "Kernels live on without a gateway for as long as it takes.",
        ),
    }

    ip = Unicode("127.0.0.1", help="Address to listen on (EG_IP).").tag(config=True)
    port = Integer(8888, help="Port to listen on; 0 is any (EG_PORT).").tag(config=True)
    port_retries = Integer(50, help="How many further ports to try (EG_PORT_RETRIES).").tag(config=True)
    base_url = Unicode("/", help="Where the API is mounted (EG_BASE_URL).").tag(config=True)
    auth_token = Unicode(
        "", help="Token that clients must give; set it by EG_AUTH_TOKEN, not on the command line."
    ).tag(config=True)
    allow_unauthenticated = Bool(
        False, help="Serve without a token even on an address that other machines can reach."
    ).tag(config=True)
    list_kernels = Bool(True, help="Allow GET /api/kernels; JupyterLab needs it (EG_LIST_KERNELS).").tag(config=True)
    default_kernel_name = Unicode("python3", help="Kernelspec for requests that name none.").tag(config=True)
    client_envs = ListTrait(
        Unicode(), help="Variables clients may set besides KERNEL_*; '*' is all (EG_CLIENT_ENVS)."
    ).tag(config=True)
    inherited_envs = ListTrait(
        Unicode(), help="Variables of the gateway's own environment that kernels get (EG_INHERITED_ENVS)."
    ).tag(config=True)
    backends = Dict(
        help='Named backends: {"gpu-eu": {"type": "kubernetes", …}}. Each installed type is also one of its own name.'
    ).tag(config=True)
    kernel_launch_timeout = Float(
        3600.0, help="Seconds a launch may take; a kernelspec's metadata.eg.launch_timeout wins."
    ).tag(config=True)
    dead_kernel_ttl = Float(600.0, help="Seconds a dead kernel's model stays, with the reason.").tag(config=True)
    poll_interval = Float(10.0, help="Seconds between two looks at what really runs.").tag(config=True)
    keep_kernels = Bool(
        False, help="Kernels on this machine live on without a gateway for ever, whatever the lease (EG_KEEP_KERNELS)."
    ).tag(config=True)
    lease = Float(
        Settings.lease, help="Seconds that kernels on this machine live on without a gateway, unless keep_kernels."
    ).tag(config=True)
    data_dir = Unicode(
        help="Folder of the store and its key; default: one per port in Jupyter's data folder (EG_DATA_DIR)."
    ).tag(config=True)
    store_url = Unicode(help="SQLAlchemy URL of the store; default: SQLite in data_dir (EG_STORE_URL).").tag(
        config=True
    )

    classes = [KernelspecFinder]  # noqa: RUF012 - traitlets' own convention

    @validate("base_url")
    def _valid_base_url(self, proposal: Any) -> str:
        return "/" + "".join(f"{part}/" for part in proposal["value"].split("/") if part)

    @validate("kernel_launch_timeout", "dead_kernel_ttl", "poll_interval", "lease")
    def _positive(self, proposal: Any) -> float:
        value = float(proposal["value"])
        if value <= 0:
            raise TraitError(f"{proposal['trait'].name} must be more than 0 seconds, not {value:g}.")
        return value

    def initialize(self, argv: list[str] | None = None) -> None:
        self.environ = dict(os.environ)
        self.classes = [*self.classes, *plugin_classes()]
        super().initialize(argv)
        set_by_hand = self.config.get(type(self).__name__, {})
        for variable, (trait, cast) in ENVIRONMENT.items():
            value = self.environ.get(f"EG_{variable}") or self.environ.get(f"KG_{variable}")
            if value is None or trait in set_by_hand:
                continue
            try:
                setattr(self, trait, cast(value))
            except (ValueError, TraitError) as error:
                self._refuse(f"EG_{variable}: {error}")

    def start(self) -> None:
        super().start()
        if not self.auth_token and not is_loopback(self.ip) and not self.allow_unauthenticated:
            self._refuse(
                f"No token is set and {self.ip} can be reached from other machines: anybody could run code as "
                f"{getpass.getuser()}. Set EG_AUTH_TOKEN, listen on 127.0.0.1, or say "
                "--EnterpriseGatewayApp.allow_unauthenticated=True."
            )
        if not self.auth_token:
            self.log.warning("No token is set (EG_AUTH_TOKEN): every user of this machine can run code as you.")
        try:
            asyncio.run(self._serve())
        except (GatewayError, PluginError, OSError) as error:
            self._refuse(str(error))

    def _refuse(self, why: str) -> None:
        self.log.critical("%s", why)
        self.exit(1)

    # -- serving ---------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        sockets = bind(self.ip, self.port, self.port_retries)
        port = sockets[0].getsockname()[1]
        with contextlib.ExitStack() as stack:
            data_dir = self._open_data_dir(port, stack)
            async with contextlib.AsyncExitStack() as layers:
                board = Switchboard()
                layers.callback(board.close)
                layers.push_async_callback(board.drained, CLOSE_TIMEOUT)
                metrics = Metrics()
                registry, gateway_id = await self._build(data_dir, layers, metrics)
                metrics.watch(_watched(registry, board))
                registry.spawn(metrics.watch_loop())
                server = HTTPServer(
                    self._application(registry, gateway_id, board, metrics),
                    max_header_size=64 * 1024,
                    max_body_size=1024 * 1024,
                    body_timeout=30.0,
                )
                server.add_sockets(sockets)
                layers.push_async_callback(server.close_all_connections)
                layers.callback(server.stop)
                url = f"http://{_in_url(self.ip)}:{port}{self.base_url}"
                self.log.info("Jupyter Enterprise Gateway %s is available at %s", __version__, url)
                if await self._until_told(registry):
                    self.log.info("ending all kernels")
                    await registry.end_all(END_TIMEOUT)

    def _open_data_dir(self, port: int, stack: contextlib.ExitStack) -> Path:
        data_dir = Path(self.data_dir or Path(jupyter_data_dir()) / "enterprise_gateway" / str(port)).expanduser()
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.store_url or self.store_url.startswith("sqlite"):
            stack.enter_context(DataDirLock(data_dir))
        return data_dir

    async def _build(
        self, data_dir: Path, layers: contextlib.AsyncExitStack, metrics: Metrics
    ) -> tuple[KernelRegistry, str]:
        plugins = PluginManager(backends=dict(self.backends), parent=self, log=self.log, environ=self.environ)
        hooks = Hooks(plugins, self.log)
        store = Store(
            self.store_url or f"sqlite:///{data_dir / 'eg.db'}", load_key(data_dir, self.environ.get("EG_STORE_KEY"))
        )
        gateway_id = await store.open()
        layers.push_async_callback(store.close)
        authority = CertificateAuthority.from_pem(await store.secret("ca", CertificateAuthority.create))
        await hooks.startup(GatewayInfo(gateway_id=gateway_id, version=__version__, data_dir=data_dir))
        layers.push_async_callback(hooks.shutdown)
        settings = Settings(
            launch_timeout=self.kernel_launch_timeout,
            poll_interval=self.poll_interval,
            dead_ttl=self.dead_kernel_ttl,
            lease=0.0 if self.keep_kernels else self.lease,
        )
        launchers = Launchers(store=store, hooks=hooks, authority=authority, lease=settings.lease, log=self.log)
        registry = KernelRegistry(
            store=store, hooks=hooks, launchers=launchers, settings=settings, metrics=metrics, log=self.log
        )
        await registry.open()
        layers.push_async_callback(registry.close)
        for backend in hooks.backends:
            registry.spawn(Reconciler(registry, backend).run())
        return registry, gateway_id

    def _application(self, registry: KernelRegistry, gateway_id: str, board: Switchboard, metrics: Metrics) -> Any:
        finder = KernelspecFinder(parent=self)
        composer = Composer(
            finder=finder,
            default_kernel_name=self.default_kernel_name,
            user=getpass.getuser(),
            inherited_envs=frozenset(self.inherited_envs),
            client_envs=frozenset(self.client_envs),
            environ=self.environ,
        )
        return application(
            self.base_url,
            registry=registry,
            finder=finder,
            composer=composer,
            gateway_id=gateway_id,
            switchboard=board,
            auth_token=self.auth_token,
            list_kernels=self.list_kernels,
            metrics=metrics,
            authenticate_prometheus=self.authenticate_prometheus,
            log=self.log,
            log_function=RequestLog(self.log, metrics.http),
        )

    async def _until_told(self, registry: KernelRegistry) -> bool:
        """Wait for a signal. True: end the kernels too (Ctrl-C, confirmed when a terminal is there to confirm)."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bool] = loop.create_future()
        asked_at = 0.0

        def say(end_kernels: bool) -> None:
            if not told.done():
                told.set_result(end_kernels)

        def interrupted() -> None:
            nonlocal asked_at
            running, now = len(registry.kernels()), time.monotonic()
            if running == 0 or not sys.stdin.isatty() or now - asked_at < CONFIRM_WITHIN:
                say(True)
                return
            asked_at = now
            self.log.warning("%d kernels are running. Ctrl-C again within %g s ends them.", running, CONFIRM_WITHIN)

        loop.add_signal_handler(signal.SIGTERM, say, False)
        loop.add_signal_handler(signal.SIGINT, interrupted)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        return await told


def _watched(registry: KernelRegistry, board: Switchboard) -> Watched:
    """What the metrics ask of the layers when somebody looks."""
    return Watched(
        states=tuple(state.value for state in KernelState),
        kernels=lambda: (
            KernelCount(kernel.state.value, kernel.record.backend, len(kernel.sockets))
            for kernel in registry.all_kernels()
        ),
        traffic=lambda: (board.to_clients, board.to_launchers),
    )


def _in_url(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
