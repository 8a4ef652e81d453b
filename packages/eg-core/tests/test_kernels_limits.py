"""How many kernels there may be, whatever races, fails or is ended."""

import asyncio
import collections
import dataclasses
import uuid

import pytest

from eg_core.errors import LaunchDenied
from gateway_support import until
from web_support import add_kernelspec

AT_ONCE = {"Prefer": "respond-async"}


def limit(web, **limits):
    web.registry.settings = dataclasses.replace(web.registry.settings, **limits)


async def start(web, name="sleepy", user=None, **env):
    if user is not None:
        env["KERNEL_USERNAME"] = user
    return await web("POST", "/api/kernels", {"name": name, "env": env}, headers=AT_ONCE)


async def test_mended_a_thousand_racing_starts_with_a_limit_of_8_give_8(web):
    limit(web, max_kernels=8)
    gate = asyncio.Semaphore(200)  # sockets of this process, not of the gateway's design

    async def one():
        async with gate:
            return (await start(web))[0]

    answers = collections.Counter(await asyncio.gather(*(one() for _ in range(1000))))
    assert answers == {201: 8, 403: 992}
    assert len(web.registry.all_kernels()) == 8
    assert len(await web.registry.store.kernels()) == 8


async def test_the_refusal_says_which_limit_and_makes_nothing(web):
    limit(web, max_kernels=1)
    assert (await start(web))[0] == 201
    status, _, body = await start(web)
    assert (status, body["reason_code"]) == (403, "max_kernels")
    assert "max_kernels is 1" in body["message"]
    assert "Resource Limit" in body["message"]
    assert len((await web("GET", "/api/kernels"))[2]) == 1


async def test_an_ended_and_a_failed_kernel_make_room(web, kernelspecs):
    limit(web, max_kernels=1)
    _, _, model = await start(web)
    assert (await web("DELETE", f"/api/kernels/{model['id']}"))[0] == 204
    add_kernelspec(kernelspecs, "broken", ["/nowhere"])
    status, _, _ = await web("POST", "/api/kernels", {"name": "broken"})
    assert status == 500
    assert (await start(web))[0] == 201


async def test_each_user_has_a_limit_of_their_own(web):
    limit(web, max_kernels_per_user=1)
    assert (await start(web, user="ann"))[0] == 201
    status, _, body = await start(web, user="ann")
    assert (status, body["reason_code"]) == (403, "max_kernels_per_user")
    assert "'ann'" in body["message"]
    assert (await start(web, user="bob"))[0] == 201
    limit(web, max_kernels_per_user=0)
    assert (await start(web, user="eve"))[0] == 403


async def test_a_session_counts_too(web):
    limit(web, max_kernels=0)
    status, _, _ = await web("POST", "/api/sessions", {"path": "x", "type": "notebook", "kernel": {"name": "sleepy"}})
    assert status == 403
    assert (await web("GET", "/api/sessions"))[2] == []


async def test_the_same_id_asked_for_twice_is_refused_twice(web):
    limit(web, max_kernels=0)
    kernel_id = str(uuid.uuid4())
    answers = await asyncio.wait_for(asyncio.gather(*(start(web, KERNEL_ID=kernel_id) for _ in range(5))), 20)
    assert {status for status, _, _ in answers} == {403}


async def test_a_dead_kernel_is_restarted_only_where_there_is_room(web, kernelspecs):
    limit(web, max_kernels=1)
    add_kernelspec(kernelspecs, "broken", ["/nowhere"])
    await web("POST", "/api/kernels", {"name": "broken"})
    (dead,) = web.registry.kernels()
    assert (await start(web))[0] == 201
    with pytest.raises(LaunchDenied, match="max_kernels is 1"):
        await web.registry.restart(dead.id)
    assert dead.state.value == "dead"
    await until(lambda: dead.launch is None or dead.launch.done(), "no launch goes on")
