import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path

import pytest

from eg_core.errors import BackendUnavailable, GatewayError, InvalidRequest, LaunchDenied, LaunchFailed
from eg_core.hooks import Hooks
from eg_core.hookspecs import hookimpl
from eg_core.plugins import PluginError, PluginManager
from eg_core.types import (
    Check,
    CheckResult,
    Endpoint,
    GatewayInfo,
    KernelEvent,
    KernelHandle,
    KernelStart,
    KernelStatus,
    LauncherFiles,
    LaunchRequest,
    Liveness,
    Poll,
    Progress,
)

GATEWAY = GatewayInfo("g", "0", Path("/nowhere"))
EVENT = KernelEvent("launched", "k", "python3", "a", "ann", 0.0)


def request(backend="a"):
    return LaunchRequest(
        kernel_id="k",
        kernelspec="python3",
        backend=backend,
        owner="ann",
        run_as=None,
        options={},
        labels={},
        deadline=time.monotonic() + 5,
        kernel=KernelStart(["python"], {}),
        launcher=LauncherFiles("l", (), "{}", 5.0),
    )


class Backend:
    def __init__(self, name="a", calls=None):
        self.name = name
        self.calls = calls if calls is not None else []
        self.failure = None

    def _note(self, what):
        self.calls.append((self.name, what))
        if self.failure is not None:
            raise self.failure

    @hookimpl
    async def eg_launch_kernel(self, request):
        self._note("launch")
        try:
            yield KernelHandle(request.kernel_id, "l", self.name, {"endpoint": {"path": "/s"}})
            yield Progress("half way")
            self._note("launched")
        finally:
            self.calls.append((self.name, "left"))

    @hookimpl
    async def eg_poll_kernels(self, handles):
        self._note("poll")
        return Poll({handles[0].kernel_id: KernelStatus(Liveness.RUNNING)})

    @hookimpl
    async def eg_kill_kernel(self, handle, grace):
        self._note(f"kill {grace:g}")


class Site:
    def __init__(self, name, calls, failure=None):
        self.name, self.calls, self.failure = name, calls, failure

    async def _note(self, what):
        self.calls.append((self.name, what))
        if self.failure is not None:
            raise self.failure

    @hookimpl
    async def eg_startup(self, gateway):
        await self._note(f"startup {gateway.gateway_id}")

    @hookimpl
    async def eg_shutdown(self):
        await self._note("shutdown")

    @hookimpl
    async def eg_modify_launch(self, request):
        request.labels[self.name] = "was here"
        await self._note("modify")

    @hookimpl
    async def eg_observe_event(self, event):
        await self._note(event.name)


def make(*plugins):
    manager = PluginManager(entry_points=[], environ={}, log=logging.getLogger("test"))
    for plugin in plugins:
        manager.register(plugin, plugin.name, "test")
    return Hooks(manager)


async def take(hooks, wanted, limit=None):
    steps = []
    async with contextlib.aclosing(hooks.launch_kernel(wanted)) as launch:
        async for step in launch:
            steps.append(step)
            if limit is not None and len(steps) == limit:
                break
    return steps


async def test_only_the_addressed_backend_is_called():
    calls = []
    hooks = make(Backend("a", calls), Backend("b", calls))
    handle, progress = await take(hooks, request("b"))
    assert handle.backend == "b"
    assert progress == Progress("half way")
    await hooks.kill_kernel(handle, None, 2, "shutdown")
    assert {name for name, _ in calls} == {"b"}
    assert hooks.backends == ("a", "b")


async def test_defaults_answer_where_the_backend_does_not():
    hooks = make(Backend("a"))
    handle = KernelHandle("k", "l", "a", {"endpoint": {"host": "h", "port": 1}})
    assert await hooks.discover_connection(handle) == Endpoint(host="h", port=1)
    assert await hooks.interrupt_kernel(handle, None) is False


async def test_a_backends_own_answer_comes_before_the_default():
    class Own(Backend):
        @hookimpl
        async def eg_discover_connection(self, handle):
            return Endpoint(path="/mine")

    hooks = make(Own("a"))
    assert await hooks.discover_connection(KernelHandle("k", "l", "a")) == Endpoint(path="/mine")


@pytest.mark.parametrize("state", [{}, {"endpoint": None}, {"endpoint": {"host": "h", "port": "1"}}, {"endpoint": []}])
async def test_an_unknown_endpoint_is_said(state):
    with pytest.raises(BackendUnavailable, match="not known yet"):
        await make(Backend("a")).discover_connection(KernelHandle("k", "l", "a", state))


async def test_an_unknown_backend_is_refused_and_the_installed_are_named():
    hooks = make(Backend("a"), Backend("b"))
    with pytest.raises(InvalidRequest, match="no backend 'c' here; installed: a, b"):
        await take(hooks, request("c"))
    with pytest.raises(InvalidRequest, match="no backend 'c'"):
        await hooks.kill_kernel(KernelHandle("k", "l", "c"), None, 0, "x")


async def test_leaving_a_launch_early_lets_the_backend_clean_up():
    calls = []
    await take(make(Backend("a", calls)), request(), limit=1)
    assert calls == [("a", "launch"), ("a", "left")]


async def test_expected_errors_pass_and_others_become_internal(caplog):
    backend = Backend("a")
    hooks = make(backend)
    backend.failure = LaunchFailed("the queue is closed", reason="queue")
    with pytest.raises(LaunchFailed, match="the queue is closed"):
        await take(hooks, request())
    backend.failure = KeyError("s3cret detail")
    with pytest.raises(LaunchFailed) as caught:
        await take(hooks, request())
    assert caught.value.reason == "internal_error"
    assert "kernel k" in caught.value.message
    assert "s3cret" not in caught.value.message
    with pytest.raises(GatewayError, match="Internal error"):
        await hooks.kill_kernel(KernelHandle("k", "l", "a"), None, 0, "x")
    assert "'a' failed in eg_launch_kernel for kernel k" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("wrong", [KernelHandle("other", "l", "a"), KernelHandle("k", "l", "b"), "text"])
async def test_a_step_that_is_not_of_this_launch_is_refused(wrong):
    class Wrong(Backend):
        @hookimpl
        async def eg_launch_kernel(self, request):
            yield wrong

    with pytest.raises(LaunchFailed, match="Internal error"):
        await take(make(Wrong("a")), request())


@pytest.mark.parametrize("failure", [RuntimeError("boom"), BackendUnavailable("away")])
async def test_a_failing_poll_is_unknown_for_all_never_dead(failure):
    backend = Backend("a")
    backend.failure = failure
    poll = await make(backend).poll_kernels("a", [KernelHandle("k", "l", "a"), KernelHandle("m", "l", "a")])
    assert {status.state for status in poll.statuses.values()} == {Liveness.UNKNOWN}
    assert set(poll.statuses) == {"k", "m"}


async def test_what_a_poll_leaves_out_is_unknown():
    poll = await make(Backend("a")).poll_kernels("a", [KernelHandle("k", "l", "a"), KernelHandle("m", "l", "a")])
    assert poll.statuses["k"].state is Liveness.RUNNING
    assert poll.statuses["m"].state is Liveness.UNKNOWN


async def test_sites_are_started_in_order_and_stopped_in_reverse():
    calls = []
    hooks = make(Site("one", calls), Site("two", calls))
    await hooks.startup(GATEWAY)
    await hooks.shutdown()
    await hooks.shutdown()
    assert calls == [("one", "startup g"), ("two", "startup g"), ("two", "shutdown"), ("one", "shutdown")]


async def test_a_failing_start_names_the_plugin_and_stops_the_others():
    calls = []
    hooks = make(Site("one", calls), Site("bad", calls, OSError("no daemon")), Site("three", calls))
    with pytest.raises(PluginError, match="'bad' cannot start: no daemon"):
        await hooks.startup(GATEWAY)
    assert ("one", "shutdown") in calls
    assert not any(name == "three" for name, _ in calls)


async def test_a_failing_shutdown_does_not_keep_the_others_from_theirs(caplog):
    calls = []
    one, bad = Site("one", calls), Site("bad", calls)
    hooks = make(one, bad)
    await hooks.startup(GATEWAY)
    bad.failure = OSError("stuck")
    await hooks.shutdown()
    assert calls[-1] == ("one", "shutdown")
    assert "'bad' failed to shut down" in caplog.text


async def test_a_site_may_edit_and_refuse_a_launch():
    calls = []
    hooks = make(Site("one", calls), Site("two", calls))
    wanted = request()
    await hooks.modify_launch(wanted)
    assert wanted.labels == {"one": "was here", "two": "was here"}
    hooks = make(Site("no", calls, LaunchDenied("not on Sundays")))
    with pytest.raises(LaunchDenied, match="Sundays"):
        await hooks.modify_launch(wanted)


async def test_observers_cannot_break_anything(caplog):
    calls = []
    hooks = make(Site("one", calls), Site("bad", calls, RuntimeError("boom")))
    await hooks.observe_event(EVENT)
    assert ("one", "launched") in calls
    assert "'bad' failed to observe launched of kernel k" in caplog.text


# -- the default dial --------------------------------------------------------------------------------------------


async def dial(endpoint):
    return await make(Backend("a")).connect_launcher(KernelHandle("k", "l", "a"), endpoint)


async def test_the_default_dials_unix_and_tcp_without_blocking(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        unix.bind(path)
        unix.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        for endpoint in (Endpoint(path=path), Endpoint(host="127.0.0.1", port=tcp.getsockname()[1])):
            with await dial(endpoint) as sock:
                assert sock.getblocking() is False
                assert sock.getpeername() is not None


async def test_a_refused_dial_says_where_and_why(tmp_path):
    with pytest.raises(BackendUnavailable, match=r"unix:.*No such file"):
        await dial(Endpoint(path=str(tmp_path / "absent")))
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
    with pytest.raises(BackendUnavailable, match=rf"127.0.0.1:{port} cannot be reached"):
        await dial(Endpoint(host="127.0.0.1", port=port))


async def test_a_full_backlog_is_waited_for_not_mistaken_for_a_connection(tmp_path):
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen(0)
        fillers = []
        while True:
            filler = stack.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            try:
                filler.connect(path)
            except BlockingIOError:
                break
            fillers.append(filler)
        waiting = asyncio.create_task(dial(Endpoint(path=path)))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
        for _ in range(len(fillers)):
            server.accept()[0].close()
        with await waiting as sock:
            assert sock.getpeername() == path


async def test_a_silent_address_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr("eg_core.builtin.defaults.DIAL_TIMEOUT", 0.05)
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler = stack.enter_context(socket.socket(socket.AF_UNIX))
                filler.setblocking(False)
                filler.connect(path)
        with pytest.raises(BackendUnavailable, match="no answer"):
            await dial(Endpoint(path=path))


class Checked:
    def __init__(self, name, checks):
        self.name = name
        self._checks = checks

    @hookimpl
    def eg_doctor_checks(self):
        if self._checks is None:
            raise RuntimeError("boom")
        return self._checks


async def test_every_plugins_checks_are_had_and_one_that_fails_is_a_failed_check():
    async def run():
        return CheckResult("ok", "well")

    checks = [Check("one.a", "a holds", run), Check("one.b", "b holds", run)]
    hooks = make(Checked("one", checks), Checked("two", None), Checked("three", iter(checks[:1])))
    found = hooks.doctor_checks()
    assert sorted(check.name for check in found) == ["one.a", "one.a", "one.b", "two.checks"]
    [failed] = [check for check in found if check.name == "two.checks"]
    result = await failed.run()
    assert result.status == "fail"
    assert "boom" in result.detail
