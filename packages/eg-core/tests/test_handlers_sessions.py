"""``/api/sessions`` over a real registry and real kernels: both ways of writing, and what Enterprise Gateway breaks."""

import asyncio
import uuid

import pytest

from gateway_support import gateway, until
from web_support import serving

NEW = {"path": "a/b.ipynb", "type": "notebook", "name": "b", "kernel": {"name": "python3"}}
SLEEPY = {**NEW, "kernel": {"name": "sleepy"}}
AT_ONCE = {"Prefer": "respond-async"}


async def test_a_session_from_post_to_delete(web):
    status, headers, model = await web("POST", "/api/sessions", NEW)
    assert status == 201
    assert headers["Location"] == f"/api/sessions/{model['id']}"
    assert {key: model[key] for key in ("path", "name", "type", "notebook")} == {
        "path": "a/b.ipynb",
        "name": "b",
        "type": "notebook",
        "notebook": {"path": "a/b.ipynb", "name": "b"},
    }
    kernel_id = model["kernel"]["id"]
    assert model["kernel"] == (await web("GET", f"/api/kernels/{kernel_id}"))[2]
    assert (await web("GET", "/api/sessions"))[2] == [model]
    assert (await web("GET", f"/api/sessions/{model['id']}"))[2] == model
    assert (await web("DELETE", f"/api/sessions/{model['id']}"))[0] == 204
    assert (await web("GET", f"/api/kernels/{kernel_id}"))[0] == 404
    assert (await web("GET", f"/api/sessions/{model['id']}"))[0] == 404
    assert (await web("GET", "/api/sessions"))[2] == []


async def test_the_older_way_to_write_one(web):
    body = {"notebook": {"path": "old.ipynb"}, "kernel": {"name": "sleepy"}}
    status, _, model = await web("POST", "/api/sessions", body, headers=AT_ONCE)
    assert (status, model["path"], model["type"], model["kernel"]["name"]) == (201, "old.ipynb", "notebook", "sleepy")


async def test_mended_the_same_document_is_the_same_session(web):
    answers = await asyncio.gather(*(web("POST", "/api/sessions", SLEEPY, headers=AT_ONCE) for _ in range(5)))
    assert {status for status, _, _ in answers} == {201}
    assert len({model["id"] for _, _, model in answers}) == 1
    assert len(web.registry.kernels()) == 1


async def test_the_same_path_of_another_user_is_another_session(web):
    bodies = [{**SLEEPY, "env": {"KERNEL_USERNAME": name}} for name in ("ann", "bob")]
    (_, _, ann), (_, _, bob) = [await web("POST", "/api/sessions", body, headers=AT_ONCE) for body in bodies]
    assert ann["kernel"]["id"] != bob["kernel"]["id"]


async def test_a_session_of_a_running_kernel(web):
    _, _, kernel = await web("POST", "/api/kernels", {"name": "sleepy"}, headers=AT_ONCE)
    status, _, model = await web("POST", "/api/sessions", {**NEW, "kernel": {"id": kernel["id"]}}, headers=AT_ONCE)
    assert (status, model["kernel"]["id"]) == (201, kernel["id"])
    status, _, _ = await web("POST", "/api/sessions", {**NEW, "path": "c", "kernel": {"id": str(uuid.uuid4())}})
    assert status == 404
    assert len(web.registry.kernels()) == 1


async def test_mended_patch_changes_path_name_and_kernel(web):
    _, _, made = await web("POST", "/api/sessions", SLEEPY, headers=AT_ONCE)
    url = f"/api/sessions/{made['id']}"
    status, _, model = await web("PATCH", url, {"path": "moved.ipynb", "name": "moved"})
    assert (status, model["path"], model["notebook"]["path"], model["name"]) == (
        200,
        "moved.ipynb",
        "moved.ipynb",
        "moved",
    )
    assert model["kernel"]["id"] == made["kernel"]["id"]
    _, _, other = await web("POST", "/api/kernels", {"name": "sleepy"}, headers=AT_ONCE)
    status, _, model = await web("PATCH", url, {"kernel": {"id": other["id"], "name": "sleepy"}})
    assert (status, model["kernel"]["id"]) == (200, other["id"])
    assert (await web("GET", f"/api/kernels/{made['kernel']['id']}"))[0] == 404  # no session uses it any more
    status, _, model = await web("PATCH", url, {"kernel": {"name": "sleepy"}}, headers=AT_ONCE)
    assert status == 200
    assert model["kernel"]["id"] not in (other["id"], made["kernel"]["id"])
    assert (await web("PATCH", f"/api/sessions/{uuid.uuid4()}", {"path": "x"}))[0] == 404


async def test_a_kernel_that_another_session_uses_stays(web):
    _, _, first = await web("POST", "/api/sessions", SLEEPY, headers=AT_ONCE)
    kernel_id = first["kernel"]["id"]
    second = {**NEW, "path": "second", "kernel": {"id": kernel_id}}
    assert (await web("POST", "/api/sessions", second, headers=AT_ONCE))[0] == 201
    await web("PATCH", f"/api/sessions/{first['id']}", {"kernel": {"name": "sleepy"}}, headers=AT_ONCE)
    assert (await web("GET", f"/api/kernels/{kernel_id}"))[0] == 200


async def test_mended_a_kernel_that_is_gone_takes_its_session_along(web):
    _, _, made = await web("POST", "/api/sessions", SLEEPY, headers=AT_ONCE)
    await web("DELETE", f"/api/kernels/{made['kernel']['id']}")
    status, _, body = await web("DELETE", f"/api/sessions/{made['id']}")
    assert (status, body["message"]) == (410, "Kernel deleted before session")
    _, _, made = await web("POST", "/api/sessions", SLEEPY, headers=AT_ONCE)
    await web("DELETE", f"/api/kernels/{made['kernel']['id']}")
    assert (await web("GET", f"/api/sessions/{made['id']}"))[0] == 404
    status, _, sessions = await web("GET", "/api/sessions")
    assert (status, sessions) == (200, [])
    assert (await web("DELETE", f"/api/sessions/{made['id']}"))[0] == 404


async def test_a_launch_that_fails_leaves_no_session(web, kernelspecs):
    import web_support

    web_support.add_kernelspec(kernelspecs, "broken", ["/nowhere/python"])
    status, _, body = await web("POST", "/api/sessions", {**NEW, "kernel": {"name": "broken"}})
    assert status == 500
    assert "/nowhere/python" in body["message"]
    assert (await web("GET", "/api/sessions"))[2] == []
    status, _, _ = await web("POST", "/api/sessions", SLEEPY, headers=AT_ONCE)
    assert status == 201


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "No JSON data provided"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "Missing field in JSON data: path"),
        (b'{"path": "x"}', "Missing field in JSON data: type"),
        (b'{"path": 7, "type": "notebook"}', "'path' must be a string"),
        (b'{"notebook": "x"}', "'notebook' must be an object"),
        (b'{"path": "x", "type": "t", "kernel": []}', "'kernel' must be an object"),
        (b'{"path": "x", "type": "t", "kernel": {"id": 1}}', "'id' must be a string"),
        (b'{"path": "x", "type": "t", "env": {"KERNEL_A": 1}}', "KERNEL_A must be a string"),
        (b'{"path": "a\\u0000", "type": "t"}', "no NUL"),
        (b'{"path": "x", "type": "\\u0007"}', "cannot be printed"),
    ],
)
async def test_bad_input_is_refused_in_words_and_makes_nothing(web, raw, words):
    status, _, body = await web("POST", "/api/sessions", raw=raw)
    assert status == 400
    assert words in body["message"]
    assert {"reason", "message"} <= set(body)
    await until(lambda: not web.registry.all_kernels(), "no kernel is left")
    assert (await web("GET", "/api/sessions"))[2] == []


async def test_sessions_survive_a_restart_of_the_gateway(tmp_path, short_tmp, kernelspecs):
    async with gateway(tmp_path, short_tmp, end=False) as registry, serving(registry, kernelspecs) as web:
        _, _, made = await web("POST", "/api/sessions", NEW)
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs) as web:
        status, _, again = await web("GET", f"/api/sessions/{made['id']}")
        assert status == 200
        assert (again["path"], again["kernel"]["id"]) == (made["path"], made["kernel"]["id"])


async def test_listing_can_be_switched_off(tmp_path, short_tmp, kernelspecs):
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs, list_kernels=False) as web:
        assert (await web("GET", "/api/sessions"))[0] == 403
        assert (await web("GET", "/api/kernels"))[0] == 403
