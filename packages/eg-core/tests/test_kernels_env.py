import pytest

from eg_core.errors import InvalidRequest
from eg_core.kernels.env import MAX_VALUE, check_client_env, kernel_env


def compose(client=None, kernelspec=None, *, gateway=None, inherited=(), allowed=(), own=None):
    return kernel_env(
        client=client or {},
        kernelspec=kernelspec or {},
        gateway=gateway or {},
        inherited_envs=inherited,
        client_envs=allowed,
        own=own or {},
    )


def test_only_kernel_variables_and_allowed_ones_come_from_the_client():
    env = compose({"KERNEL_X": "1", "MINE": "2", "OTHER": "3"}, allowed=["MINE"])
    assert env == {"KERNEL_X": "1", "MINE": "2", "KERNEL_GATEWAY": "1"}
    assert compose({"OTHER": "3"}, allowed=["*"])["OTHER"] == "3"


def test_nothing_of_the_gateway_but_what_is_inherited():
    env = compose(gateway={"EG_AUTH_TOKEN": "s", "PATH": "/bin", "AWS_KEY": "k"}, inherited=["PATH", "EG_AUTH_TOKEN"])
    assert env == {"PATH": "/bin", "KERNEL_GATEWAY": "1"}


def test_the_kernelspec_sees_what_is_there_and_the_client_wins_over_it():
    env = compose(
        {"KERNEL_USERNAME": "bob", "KERNEL_Q": "client"},
        {"HOME_OF": "/home/$KERNEL_USERNAME", "KERNEL_Q": "spec", "KEEP": "${NOBODY:-x}"},
    )
    assert env["HOME_OF"] == "/home/bob"
    assert env["KERNEL_Q"] == "client"
    assert env["KEEP"] == "${NOBODY:-x}"


def test_what_the_gateway_says_wins_over_all():
    env = compose({"KERNEL_ID": "theirs"}, {"KERNEL_GATEWAY": "0"}, own={"KERNEL_ID": "ours"})
    assert (env["KERNEL_ID"], env["KERNEL_GATEWAY"]) == ("ours", "1")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ([], "must be an object"),
        ({"A B": "x"}, "'A B'"),
        ({"A=B": "x"}, "letters, digits"),
        ({"A": 1}, "value of A must be a string, not int"),
        ({"A": "x\0y"}, "value of A contains a NUL"),
        ({"A": "x" * (MAX_VALUE + 1)}, f"at most {MAX_VALUE}"),
        ({f"A{i}": "" for i in range(2000)}, "2000 entries"),
    ],
)
def test_refused_in_words(env, words):
    with pytest.raises(InvalidRequest, match=words):
        check_client_env(env)


def test_a_refused_value_is_not_repeated():
    with pytest.raises(InvalidRequest) as caught:
        check_client_env({"KERNEL_PASSWORD": "hunter2\0"})
    assert "hunter2" not in str(caught.value)
