import sys
import types
from importlib import metadata

import pytest
from traitlets import Int, Unicode
from traitlets.config import Config, Configurable

from eg_core.config import Plugin
from eg_core.hookspecs import hookimpl
from eg_core.plugins import PluginError, PluginManager
from eg_core.types import Poll

MODULE = "eg_core_test_plugins_module"


class Backend(Plugin):
    size = Int(1, max=10).tag(config=True)
    touched = Unicode()

    @property
    def explosive(self):
        raise AssertionError("registering a plugin evaluates nothing of it")

    @hookimpl
    async def eg_launch_kernel(self, request):
        yield request

    @hookimpl
    async def eg_poll_kernels(self, handles):
        return Poll({})

    @hookimpl
    async def eg_kill_kernel(self, handle):
        return None


class Half(Plugin):
    @hookimpl
    async def eg_launch_kernel(self, request):
        yield request


class Synchronous(Backend):
    @hookimpl
    def eg_kill_kernel(self, handle):
        return None


class NotAGenerator(Backend):
    @hookimpl
    async def eg_launch_kernel(self, request):
        return request


class Misspelt(Plugin):
    @hookimpl
    async def eg_luanch_kernel(self, request):
        return None


class UnknownArgument(Backend):
    @hookimpl
    async def eg_kill_kernel(self, handle, colour):
        return None


class Wrapper(Plugin):
    @hookimpl(wrapper=True)
    def eg_startup(self, gateway):
        return (yield)


class Explodes(Plugin):
    def __init__(self, **kwargs):
        raise RuntimeError("no daemon here")


class SiteOnly:
    @hookimpl
    async def eg_observe_event(self, event):
        return None


class FakeDistribution:
    name = "eg-fake"
    version = "1.2.3"


def entry(name, target):
    """An entry point into this very module, with a distribution to be named."""
    point = metadata.EntryPoint(name, f"{MODULE}:{target}", "eg")
    object.__setattr__(point, "dist", FakeDistribution())
    return point


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """This module under a name that an entry point can say."""
    module = types.ModuleType(MODULE)
    module.__dict__.update(globals())
    monkeypatch.setitem(sys.modules, MODULE, module)


def load(*entries, backends=None, **kwargs):
    return PluginManager(backends=backends, entry_points=entries, environ={}, **kwargs)


def test_every_type_has_an_instance_of_its_own_name():
    plugins = load(entry("one", "Backend"), entry("site", "SiteOnly"))
    assert plugins.backend_names == ("one",)
    assert plugins.plugin("one").name == "one"


def test_named_instances_have_traits_of_their_own():
    plugins = load(entry("one", "Backend"), backends={"eu": {"type": "one", "size": 7}, "us": {"type": "one"}})
    assert plugins.backend_names == ("one", "eu", "us")
    assert [plugins.plugin(name).size for name in plugins.backend_names] == [1, 7, 1]


def test_a_types_own_instance_can_be_configured_like_a_named_one():
    plugins = load(entry("one", "Backend"), backends={"one": {"size": 3}})
    assert plugins.backend_names == ("one",)
    assert plugins.plugin("one").size == 3


def test_configuration_reaches_every_instance_and_its_own_traits_win():
    parent = Configurable(config=Config({"Backend": {"size": 5}}))
    plugins = load(entry("one", "Backend"), backends={"eu": {"type": "one", "size": 7}}, parent=parent)
    assert plugins.plugin("one").size == 5
    assert plugins.plugin("eu").size == 7


def test_a_type_may_be_a_sites_own_class():
    plugins = load(backends={"mine": {"type": f"{MODULE}:Backend", "size": 2}})
    assert plugins.plugin("mine").size == 2


def test_plugins_see_the_environment_that_core_gives_them():
    plugins = PluginManager(entry_points=[entry("one", "Backend")], environ={"A": "b"})
    assert plugins.plugin("one").environ == {"A": "b"}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("Half", "half a backend: it lacks eg_poll_kernels, eg_kill_kernel"),
        ("Synchronous", "eg_kill_kernel must be async def, not def"),
        ("NotAGenerator", "eg_launch_kernel must be an async generator, not async def"),
        ("Misspelt", "eg_luanch_kernel"),
        ("UnknownArgument", "colour"),
        ("Wrapper", "cannot be wrapped"),
        ("Explodes", "RuntimeError: no daemon here"),
        ("Absent", "Absent"),
    ],
)
def test_what_is_wrong_stops_the_start_with_names(target, said):
    with pytest.raises(PluginError) as caught:
        load(entry("broken", target))
    assert said in caught.value.message
    assert "'broken'" in caught.value.message
    if target != "Misspelt":
        assert "eg-fake 1.2.3" in caught.value.message


@pytest.mark.parametrize(
    ("backends", "said"),
    [
        ({"x": {"type": "nope"}}, "no type 'nope'; installed: one"),
        ({"x": {"type": "one", "colour": 1}}, "no setting colour; it knows: max_threads, size"),
        ({"x": {"type": "one", "size": 11}}, "size"),
        ({"x": {"type": "one", "size": "big"}}, "size"),
        ({"x": {"type": 3}}, "type"),
        ({"x": {"type": "no.such.module:Thing"}}, "no.such.module"),
    ],
)
def test_wrong_configuration_is_refused_by_name(backends, said):
    with pytest.raises(PluginError, match="'x'") as caught:
        load(entry("one", "Backend"), backends=backends)
    assert said in caught.value.message


def test_two_distributions_with_one_name_are_refused():
    other = entry("one", "Backend")
    object.__setattr__(other, "dist", type("Other", (), {"name": "eg-other", "version": "1"}))
    with pytest.raises(PluginError, match=r"installed twice: by eg-fake 1\.2\.3 and by eg-other 1"):
        load(entry("one", "Backend"), other)


def test_the_installed_plugins_load():
    assert "local" in PluginManager().backend_names
