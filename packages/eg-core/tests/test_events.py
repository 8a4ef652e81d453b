"""The plugin ``events``: a line for each event, by its schema; nothing without a handler."""

import json
import logging
import subprocess
import sys

import pytest
from jupyter_events import yaml
from traitlets.config import Config, LoggingConfigurable

from eg_core.builtin.events import SCHEMA, SCHEMA_ID, KernelEvents
from eg_core.hooks import Hooks
from eg_core.plugins import PluginError, PluginManager
from eg_core.types import KERNEL_EVENTS, GatewayInfo, KernelEvent


def event(name, **more):
    fields = {"kernel_id": "k-1", "kernelspec": "python3", "backend": "local", "owner": "ann", "at": 1767225600.25}
    return KernelEvent(name, **{**fields, **more})


async def started(tmp_path, handlers):
    parent = LoggingConfigurable(config=Config({"EventLogger": {"handlers": handlers}}))
    plugins = PluginManager(entry_points=[], parent=parent, environ={})
    plugins.register(KernelEvents(parent=parent, name="events"), "events", "test")
    hooks = Hooks(plugins)
    await hooks.startup(GatewayInfo("g", "0", tmp_path))
    return hooks


async def test_each_event_is_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    hooks = await started(tmp_path, [logging.FileHandler(path)])
    for name in KERNEL_EVENTS:
        await hooks.observe_event(event(name))
    await hooks.observe_event(event("died", reason="oom_killed", message="It used too much memory."))
    await hooks.observe_event(KernelEvent("stray_removed", "", "", "local", "", 0.0, "stray"))
    await hooks.shutdown()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines[:-2]] == list(KERNEL_EVENTS)
    assert lines[0]["__schema__"] == SCHEMA_ID
    assert lines[0]["__timestamp__"] == "2026-01-01T00:00:00.250000Z"
    assert (lines[0]["owner"], lines[0].get("reason")) == ("ann", None)
    assert (lines[-2]["reason"], lines[-2]["message"]) == ("oom_killed", "It used too much memory.")


def test_the_schema_has_every_event():
    schema = yaml.load(SCHEMA)
    assert schema["$id"] == SCHEMA_ID
    assert schema["properties"]["event"]["enum"] == list(KERNEL_EVENTS)


async def test_a_handler_that_is_none_is_refused_in_words(tmp_path):
    with pytest.raises(PluginError, match=r"EventLogger\.handlers cannot be used"):
        await started(tmp_path, ["events.log"])


def test_without_a_handler_it_is_not_even_imported():
    code = "import sys, eg_core.app, eg_core.builtin.events; sys.exit('jupyter_events' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_without_a_handler_nothing_is_recorded(tmp_path, caplog):
    hooks = await started(tmp_path, [])
    await hooks.observe_event(event("launched"))
    await hooks.shutdown()
    assert caplog.text == ""
