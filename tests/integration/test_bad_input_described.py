"""Whatever is sent to whichever operation of a whole gateway: answered as it is described, nothing left over."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from eg_integration.described import Description, Request
from eg_integration.gateway import Answer, Gateway
from eg_integration.processes import resident
from eg_integration.waiting import wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 60
NAMES = ["nope", "absent", "exits", "silent", "../python3"]
"""Kernelspecs whose kernels fail in every way or never answer; none that costs an interpreter's start and runs on."""
ANYTHING = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def described(module_gateway: Gateway) -> Description:
    return Description(module_gateway.request("GET", "/api/swagger.json", token=None).json)


@pytest.fixture(autouse=True)
def _nothing_left(module_gateway: Gateway) -> Iterator[None]:
    """No kernel, session, process or row, nor much memory, whatever a test has sent."""
    before = resident(module_gateway.pid)
    yield
    module_gateway.delete_all()
    wait_until(lambda: rows(module_gateway) == {"eg_kernels": 0, "eg_sessions": 0}, "the rows to be gone")
    wait_until(
        lambda: not [one for one in module_gateway.processes() if "time.sleep(7702)" in one.command], "no kernel"
    )
    assert resident(module_gateway.pid) - before < 32 << 20
    assert "Traceback" not in module_gateway.log()


def rows(gateway: Gateway) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{gateway.folder / 'data' / 'eg.db'}?mode=ro", uri=True)) as store:
        for session in gateway.request("GET", "/api/sessions").json:  # those without a kernel are forgotten by a look
            gateway.request("DELETE", f"/api/sessions/{session['id']}")
        return {
            name: store.execute(f"select count(*) from {name}").fetchone()[0] for name in ("eg_kernels", "eg_sessions")
        }


def send(gateway: Gateway, request: Request) -> Answer:
    headers = {name: value.encode("latin-1") for name, value in request.headers.items()}
    return gateway.request(request.method, request.path, request.body, headers=headers)  # type: ignore[arg-type]


def each(description: Description, names: list[str]) -> st.SearchStrategy[Request]:
    return st.one_of(description.requests(path, method, names=names) for path, method in description.operations)


def test_every_operation_is_drawn(described: Description) -> None:
    assert len(described.operations) >= 20
    assert {method for _, method in described.operations} == {"get", "head", "post", "patch", "delete"}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", ["/api/kernels", "/api/sessions"])
def test_any_start_is_answered_as_described_and_makes_at_most_what_it_says(
    module_gateway: Gateway, described: Description, path: str
) -> None:
    gateway = module_gateway

    @ANYTHING
    @given(described.requests(path, "post", names=NAMES))
    def check(request: Request) -> None:
        answer = send(gateway, request)
        described.check(request, answer.status, answer.headers.get("Content-Type", ""), answer.body)
        assert "Internal error" not in answer.words, request
        models = gateway.list_kernels()
        if answer.status == 201:
            made = answer.json if path == "/api/kernels" else answer.json["kernel"]
            assert made["id"] in [model["id"] for model in models]
        elif answer.status == 500:
            assert answer.json["reason_code"] in ("exec_failed", "exited"), (request, answer.body)
        else:
            assert models == [], request
        gateway.delete_all_of(model["id"] for model in models)

    check()


@pytest.mark.timeout(240)
def test_any_request_is_answered_as_described(module_gateway: Gateway, described: Description) -> None:
    gateway = module_gateway

    @settings(ANYTHING, max_examples=5 * EXAMPLES)
    @given(
        each(described, ["nope", "python3", "..", "x" * 300]).filter(
            lambda request: request.method != "POST" or "{" in request.template
        )
    )
    def check(request: Request) -> None:
        answer = send(gateway, request)
        described.check(request, answer.status, answer.headers.get("Content-Type", ""), answer.body)
        assert answer.status < 500, (request, answer.body[:300])

    check()
    assert gateway.list_kernels() == []


@pytest.mark.timeout(240)
def test_any_change_of_a_session_that_is_there(module_gateway: Gateway, described: Description) -> None:
    gateway = module_gateway
    body = {"path": "a.ipynb", "type": "notebook", "name": "a", "kernel": {"name": "silent"}}
    session = gateway.request("POST", "/api/sessions", body, headers={"Prefer": "respond-async"}).json
    own = session["kernel"]["id"]

    @ANYTHING
    @given(described.requests("/api/sessions/{session_id}", "patch", names=["nope", "absent"]))
    def check(request: Request) -> None:
        nonlocal own
        here = Request(
            request.method, f"/api/sessions/{session['id']}", request.template, request.body, request.headers
        )
        answer = send(gateway, here)
        described.check(here, answer.status, answer.headers.get("Content-Type", ""), answer.body)
        assert "Internal error" not in answer.words, here
        now = gateway.request("GET", f"/api/sessions/{session['id']}").json["kernel"]["id"]
        if answer.status != 200:
            assert now == own, here
        own = now
        assert [model["id"] for model in gateway.list_kernels() if model["execution_state"] != "dead"] in ([own], []), (
            here
        )

    check()


@pytest.mark.timeout(120)
def test_nothing_is_answered_to_who_has_no_token(module_gateway: Gateway, described: Description) -> None:
    gateway = module_gateway

    @ANYTHING
    @given(each(described, NAMES), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=50))
    def check(request: Request, token: str) -> None:
        if described.operation(request.template, request.method.lower()).get("security") == []:
            return
        headers = {name: value.encode("latin-1") for name, value in request.headers.items()}
        headers["Authorization"] = f"token {token}".encode()
        answer = gateway.request(request.method, request.path, request.body, token=None, headers=headers)  # type: ignore[arg-type]
        assert answer.status in (400, 401, 404), request  # 400 and 404: no such path at all
        if answer.status == 401:
            assert "message" in json.loads(answer.body or b'{"message": 0}')

    check()
    assert gateway.list_kernels() == []
