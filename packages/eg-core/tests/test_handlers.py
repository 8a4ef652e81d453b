"""The REST API over a real registry, launcher and kernels, through a real HTTP server."""

import asyncio
import json
import sys
import uuid
from urllib.parse import quote

import pytest

from gateway_support import exists, until
from web_support import TOKEN


async def test_a_kernel_from_post_to_delete(web):
    status, headers, model = await web("POST", "/api/kernels", {"name": "python3", "env": {"KERNEL_USERNAME": "bob"}})
    assert status == 201
    kernel_id = model["id"]
    assert headers["Location"] == f"/api/kernels/{kernel_id}"
    assert model["execution_state"] == "idle"
    assert web.registry.kernel(kernel_id).record.owner == "bob"
    assert (await web("GET", "/api/kernels"))[2] == [(await web("GET", f"/api/kernels/{kernel_id}"))[2]]
    assert (await web("POST", f"/api/kernels/{kernel_id}/interrupt", {}))[0] == 204
    status, _, again = await web("POST", f"/api/kernels/{kernel_id}/restart", {})
    assert (status, again["execution_state"]) == (200, "idle")
    assert (await web("GET", f"/api/kernels/{kernel_id}/log"))[2]["first"] == 0
    assert (await web("DELETE", f"/api/kernels/{kernel_id}"))[0] == 204
    assert (await web("GET", f"/api/kernels/{kernel_id}"))[0] == 404
    assert (await web("DELETE", f"/api/kernels/{kernel_id}"))[0] == 404


async def test_an_empty_body_starts_the_default_kernel(web):
    status, _, model = await web("POST", "/api/kernels")
    assert (status, model["name"]) == (201, "python3")


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "wröng"])
async def test_without_the_token_nothing_is_told_and_nothing_made(web, token):
    headers = {"Authorization": f"token {token}".encode().decode("latin-1")} if token else {}
    for method, path in [
        ("GET", "/api"),
        ("GET", "/api/kernelspecs"),
        ("POST", "/api/kernels"),
        ("GET", "/api/kernels"),
    ]:
        status, _, body = await web(method, path, headers=headers, token=None)
        assert status == 401
        assert TOKEN not in json.dumps(body)
    assert web.registry.all_kernels() == []


@pytest.mark.parametrize("scheme", ["token", "Token", "bearer", "Bearer"])
async def test_ways_to_give_the_token(web, scheme):
    assert (await web("GET", "/api", headers={"Authorization": f"{scheme} {TOKEN}"}, token=None))[0] == 200
    assert (await web("GET", f"/api?token={TOKEN}", token=None))[0] == 200


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"name": 7}', "'name' must be a string"),
        (b'{"path": "a\\u0000b"}', "no NUL"),
        (b'{"env": []}', "'env' must be an object"),
        (b'{"env": {"KERNEL_A": 1}}', "KERNEL_A must be a string"),
        (b'{"env": {"KERNEL_ID": "../../etc"}}', "'KERNEL_ID' must be a UUID"),
        (b'{"kernel_id": 4}', "'KERNEL_ID' must be a UUID"),
    ],
)
async def test_bad_input_is_refused_in_words_and_makes_nothing(web, raw, words):
    status, _, body = await web("POST", "/api/kernels", raw=raw)
    assert status == 400
    assert words in body["message"]
    assert "Traceback" not in json.dumps(body)
    assert web.registry.all_kernels() == []


async def test_an_unknown_kernelspec_is_404_and_an_unknown_backend_says_what_there_is(web):
    status, _, body = await web("POST", "/api/kernels", {"name": "nope"})
    assert status == 404
    assert "nope" in body["message"]
    status, _, body = await web("POST", "/api/kernels", {"name": "gpu"})
    assert status == 400
    assert "gpu-eu" in body["message"]
    assert "local" in body["message"]


async def test_a_slow_launch_answers_in_time_and_goes_on(web):
    status, _, model = await web("POST", "/api/kernels", {"name": "sleepy"}, headers={"Prefer": "respond-async"})
    assert (status, model["execution_state"]) == (201, "starting")
    kernel_id = model["id"]
    for action in ("interrupt", "restart"):
        status, _, body = await web("POST", f"/api/kernels/{kernel_id}/{action}", {})
        assert status == 409
        assert "still starting" in body["message"]
    assert (await web("DELETE", f"/api/kernels/{kernel_id}"))[0] == 204
    await until(lambda: web.registry.find(kernel_id) is None, "it is removed")


async def test_deleting_a_launch_answers_its_post(web):
    kernel_id = str(uuid.uuid4())
    post = asyncio.create_task(web("POST", "/api/kernels", {"name": "sleepy", "env": {"KERNEL_ID": kernel_id}}))
    await until(lambda: web.registry.find(kernel_id) is not None, "the launch is recorded")
    assert (await web("DELETE", f"/api/kernels/{kernel_id}"))[0] == 204
    status, _, body = await post
    assert (status, body["reason_code"]) == (409, "cancelled")


async def test_a_failed_launch_says_why_where_stock_clients_look(web, kernelspecs):
    spec = kernelspecs / "broken"
    spec.mkdir()
    (spec / "kernel.json").write_text(
        json.dumps({"argv": [sys.executable, "-c", "exit('no licence')"], "display_name": "b", "language": "x"})
    )
    status, _, body = await web("POST", "/api/kernels", {"name": "broken"})
    assert status == 500
    assert "no licence" in body["reason"]
    assert "no licence" in body["message"]
    (model,) = (await web("GET", "/api/kernels"))[2]
    assert model["execution_state"] == "dead"
    assert "no licence" in model["reason"]
    status, _, body = await web("GET", f"/api/kernels/{model['id']}/channels")
    assert status == 404
    assert "no licence" in body["message"]


async def test_the_same_key_never_makes_a_second_kernel(web):
    headers = {"Idempotency-Key": "order-1"}
    answers = await asyncio.gather(*(web("POST", "/api/kernels", {}, headers=headers) for _ in range(3)))
    assert {status for status, _, _ in answers} == {201}
    assert len({model["id"] for _, _, model in answers}) == 1
    assert len(web.registry.kernels()) == 1


async def test_a_client_that_goes_away_takes_its_launch_along(web):
    _, writer = await asyncio.open_connection("127.0.0.1", web.port)
    body = b'{"name": "sleepy"}'
    writer.write(
        b"POST /api/kernels HTTP/1.1\r\nHost: x\r\nAuthorization: token %s\r\nContent-Length: %d\r\n\r\n%s"
        % (TOKEN.encode(), len(body), body)
    )
    await until(lambda: len(web.registry.kernels()) == 1, "the launch is recorded")
    (kernel,) = web.registry.kernels()
    await until(lambda: kernel.process is not None, "its process runs")
    pid = kernel.process.pid
    writer.close()
    await until(lambda: web.registry.find(kernel.id) is None, "it is removed")
    assert not exists(pid)


async def test_kernelspecs(web):
    _, _, answer = await web("GET", "/api/kernelspecs")
    assert answer["default"] == "python3"
    assert {"gpu", "logo", "python3", "sleepy"} <= set(answer["kernelspecs"])
    logo = answer["kernelspecs"]["logo"]
    assert logo["resources"] == {"logo-64x64": "/kernelspecs/logo/logo-64x64.png"}
    assert (await web("GET", "/api/kernelspecs/logo"))[2] == logo
    assert (await web("GET", "/api/kernelspecs?user=bob/logo"))[2] == logo  # what jupyter_server really sends
    assert (await web("GET", "/api/kernelspecs/nope"))[0] == 404
    status, headers, body = await web("GET", "/kernelspecs/logo/logo-64x64.png")
    assert (status, headers["Content-Type"], body) == (200, "image/png", "PNG")
    for path in ("secret.txt", "kernel.json", "../python3/kernel.json", "..%2Fpython3%2Fkernel.json"):
        assert (await web("GET", f"/kernelspecs/logo/{path}"))[0] == 404


async def test_pages_of_other_origins_are_refused(web):
    assert (await web("GET", "/api", headers={"Origin": "http://evil.example"}))[0] == 404
    assert (await web("GET", "/api", headers={"Origin": f"http://127.0.0.1:{web.port}"}))[0] == 200


async def test_the_page_and_health_need_no_token(web):
    status, _, page = await web("GET", "/", token=None)
    assert status == 200
    assert f"--gateway-url=http://127.0.0.1:{web.port}/" in page
    assert TOKEN not in page
    assert (await web("GET", "/healthz", token=None))[2] == {"status": "ok"}


async def test_what_is_nowhere_is_404_in_json(web):
    status, _, body = await web("GET", "/api/terminals")
    assert (status, body["reason"]) == (404, "Not Found")
    assert (await web("GET", f"/api/kernels/{uuid.uuid4()}"))[0] == 404
    assert (await web("POST", f"/api/kernels/{uuid.uuid4()}/restart", {}))[0] == 404
    assert (await web("PATCH", "/api/kernels", {}))[0] == 405


async def test_outputs_of_a_request_want_one_name(web):
    for query in ("", "?parent=a&cell=b", "?parent=" + "x" * 300):
        status, _, body = await web("GET", f"/api/kernels/{uuid.uuid4()}/outputs{query}")
        assert status == 400
        assert "parent" in body["message"]
    status, _, _ = await web("GET", f"/api/kernels/{uuid.uuid4()}/outputs?parent=a")
    assert status == 404


@pytest.mark.parametrize("after", ["-1", "x", "", "1_0", "٣", "9" * 30, "9" * 5000])
async def test_mended_an_offset_that_is_none_is_400(web, after):
    status, _, body = await web("GET", f"/api/kernels/{uuid.uuid4()}/log?after={quote(after)}")
    assert status == 400
    assert "'after'" in body["message"]


async def test_mended_a_session_id_that_no_launcher_takes_is_refused_before_the_upgrade(web):
    _, _, model = await web("POST", "/api/kernels", {"name": "sleepy"}, headers={"Prefer": "respond-async"})
    status, _, body = await web("GET", f"/api/kernels/{model['id']}/channels?session_id={'s' * 257}")
    assert status == 400
    assert "'session_id' has 257 characters" in body["message"]
    assert (await web("GET", f"/api/kernels/{model['id'].upper()}/channels"))[0] == 426


@pytest.mark.parametrize("field", ["path", "name"])
async def test_mended_half_a_surrogate_pair_is_no_text(web, field):
    for raw in (b"%s: {}}", b'{"type": "notebook", "path": "x", "%s": "a\\ud800"}', b'{"%s": "\\udc80"}'):
        for path in ("/api/kernels", "/api/sessions"):
            status, _, body = await web("POST", path, raw=raw % field.encode() if raw.count(b"%s") else raw)
            assert status == 400
            assert "Internal" not in body["message"]
    assert web.registry.all_kernels() == []


async def test_an_error_says_what_was_asked_for_as_it_was_asked_for(web):
    assert "/a%2fb%20c." in (await web("GET", "/a%2fb%20c"))[2]["message"]
    status, _, body = await web("PUT", "/api/kernels", {})
    assert (status, body["message"]) == (405, "PUT cannot be used on /api/kernels.")
