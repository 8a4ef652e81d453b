"""The typed façade of the seam, and the only caller of the plugin manager's hooks.

Site hooks run on every plugin, backend hooks on the one instance that a request or handle names (core's
defaults answer where it has none). The error rule: what a plugin expects it raises as ``eg_core.errors`` and it
passes; everything else becomes "internal error" for the user and a traceback in the log, with the plugin's name.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from eg_core import aio
from eg_core.config import Plugin
from eg_core.errors import GatewayError, InvalidRequest, LaunchFailed
from eg_core.plugins import BACKEND_HOOKS, PluginError, PluginManager
from eg_core.types import (
    Check,
    CheckResult,
    Endpoint,
    GatewayInfo,
    KernelEvent,
    KernelHandle,
    KernelStatus,
    LaunchRequest,
    Liveness,
    Poll,
    ProcessInfo,
    Progress,
)

OBSERVER_TIMEOUT = 10.0
SHUTDOWN_TIMEOUT = 10.0
POLL_TIMEOUT = 60.0

Log: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"  # quoted: Python 3.10 cannot subscript it


class Hooks:
    """What the core may ask of plugins, typed."""

    def __init__(self, plugins: PluginManager, log: Log | None = None) -> None:
        self._plugins = plugins
        self._log = log or plugins.log
        self._started: list[str] = []
        self._callers = {name: self._addressed(name) for name in plugins.backend_names}

    @property
    def backends(self) -> tuple[str, ...]:
        """The names of all backend instances."""
        return self._plugins.backend_names

    # -- declare --------------------------------------------------------------------------------------------

    def doctor_checks(self) -> list[Check]:
        """Every plugin's checks; a plugin that fails to name its own has one failed check instead."""
        checks: list[Check] = []
        for name, call in self._implementations("eg_doctor_checks"):
            try:
                checks += call()
            except Exception as error:  # noqa: BLE001 - it is what the doctor is asked about
                self._log.debug("Plugin %r failed in eg_doctor_checks", name, exc_info=True)
                checks.append(_failed_check(name, error))
        return checks

    # -- site -----------------------------------------------------------------------------------------------

    async def startup(self, gateway: GatewayInfo) -> None:
        """Start all plugins; the first that fails stops those already started, and is named."""
        for name, plugin in self._plugins.pm.list_name_plugin():
            if isinstance(plugin, Plugin):
                plugin.gateway = gateway
            self._started.append(name)
            for _, call in self._implementations("eg_startup", only=plugin, gateway=gateway):
                try:
                    await call()
                except Exception as error:
                    await self.shutdown()
                    raise PluginError(f"Plugin {name!r} cannot start: {error}", detail=repr(error)) from error

    async def shutdown(self) -> None:
        """Stop what was started, last first; a failure is logged and the others still run."""
        started, self._started = self._started, []
        for name in reversed(started):
            plugin = self._plugins.plugin(name)
            for _, call in self._implementations("eg_shutdown", only=plugin):
                try:
                    await aio.within(SHUTDOWN_TIMEOUT, call())
                except Exception:  # noqa: BLE001 - contained: logged with its traceback
                    self._log.exception("Plugin %r failed to shut down", name)
            if isinstance(plugin, Plugin):
                plugin.close_threads()

    async def modify_launch(self, request: LaunchRequest) -> None:
        """Let the site edit or refuse a launch; the first refusal stands."""
        for name, call in self._implementations("eg_modify_launch", request=request):
            with self._errors(name, "eg_modify_launch", request.kernel_id):
                await call()

    async def observe_event(self, event: KernelEvent) -> None:
        """Tell everybody. Never raises."""
        for name, call in self._implementations("eg_observe_event", event=event):
            try:
                await aio.within(OBSERVER_TIMEOUT, call())
            except Exception:  # noqa: BLE001 - contained: logged with its traceback
                self._log.exception("Plugin %r failed to observe %s of kernel %s", name, event.name, event.kernel_id)

    # -- backend --------------------------------------------------------------------------------------------

    async def launch_kernel(self, request: LaunchRequest) -> AsyncGenerator[KernelHandle | Progress, None]:
        """Get a launcher running; yields each handle (store it before going on) and progress.

        Close it (``contextlib.aclosing``) when you leave early: the backend cleans up then.
        """
        with self._errors(request.backend, "eg_launch_kernel", request.kernel_id, LaunchFailed):
            steps = self._call(request.backend, "eg_launch_kernel", request=request)
            async with contextlib.aclosing(steps):
                async for step in steps:
                    if isinstance(step, KernelHandle) and (step.kernel_id, step.backend) != (
                        request.kernel_id,
                        request.backend,
                    ):
                        raise TypeError(
                            f"the handle of kernel {step.kernel_id!r} of backend {step.backend!r} was yielded"
                        )
                    if not isinstance(step, KernelHandle | Progress):
                        raise TypeError(f"yielded {type(step).__name__}, not KernelHandle or Progress")
                    yield step

    async def discover_connection(self, handle: KernelHandle) -> Endpoint:
        """Where the launcher listens."""
        with self._errors(handle.backend, "eg_discover_connection", handle.kernel_id):
            return cast("Endpoint", await self._call(handle.backend, "eg_discover_connection", handle=handle))

    async def connect_launcher(self, handle: KernelHandle, endpoint: Endpoint) -> socket.socket:
        """One connected, non-blocking stream to the launcher, without TLS."""
        with self._errors(handle.backend, "eg_connect_launcher", handle.kernel_id):
            sock = await self._call(handle.backend, "eg_connect_launcher", handle=handle, endpoint=endpoint)
            sock.setblocking(False)
            return cast("socket.socket", sock)

    async def poll_kernels(self, backend: str, handles: Sequence[KernelHandle]) -> Poll:
        """Ask a backend for all its launchers at once. A failure is UNKNOWN for all of them, never dead."""
        call = self._call(backend, "eg_poll_kernels", handles=handles)
        try:
            poll: Poll = await aio.within(POLL_TIMEOUT, call)
        except GatewayError as error:
            self._log.warning("Backend %r cannot be polled: %s", backend, error.message)
            return _all_unknown(handles, error.message)
        except Exception as error:  # noqa: BLE001 - contained: logged, and unknown is an answer
            self._log.exception("Backend %r failed in eg_poll_kernels", backend)
            return _all_unknown(handles, f"The backend {backend!r} could not be asked ({type(error).__name__}).")
        unknown = KernelStatus(Liveness.UNKNOWN, detail="The backend said nothing of this kernel.")
        return Poll({h.kernel_id: poll.statuses.get(h.kernel_id, unknown) for h in handles}, tuple(poll.strays))

    async def interrupt_kernel(self, handle: KernelHandle, process: ProcessInfo | None) -> bool:
        """Whether the backend interrupted the kernel by its own means; else ask the launcher."""
        with self._errors(handle.backend, "eg_interrupt_kernel", handle.kernel_id):
            return bool(await self._call(handle.backend, "eg_interrupt_kernel", handle=handle, process=process))

    async def kill_kernel(self, handle: KernelHandle, process: ProcessInfo | None, grace: float, reason: str) -> None:
        """Remove what is left of a kernel; idempotent."""
        with self._errors(handle.backend, "eg_kill_kernel", handle.kernel_id):
            await self._call(
                handle.backend, "eg_kill_kernel", handle=handle, process=process, grace=grace, reason=reason
            )

    # -- how --------------------------------------------------------------------------------------------------

    def _addressed(self, name: str) -> dict[str, Callable[..., Any]]:
        pm = self._plugins.pm
        others = [pm.get_plugin(other) for other in self._plugins.backend_names if other != name]
        return {hook: pm.subset_hook_caller(hook, remove_plugins=others) for hook in BACKEND_HOOKS}

    def _call(self, backend: str, hook: str, **arguments: Any) -> Any:
        callers = self._callers.get(backend)
        if callers is None:
            installed = ", ".join(sorted(self.backends)) or "none"
            raise InvalidRequest(
                f"There is no backend {backend!r} here; installed: {installed}.", reason="no_such_backend"
            )
        return callers[hook](**arguments)

    def _implementations(
        self, hook: str, *, only: object = None, **arguments: Any
    ) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Each plugin's own call in pluggy's order, one by one: failures have names, no coroutine is left over."""
        for implementation in reversed(getattr(self._plugins.pm.hook, hook).get_hookimpls()):
            if only is None or implementation.plugin is only:
                taken = {name: arguments[name] for name in implementation.argnames}
                yield implementation.plugin_name, _bind(implementation.function, taken)

    @contextlib.contextmanager
    def _errors(
        self, plugin: str, hook: str, kernel_id: str, kind: type[GatewayError] = GatewayError
    ) -> Iterator[None]:
        try:
            yield
        except GatewayError:
            raise
        except Exception as error:
            self._log.exception("Plugin %r failed in %s for kernel %s", plugin, hook, kernel_id)
            message = f"Internal error in {plugin!r} (kernel {kernel_id}); the gateway's log has the details."
            raise kind(message, reason="internal_error", detail=f"{hook}: {error!r}") from error


def _bind(function: Callable[..., Any], arguments: dict[str, Any]) -> Callable[[], Any]:
    return lambda: function(**arguments)


def _failed_check(plugin: str, error: Exception) -> Check:
    result = CheckResult("fail", f"Its checks cannot be had: {type(error).__name__}: {error}")

    async def run() -> CheckResult:
        return result

    return Check(f"{plugin}.checks", "The plugin says what can be checked", run)


def _all_unknown(handles: Sequence[KernelHandle], detail: str) -> Poll:
    return Poll({handle.kernel_id: KernelStatus(Liveness.UNKNOWN, "unreachable", None, detail) for handle in handles})
