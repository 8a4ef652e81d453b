import json

import pytest

from eg_launcher import wire
from eg_launcher.http1 import HttpError, Response, parse_head


def head(*lines):
    return parse_head("\r\n".join(lines).encode("latin-1"))


def test_a_request():
    request = head(
        "GET /api/kernels/a%20b/channels?session_id=s%2F1&peer=strong HTTP/1.1",
        "Host: x",
        "CONNECTION: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Protocol: a",
        "Sec-WebSocket-Protocol: b, c",
        "Content-Length:  12 ",
    )
    assert (request.method, request.path) == ("GET", ("api", "kernels", "a b", "channels"))
    assert request.query == {"session_id": "s/1", "peer": "strong"}
    assert request.lists("sec-websocket-protocol") == ["a", "b", "c"]
    assert request.wants_websocket
    assert request.keep_alive
    assert request.length == 12


def test_the_prefix_and_doubled_slashes_change_nothing_but_the_path():
    assert head("GET //a///b/ HTTP/1.1").path in (("a", "b"), ("b",))
    assert head("GET http://host/a HTTP/1.1").path == ("a",)


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        (["GET / HTTP/1.1"], True),
        (["GET / HTTP/1.1", "Connection: Close"], False),
        (["GET / HTTP/1.0"], False),
        (["GET / HTTP/1.0", "Connection: keep-alive"], False),
    ],
)
def test_keep_alive(lines, keep):
    assert head(*lines).keep_alive is keep


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([""], 400),
        (["GET /"], 400),
        (["GET  / HTTP/1.1"], 400),
        (["G\x00T / HTTP/1.1"], 400),
        (["GET / HTTP/2"], 400),
        (["GET / SIP/2.0"], 400),
        (["GET nowhere HTTP/1.1"], 400),
        (["OPTIONS * HTTP/1.1"], 400),
        (["GET /%ff HTTP/1.1"], 400),
        (["GET /a\tb HTTP/1.1"], 400),
        (["GET http://[ HTTP/1.1"], 400),
        (["GET /?" + "a=1&" * 100 + " HTTP/1.1"], 400),
        (["GET / HTTP/1.1", "no colon"], 400),
        (["GET / HTTP/1.1", "Space : 1"], 400),
        (["GET / HTTP/1.1", "A: 1", " folded"], 400),
        (["GET / HTTP/1.1", "A: \x00"], 400),
        (["GET / HTTP/1.1", "A: a\rb"], 400),
        (["GET / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"], 400),
        (["GET / HTTP/1.1", "Authorization: token a", "Authorization: token b"], 400),
        (["GET / HTTP/1.1", "Content-Length: +1"], 400),
        (["GET / HTTP/1.1", "Content-Length: -1"], 400),
        (["GET / HTTP/1.1", "Content-Length: 1_0"], 400),
        (["GET / HTTP/1.1", "Content-Length: ²"], 400),
        (["GET / HTTP/1.1", "Content-Length: 99999999999999999999"], 400),
        (["GET / HTTP/1.1", f"Content-Length: {wire.MAX_BODY + 1}"], 413),
        (["POST / HTTP/1.1", "Transfer-Encoding: chunked"], 411),
    ],
)
def test_what_is_refused(lines, status):
    with pytest.raises(HttpError) as caught:
        head(*lines)
    assert caught.value.status == status
    assert caught.value.reason.replace("_", "").isalpha()


def test_a_response():
    answer = Response.of_json({"a": "\ud800é"}, 202, headers={"Allow": "GET"}).encode(keep_alive=True)
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert b"\r\nAllow: GET\r\n" in top
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in top
    assert top.endswith(b"Connection: keep-alive")
    assert json.loads(body) == {"a": "\ud800é"}


def test_204_has_neither_body_nor_length():
    answer = Response(204).encode(keep_alive=False)
    assert b"Content-Length" not in answer
    assert answer.endswith(b"Connection: close\r\n\r\n")


def test_an_error_says_why():
    response = HttpError(426, "protocol", "No.", more={"protocol": [1, 0]}).response()
    assert json.loads(response.body) == {"reason": "protocol", "message": "No.", "protocol": [1, 0]}
