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


def test_mended_a_secret_does_not_reach_a_kernel_by_another_name():
    env = compose(
        {"EG_STORE_KEY": "c"},
        {"MINE": "<$EG_AUTH_TOKEN$EG_STORE_KEY>", "EG_AUTH_TOKEN": "spec"},
        gateway={"EG_AUTH_TOKEN": "s"},
        inherited=["EG_AUTH_TOKEN"],
        allowed=["*"],
    )
    assert env == {"MINE": "<$EG_AUTH_TOKEN$EG_STORE_KEY>", "KERNEL_GATEWAY": "1"}


def test_what_no_process_can_have_is_refused_however_it_came_about():
    with pytest.raises(InvalidRequest, match="variable KERNEL_A has more than 131071 bytes"):
        compose({"KERNEL_A": "\N{GRINNING FACE}" * MAX_VALUE})
    with pytest.raises(InvalidRequest, match="variable ALL has more than"):
        compose({"KERNEL_A": "x" * MAX_VALUE}, {"ALL": "$KERNEL_A" * 5})


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "PYTHONPATH", "PATH", "PYTHONSTARTUP", "kernel_x", "KERNEL", "XKERNEL_A"]
)
def test_what_changes_how_programs_run_is_not_the_clients_unless_allowed_by_its_whole_name(name):
    assert name not in compose({name: "x"}, allowed=["LD_", "PYTHON", "PATH_", "KERNEL*"])


def test_the_kernelspec_sees_what_is_there_and_the_client_wins_over_it():
    env = compose(
        {"KERNEL_USERNAME": "bob", "KERNEL_Q": "client"},
        {"HOME_OF": "/home/$KERNEL_USERNAME", "KERNEL_Q": "spec", "KEEP": "${NOBODY:-x}"},
    )
    assert env["HOME_OF"] == "/home/bob"
    assert env["KERNEL_Q"] == "client"
    assert env["KEEP"] == "${NOBODY:-x}"


def test_the_kernelspec_is_given_what_the_kernel_gets():
    env = compose(
        {"KERNEL_Q": "client"},
        {"KERNEL_Q": "spec", "OF_CLIENT": "<$KERNEL_Q>", "BASE": "/opt", "BELOW": "$BASE/lib"},
    )
    assert (env["OF_CLIENT"], env["BELOW"]) == ("<client>", "/opt/lib")


def test_an_inherited_variable_is_the_gateways_whatever_client_and_kernelspec_say():
    def value(**more):
        return compose({"HOME_OF": "client"}, {"HOME_OF": "spec"}, gateway={"HOME_OF": "gateway"}, **more)["HOME_OF"]

    assert value(inherited=["HOME_OF"]) == "gateway"
    assert value(inherited=["HOME_OF"], allowed=["HOME_OF"]) == "client"
    assert value() == "spec"


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
        ({"A" * 256: "x"}, "256 characters"),
        ({"A": "\ud800"}, "value of A holds half of a surrogate pair"),
        ({"KERNEL_WORKING_DIR": "/" + "x" * 4095}, "KERNEL_WORKING_DIR has 4096 bytes"),
        ({"KERNEL_USERNAME": "root "}, "begin or end with a blank"),
        ({"KERNEL_USERNAME": "\u3000root"}, "begin or end with a blank"),
        ({"KERNEL_USERNAME": "-u root"}, "nor begin with '-'"),
        ({"KERNEL_USERNAME": "#0"}, "nor begin with '-' or '#'"),
    ],
)
def test_refused_in_words(env, words):
    with pytest.raises(InvalidRequest, match=words):
        check_client_env(env)


def test_a_refused_value_is_not_repeated():
    with pytest.raises(InvalidRequest) as caught:
        check_client_env({"KERNEL_PASSWORD": "hunter2\0"})
    assert "hunter2" not in str(caught.value)
