import pytest

from eg_core import redact


def test_only_harmless_names_show_their_values():
    shown = redact.environment({"PATH": "/bin", "MY_THING": "s3cret", "KERNEL_USERNAME": "ann", "KERNEL_PASSWORD": "x"})
    assert shown == {"PATH": "/bin", "MY_THING": "…", "KERNEL_USERNAME": "ann", "KERNEL_PASSWORD": "…"}


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("GET /api/kernels?token=abc123def&x=1", "GET /api/kernels?token=…&x=1"),
        ("Authorization: token 0123456789abcdef", "Authorization: token …"),
        ("Authorization: Bearer eyJhbGciOi.x.y", "Authorization: Bearer …"),
        ("nothing of interest", "nothing of interest"),
        ("a token is needed", "a token is needed"),
    ],
)
def test_credentials_in_texts(message, kept):
    assert redact.text(message) == kept


def test_given_secrets_go_the_longest_first():
    assert redact.text("x=hunter22 y=hunter2", "hunter2", "hunter22", "") == "x=… y=…"
