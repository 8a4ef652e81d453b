"""The application: reads the configuration, builds every layer, serves, and lets go of what runs when it ends.

The only module that knows all layers, and (with ``kernels/env``) the only one that reads the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
from pathlib import Path
from typing import Any

from jupyter_core.application import base_aliases, base_flags
from jupyter_core.paths import jupyter_data_dir
from tornado.web import Application
from traitlets import TraitError

from eg_core import __version__
from eg_core.ending import EndSignals
from eg_core.errors import GatewayError
from eg_core.handlers.cors import Cors
from eg_core.handlers.draining import drain
from eg_core.handlers.leg import PING_EVERY, Switchboard
from eg_core.handlers.routes import application
from eg_core.handlers.server import make_server
from eg_core.hooks import Hooks
from eg_core.kernels.access import Access
from eg_core.kernels.culling import Culler
from eg_core.kernels.launchers import Launchers
from eg_core.kernels.reconciler import Reconciler
from eg_core.kernels.registry import KernelRegistry
from eg_core.kernels.requests import Composer
from eg_core.kernels.settings import Settings
from eg_core.kernels.states import KernelState
from eg_core.kernelspecs.finder import KernelspecFinder
from eg_core.launchers.credentials import CertificateAuthority
from eg_core.listening import DataDirLock, bind, inherited, is_loopback, raise_file_limit
from eg_core.logs import RequestLog
from eg_core.metrics import KernelCount, Metrics, Watched
from eg_core.options.access import AccessOptions
from eg_core.options.configured import ConfiguredApp
from eg_core.options.culling import CullingOptions, LimitOptions
from eg_core.options.journal import JournalOptions
from eg_core.options.kernels import KernelOptions
from eg_core.options.reload import Reloader
from eg_core.options.watching import WatchingOptions
from eg_core.options.web import WebOptions
from eg_core.plugins import PluginError, PluginManager, plugin_classes
from eg_core.store.keys import load_key
from eg_core.store.store import Store
from eg_core.tls import server_context
from eg_core.types import GatewayInfo

END_TIMEOUT = 15.0
CLOSE_TIMEOUT = 2.0
"""Seconds in which clients take their Close frames when the gateway ends."""


class EnterpriseGatewayApp(
    WebOptions,
    AccessOptions,
    KernelOptions,
    CullingOptions,
    LimitOptions,
    JournalOptions,
    WatchingOptions,
    ConfiguredApp,
):
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
        "certfile": "EnterpriseGatewayApp.certfile",
        "keyfile": "EnterpriseGatewayApp.keyfile",
        "client-ca": "EnterpriseGatewayApp.client_ca",
        "ssl_version": "EnterpriseGatewayApp.ssl_version",
        "data-dir": "EnterpriseGatewayApp.data_dir",
    }
    flags = {  # noqa: RUF012 - traitlets' own convention
        **base_flags,
        "keep-kernels": (
            {"EnterpriseGatewayApp": {"keep_kernels": True}},
            "Kernels live on without a gateway for as long as it takes.",
        ),
    }

    _sockets: tuple[socket.socket, ...] = ()
    classes = [KernelspecFinder]  # noqa: RUF012 - traitlets' own convention

    def initialize(self, argv: list[str] | None = None) -> None:
        self.environ = dict(os.environ)
        self.classes = [*self.classes, *plugin_classes()]
        try:
            super().initialize(argv)
            for warning in self.finish_configuration():
                self.log.warning("%s", warning)
        except (GatewayError, TraitError, ValueError) as error:
            self._refuse(str(error))
        except Exception as error:  # noqa: BLE001 - a configuration file is a program, and may do anything
            self._refuse(f"The configuration cannot be used: {type(error).__name__}: {error}")

    def start(self) -> None:
        super().start()
        try:
            self._sockets = inherited(self.environ)
        except GatewayError as error:
            self._refuse(str(error))
        open_to_others = [ip for ip in self._addresses() if not is_loopback(ip)]
        if open_to_others and not self.auth_token and not self.allow_unauthenticated:
            self._refuse(
                f"No token is set and {open_to_others[0]} can be reached from other machines: anybody could run code "
                f"as {getpass.getuser()}. Set EG_AUTH_TOKEN, listen on 127.0.0.1, or say "
                "--EnterpriseGatewayApp.allow_unauthenticated=True."
            )
        if not self.auth_token:
            self.log.warning("No token is set (EG_AUTH_TOKEN): every user of this machine can run code as you.")
        try:
            asyncio.run(self._serve())
        except GatewayError as error:
            self._refuse(f"{error.message} ({error.detail})" if error.detail else error.message)
        except (PluginError, OSError) as error:
            self._refuse(str(error))

    def _refuse(self, why: str) -> None:
        self.log.critical("%s", why)
        self.exit(1)

    def _addresses(self) -> list[str]:
        """What it listens on: the sockets that it was given, else the configured address."""
        return [sock.getsockname()[0] for sock in self._sockets] or [self.ip]

    # -- serving ---------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        tls = server_context(
            certfile=self.certfile, keyfile=self.keyfile, client_ca=self.client_ca, ssl_version=self.ssl_version
        )
        raise_file_limit()
        sockets = self._sockets or bind(self.ip, self.port, self.port_retries)
        port, address = sockets[0].getsockname()[1], self._addresses()[0]
        with contextlib.ExitStack() as stack:
            data_dir = self._open_data_dir(port, stack)
            async with contextlib.AsyncExitStack() as layers:
                metrics = Metrics()
                board = Switchboard(min(PING_EVERY, self.ws_ping_interval or PING_EVERY), metrics)
                layers.callback(board.close)
                layers.push_async_callback(board.drained, CLOSE_TIMEOUT)
                registry, gateway_id = await self.build(data_dir, layers, metrics)
                metrics.watch(_watched(registry, board))
                registry.spawn(metrics.watch_loop())
                finder = KernelspecFinder(parent=self)
                registry.spawn(Culler(registry, finder.metadata).run())
                web = self._application(registry, finder, gateway_id, board, metrics)
                server = make_server(web, tls=tls, trust_xheaders=self.trust_xheaders)
                server.add_sockets(sockets)
                layers.push_async_callback(server.close_all_connections)
                layers.callback(server.stop)
                if self.dynamic_config_interval:
                    registry.spawn(Reloader(self, [finder], lambda: self._take_over(registry, finder, web)).run())
                url = f"http{'s' if tls else ''}://{_in_url(address)}:{port}{self.base_url}"
                self.log.info("Jupyter Enterprise Gateway %s is available at %s", __version__, url)
                signals = EndSignals(lambda: len(registry.kernels()), self.log)
                await self._end(registry, signals, with_kernels=await signals.wait())

    async def _end(self, registry: KernelRegistry, signals: EndSignals, *, with_kernels: bool) -> None:
        """In order, and not too long; told once more, at once."""
        if with_kernels:
            self.log.info("ending all kernels")
            await registry.end_all(END_TIMEOUT)
            return
        self.log.info("no launches any more; channels are closed when they are quiet (%g s)", self.drain_timeout)
        ends = [asyncio.ensure_future(work) for work in (drain(registry), signals.hurry())]
        await asyncio.wait(ends, timeout=self.drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)

    def data_folder(self, port: int) -> Path:
        return Path(self.data_dir or Path(jupyter_data_dir()) / "enterprise_gateway" / str(port)).expanduser()

    def _open_data_dir(self, port: int, stack: contextlib.ExitStack) -> Path:
        data_dir = self.data_folder(port)
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.store_url or self.store_url.startswith("sqlite"):
            stack.enter_context(DataDirLock(data_dir))
        return data_dir

    async def build(
        self, data_dir: Path, layers: contextlib.AsyncExitStack, metrics: Metrics
    ) -> tuple[KernelRegistry, str]:
        """Everything but the web, over ``data_dir``; ``layers`` takes it down again."""
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
        settings = self._settings()
        launchers = Launchers(store=store, hooks=hooks, authority=authority, lease=settings.lease, log=self.log)
        registry = KernelRegistry(
            store=store, hooks=hooks, launchers=launchers, settings=settings, metrics=metrics, log=self.log
        )
        await registry.open()
        layers.push_async_callback(registry.close)
        for backend in hooks.backends:
            registry.spawn(Reconciler(registry, backend).run())
        return registry, gateway_id

    def _settings(self) -> Settings:
        return Settings(
            launch_timeout=self.kernel_launch_timeout,
            poll_interval=self.poll_interval,
            dead_ttl=self.dead_kernel_ttl,
            lease=0.0 if self.keep_kernels else self.lease,
            max_kernels=self.max_kernels,
            max_kernels_per_user=None if self.max_kernels_per_user < 0 else self.max_kernels_per_user,
            culling=self.cull_policy(),
            cull_interval=self.cull_interval,
            limits=self.limits(),
            journal=self.journal(),
        )

    def _application(
        self,
        registry: KernelRegistry,
        finder: KernelspecFinder,
        gateway_id: str,
        board: Switchboard,
        metrics: Metrics,
    ) -> Application:
        return application(
            self.base_url,
            registry=registry,
            finder=finder,
            gateway_id=gateway_id,
            switchboard=board,
            metrics=metrics,
            log=self.log,
            log_function=RequestLog(self.log, metrics.http),
            **self.web_settings(finder),
        )

    def web_settings(self, finder: KernelspecFinder) -> dict[str, Any]:
        """What the handlers read from the options, and what changes with them."""
        access = Access(frozenset(self.authorized_users), frozenset(self.unauthorized_users))
        composer = Composer(
            finder=finder,
            default_kernel_name=self.default_kernel_name or "python3",
            user=getpass.getuser(),
            inherited_envs=frozenset(self.inherited_envs),
            client_envs=frozenset(self.client_envs),
            environ=self.environ,
            access=access,
            force_kernel_name=self.force_kernel_name,
            root_dir=self.root_dir,
        )
        cors = Cors(
            allow_origin=self.allow_origin,
            allow_credentials=self.allow_credentials,
            allow_headers=self.allow_headers,
            allow_methods=self.allow_methods,
            expose_headers=self.expose_headers,
            max_age=self.max_age,
        )
        return {
            "composer": composer,
            "cors": cors,
            "auth_token": self.auth_token,
            "own_names_only": self.own_names_only,
            "authorized_origin": self.authorized_origin,
            "list_kernels": self.list_kernels,
            "authenticate_prometheus": self.authenticate_prometheus,
            "launch_wait": self.launch_wait,
        }

    def _take_over(self, registry: KernelRegistry, finder: KernelspecFinder, web: Application) -> None:
        """Hand changed options to the layers that run."""
        registry.settings = self._settings()
        web.settings.update(self.web_settings(finder))


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
