"""Loads plugins and checks them: kinds of hooks, whole backends, known names. Strict: what is wrong stops the start.

Each entry point of the group ``eg`` is a *type*. Every type gets an instance of its own name, and every entry of
``backends`` makes one more under the entry's name, with traits of its own. A failure names plugin and distribution.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import pluggy
from traitlets import TraitError
from traitlets.config import Configurable

from eg_core import hookspecs
from eg_core.config import Plugin
from eg_core.errors import GatewayError

GROUP = "eg"
REQUIRED = ("eg_launch_kernel", "eg_poll_kernels", "eg_kill_kernel")
BACKEND_HOOKS = (*REQUIRED, "eg_discover_connection", "eg_connect_launcher", "eg_interrupt_kernel")
CORE_DEFAULTS = "core-defaults"


class PluginError(GatewayError):
    """A plugin cannot be used as it is installed or configured."""

    reason = "plugin"


@dataclass(frozen=True)
class _Type:
    """A kind of plugin: how to get its class, and whom to name when that fails."""

    name: str
    origin: str
    load: Callable[[], Any]


class PluginManager:
    """All plugins of one gateway, registered and checked.

    ``backends`` maps an instance's name to its type and traits. ``entry_points`` and ``environ`` are what is
    installed and the process's environment unless given.
    """

    def __init__(
        self,
        *,
        backends: Mapping[str, Mapping[str, Any]] | None = None,
        parent: Configurable | None = None,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        entry_points: Iterable[metadata.EntryPoint] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log or logging.getLogger(__name__)
        self.pm = pluggy.PluginManager(hookspecs.PROJECT)
        self.pm.add_hookspecs(hookspecs)
        self._parent = parent
        self._environ = dict(os.environ if environ is None else environ)
        self._backends: list[str] = []
        # by path, not by import: the layer of built-in plugins is beside this one, not below it
        self.register(_load_reference("eg_core.builtin.defaults:Defaults")(), CORE_DEFAULTS, "eg-core")
        types = _installed_types(metadata.entry_points(group=GROUP) if entry_points is None else entry_points)
        instances: dict[str, tuple[_Type, dict[str, Any]]] = {name: (kind, {}) for name, kind in types.items()}
        for name, entry in (backends or {}).items():
            instances[name] = _named_instance(name, entry, types)
        for name, (kind, settings) in instances.items():
            self.register(self._instantiate(name, kind, settings), name, kind.origin)
        try:
            self.pm.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"Plugin {self._describe(error.plugin)}: unknown hook: {error}") from error

    @property
    def backend_names(self) -> tuple[str, ...]:
        """The names of all backend instances, in the order of their registration."""
        return tuple(self._backends)

    def register(self, plugin: object, name: str, origin: str) -> None:
        """Register one instance after checking it. ``origin`` is the distribution, for messages."""
        where = f"{name!r} ({origin})"
        try:
            self.pm.register(plugin, name=name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"Plugin {where}: {error}") from error
        implemented = self._check_kinds(plugin, where)
        if name == CORE_DEFAULTS or not implemented.intersection(BACKEND_HOOKS):
            return
        missing = [hook for hook in REQUIRED if hook not in implemented]
        if missing:
            raise PluginError(f"Plugin {where} is half a backend: it lacks {', '.join(missing)}.")
        self._backends.append(name)

    def plugin(self, name: str) -> object:
        """The instance of that name; KeyError if there is none."""
        plugin = self.pm.get_plugin(name)
        if plugin is None:
            raise KeyError(name)
        return plugin

    def _check_kinds(self, plugin: object, where: str) -> set[str]:
        implemented: set[str] = set()
        for caller in self.pm.get_hookcallers(plugin) or ():
            implementation = next(i for i in caller.get_hookimpls() if i.plugin is plugin)
            implemented.add(caller.name)
            if caller.spec is None:
                continue  # an unknown name: check_pending refuses it
            expected, found = _kind_of_spec(caller.spec.function), _kind(implementation.function)
            if implementation.wrapper or implementation.hookwrapper:
                raise PluginError(f"Plugin {where}: {caller.name} is a wrapper; awaited hooks cannot be wrapped.")
            if expected != found:
                raise PluginError(f"Plugin {where}: {caller.name} must be {expected}, not {found}.")
        return implemented

    def _instantiate(self, name: str, kind: _Type, settings: dict[str, Any]) -> object:
        where = f"{name!r} ({kind.origin})"
        try:
            loaded = kind.load()
            if not isinstance(loaded, type):
                if settings:
                    raise PluginError(f"Plugin {where} is no class: it cannot be configured by instance.")
                return loaded
            if not issubclass(loaded, Plugin):
                return loaded(**settings)
            unknown = sorted(set(settings) - set(loaded.class_trait_names(config=True)))
            if unknown:
                known = ", ".join(sorted(loaded.class_trait_names(config=True)))
                raise PluginError(f"Backend {where} has no setting {', '.join(unknown)}; it knows: {known}.")
            plugin = loaded(parent=self._parent, name=name, log=self.log, **settings)
        except PluginError:
            raise
        except TraitError as error:
            raise PluginError(f"Backend {where}: {error}") from error
        except Exception as error:
            raise PluginError(f"Plugin {where} cannot be loaded: {type(error).__name__}: {error}") from error
        plugin.environ = self._environ
        return plugin

    def _describe(self, plugin: object) -> str:
        return repr(self.pm.get_name(plugin) or plugin)


def plugin_classes() -> list[type[Plugin]]:
    """The configurable classes of what is installed, for the help. What cannot be loaded is refused when serving."""
    classes: list[type[Plugin]] = []
    for kind in _installed_types(metadata.entry_points(group=GROUP)).values():
        try:
            loaded = kind.load()
        except Exception as error:  # noqa: BLE001 - the help must come, whatever a plugin does
            logging.getLogger(__name__).warning("Plugin %r (%s) cannot be loaded: %s", kind.name, kind.origin, error)
            continue
        if isinstance(loaded, type) and issubclass(loaded, Plugin):
            classes.append(loaded)
    return classes


def _installed_types(entry_points: Iterable[metadata.EntryPoint]) -> dict[str, _Type]:
    types: dict[str, _Type] = {}
    for entry in sorted(entry_points, key=lambda e: e.name):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
        other = types.get(entry.name)
        if other is not None and other.origin != origin:
            raise PluginError(f"Plugin {entry.name!r} is installed twice: by {other.origin} and by {origin}.")
        types[entry.name] = _Type(entry.name, origin, entry.load)
    return types


def _named_instance(name: str, entry: Mapping[str, Any], types: Mapping[str, _Type]) -> tuple[_Type, dict[str, Any]]:
    """The type and traits of one entry of ``backends``. A type may also be ``module:Class``, for a site's own."""
    if not isinstance(entry.get("type", name), str):
        raise PluginError(f'Backend {name!r}: say {{"type": "…", …}}.')
    wanted = entry.get("type", name)
    kind = types.get(wanted)
    if kind is None and ":" in wanted:
        kind = _Type(wanted, wanted, lambda: _load_reference(wanted))
    if kind is None:
        installed = ", ".join(sorted(types)) or "none"
        raise PluginError(f"Backend {name!r}: there is no type {wanted!r}; installed: {installed}.")
    return kind, {key: value for key, value in entry.items() if key != "type"}


def _load_reference(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    loaded: ModuleType = importlib.import_module(module)
    return getattr(loaded, attribute)


def _kind(function: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(function):
        return "an async generator"
    return "async def" if inspect.iscoroutinefunction(function) else "def"


def _kind_of_spec(function: Callable[..., Any]) -> str:
    """A specification has no body, so an async generator shows in what it returns."""
    returns = str(inspect.signature(function).return_annotation)
    return "an async generator" if "AsyncIterator[" in returns else _kind(function)
