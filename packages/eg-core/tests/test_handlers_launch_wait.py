import pytest

from eg_core.handlers.starting import launch_wait


@pytest.mark.parametrize(
    ("env", "prefer", "seconds"),
    [
        ({}, None, 25.0),
        ({"KERNEL_LAUNCH_TIMEOUT": "40"}, None, 25.0),
        ({"KERNEL_LAUNCH_TIMEOUT": "10"}, None, 8.0),
        ({"KERNEL_LAUNCH_TIMEOUT": "1"}, None, 0.0),
        ({"KERNEL_LAUNCH_TIMEOUT": "soon"}, None, 25.0),
        ({"KERNEL_LAUNCH_TIMEOUT": "nan"}, None, 25.0),
        ({}, "respond-async", 0.0),
        ({}, "wait=3", 3.0),
        ({}, "foo; bar, Wait=100", 100.0),
        ({}, "wait=999999", 3600.0),
        ({}, "wait=-1", 25.0),
        ({}, "wait=²", 25.0),
        ({}, "wait=" + "9" * 5000, 3600.0),
    ],
)
def test_how_long_a_post_waits(env, prefer, seconds):
    assert launch_wait(env, prefer, 25.0) == seconds
