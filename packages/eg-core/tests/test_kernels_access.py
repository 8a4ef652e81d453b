"""Who may start what; then at the web, where nothing may be made for those who may not."""

import dataclasses
import getpass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eg_core.errors import InvalidRequest, LaunchDenied
from eg_core.kernels.access import Access, names_of
from web_support import add_kernelspec

ROOTLESS = Access(unauthorized=frozenset({"root"}))
AT_ONCE = {"Prefer": "respond-async"}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("bob,alice", {"bob", "alice"}),
        (" bob , ,alice,", {"bob", "alice"}),
        (["bob", " alice "], {"bob", "alice"}),
        ("", set()),
        ([], set()),
        (7, None),
        ({"bob": 1}, None),
        ([1], None),
        (b"bob", None),
    ],
)
def test_lists_are_read_in_every_way_they_are_written(value, names):
    assert names_of(value) == names


@pytest.mark.parametrize(
    ("options", "user", "may"),
    [
        ({}, "bob", True),
        ({}, "root", False),
        ({"authorized_users": "bob,alice"}, "bob", True),
        ({"authorized_users": "bob,alice"}, "li", False),  # part of a name is no name
        ({"authorized_users": ["bob"]}, "Bob", False),
        ({"authorized_users": "root"}, "root", False),
        ({"unauthorized_users": "bob,guest"}, "guest", False),
        ({"unauthorized_users": "bob,guest"}, "bo", True),
        ({"unauthorized_users": "bob", "authorized_users": "bob"}, "bob", False),
    ],
)
def test_a_kernelspecs_own_lists(options, user, may):
    assert (ROOTLESS.why_not(user, options) is None) is may


def test_a_kernelspecs_list_wins_over_the_gateways():
    access = Access(authorized=frozenset({"ann"}))
    assert access.why_not("ann", {}) is None
    assert access.why_not("bob", {}) is not None
    assert access.why_not("bob", {"authorized_users": "bob"}) is None


def test_who_names_nobody_is_judged_by_the_list_of_those_who_may_only():
    assert ROOTLESS.why_not("root", {}, named=False) is None
    with pytest.raises(LaunchDenied, match="send KERNEL_USERNAME"):
        ROOTLESS.check("root", {"authorized_users": "bob"}, named=False)


def test_a_list_that_cannot_be_read_lets_nobody_pass():
    with pytest.raises(InvalidRequest, match="authorized_users must be a list"):
        ROOTLESS.check("bob", {"authorized_users": 7}, named=True)


@given(st.text(min_size=1, max_size=8), st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1))
def test_only_whole_names_pass(user, names):
    assert (Access().why_not(user, {"authorized_users": ",".join(names)}) is None) == (user in names)


@pytest.fixture
def judged(web, kernelspecs):
    """Kernelspecs for some, and the gateway's own list."""
    sleep = ["sleep", "600"]
    stanza = {"process_proxy": {"class_name": "x.LocalProcessProxy", "config": {"authorized_users": "bob,alice"}}}
    add_kernelspec(kernelspecs, "some", sleep, metadata=stanza)
    add_kernelspec(kernelspecs, "useless", sleep, metadata={"eg": {"config": {"authorized_users": 7}}})
    web.settings["composer"] = dataclasses.replace(web.settings["composer"], access=ROOTLESS)
    return web


async def test_the_list_for_a_user_has_what_the_user_may_start(judged):
    async def names(query):
        return set((await judged("GET", f"/api/kernelspecs{query}"))[2]["kernelspecs"])

    every = await names("")
    assert {"some", "useless", "python3"} <= every
    assert await names("?user=bob") == every - {"useless"}
    assert await names("?user=li") == every - {"useless", "some"}
    assert await names("?user=root") == set()
    assert await names("?user=") == every


async def test_one_kernelspec_for_a_user(judged):
    assert (await judged("GET", "/api/kernelspecs/some?user=bob"))[0] == 200
    assert (await judged("GET", "/api/kernelspecs/some?user=li"))[0] == 403
    assert (await judged("GET", "/api/kernelspecs?user=bob/some"))[2]["name"] == "some"  # as jupyter_server writes it
    assert (await judged("GET", "/api/kernelspecs?user=li/some"))[0] == 403


@pytest.mark.parametrize(
    ("name", "env", "status"),
    [
        ("some", {"KERNEL_USERNAME": "li"}, 403),
        ("some", {}, 403),
        ("useless", {"KERNEL_USERNAME": "bob"}, 400),
        ("sleepy", {"KERNEL_USERNAME": "root"}, 403),
        ("some", {"KERNEL_USERNAME": "bob"}, 201),
        ("sleepy", {}, 201),
    ],
)
async def test_who_may_not_start_makes_nothing(judged, name, env, status):
    answer, _, body = await judged("POST", "/api/kernels", {"name": name, "env": env}, headers=AT_ONCE)
    assert answer == status
    kernels = judged.registry.all_kernels()
    assert len(kernels) == (1 if status == 201 else 0)
    if status == 201:
        assert kernels[0].record.owner == env.get("KERNEL_USERNAME", getpass.getuser())
    else:
        assert {"reason", "message"} <= set(body)
