"""Pages of other origins: which may come in, and what their browsers are told; unit, then over the web."""

import asyncio

import pytest

from eg_core.handlers.cors import Cors, names_this_machine
from gateway_support import gateway
from web_support import TOKEN, serving

PAGE, OTHER = "https://pages.example", "https://other.example"
FULL = Cors(
    allow_origin=PAGE,
    allow_credentials="true",
    allow_headers="Authorization,Content-Type",
    allow_methods="GET,POST",
    expose_headers="X-Something",
    max_age="600",
)


@pytest.mark.parametrize(
    ("allow", "origin", "allowed"),
    [
        ("", None, True),
        ("", "http://gw:8888", True),
        ("", "http://GW:8888", True),
        ("", "http://gw:8889", False),
        ("", "null", False),
        ("", "", False),
        ("", "http://[", False),
        ("*", OTHER, True),
        ("*", "null", True),
        (PAGE, PAGE, True),
        (PAGE, PAGE.upper(), True),
        (PAGE, OTHER, False),
        (PAGE, f"{PAGE}.evil.example", False),
        (f"{OTHER}, {PAGE}/", PAGE, True),
    ],
)
def test_which_origins_may_come_in(allow, origin, allowed):
    assert Cors(allow_origin=allow).allows(origin, "gw:8888") is allowed


def test_a_request_without_a_host_is_no_pages_own():
    assert not Cors().allows("http://", "")


def test_only_what_is_configured_is_said():
    assert dict(Cors().headers(PAGE)) == {}
    assert dict(Cors(allow_origin="*").headers(PAGE)) == {"Access-Control-Allow-Origin": "*"}
    assert dict(FULL.headers(None)) == {
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Headers": "Authorization,Content-Type",
        "Access-Control-Allow-Methods": "GET,POST",
        "Access-Control-Allow-Origin": PAGE,
        "Access-Control-Expose-Headers": "X-Something",
        "Access-Control-Max-Age": "600",
    }


def test_of_several_origins_a_browser_is_told_its_own():
    several = Cors(allow_origin=f"{PAGE},{OTHER}")
    assert dict(several.headers(OTHER)) == {"Vary": "Origin", "Access-Control-Allow-Origin": OTHER}
    assert dict(several.headers("https://x")) == {"Vary": "Origin"}


@pytest.fixture
async def page_web(tmp_path, short_tmp, kernelspecs):
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs, cors=FULL) as web:
        yield web


async def test_a_browser_may_ask_without_a_token(page_web):
    for path in ("/api/kernels", "/api/sessions", "/api/kernelspecs", "/api", "/kernelspecs/logo/logo-64x64.png"):
        status, headers, body = await page_web("OPTIONS", path, headers={"Origin": PAGE}, token=None)
        assert (status, body) == (200, "")
        assert headers["Access-Control-Allow-Origin"] == PAGE


async def test_an_error_can_be_read_by_the_page_too(page_web):
    status, headers, _ = await page_web("GET", "/api/kernels", headers={"Origin": PAGE}, token=None)
    assert (status, headers["Access-Control-Allow-Origin"]) == (401, PAGE)
    status, headers, _ = await page_web("GET", "/nowhere", headers={"Origin": PAGE})
    assert (status, headers["Access-Control-Allow-Origin"]) == (404, PAGE)


async def test_another_page_makes_nothing(page_web):
    status, _, body = await page_web("POST", "/api/kernels", {}, headers={"Origin": OTHER})
    assert status == 404
    assert "allow_origin" in body["message"]
    assert page_web.registry.all_kernels() == []
    status, _, _ = await page_web("GET", f"/api/kernels?token={TOKEN}", headers={"Origin": PAGE}, token=None)
    assert status == 200


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("LOCALHOST:8888", True),
        ("gw.localhost:8888", True),
        ("127.0.0.1:8888", True),
        ("192.0.2.7", True),
        ("[::1]:8888", True),
        ("[::1]", True),
        ("", False),
        ("evil.example:8888", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("notlocalhost", False),
    ],
)
def test_names_that_a_pages_dns_cannot_have_made_up(host, own):
    assert names_this_machine(host) is own


async def test_mended_without_a_token_a_page_whose_dns_points_here_is_refused(tmp_path, short_tmp, kernelspecs):
    """DNS rebinding: for the browser the page and the gateway are one host, so it asks nobody."""
    options = {"auth_token": "", "own_names_only": True}
    async with gateway(tmp_path, short_tmp) as registry, serving(registry, kernelspecs, **options) as web:
        for headers in ({"Host": "evil.example"}, {"Host": "evil.example", "Origin": "http://evil.example"}):
            for method, path in (("POST", "/api/kernels"), ("GET", "/api/kernels"), ("GET", "/metrics")):
                status, _, body = await web(method, path, headers=headers, token=None)
                assert status == 403
                assert "EG_AUTH_TOKEN" in body["message"]
        assert registry.all_kernels() == []
        assert (await web("GET", "/api", token=None))[0] == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")  # a proxy's check; a browser always names the host
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
