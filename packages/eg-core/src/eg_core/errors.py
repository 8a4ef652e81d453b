"""What can go wrong, as types. Nothing here knows HTTP; ``handlers/base.py`` alone maps classes to statuses.

::

    GatewayError                  message for the user, reason for metrics and models, detail for the log
    ├── InvalidRequest            the client asked for something that cannot be (names the field and the limit)
    │   └── NoSuchKernelspec      the name is not among the kernelspecs this user may see
    ├── LaunchDenied              policy or quota said no; nothing was created
    ├── LaunchFailed              the remote said no, or the kernel ended before it answered
    │   ├── LaunchTimeout         the launch's deadline passed
    │   └── LaunchCancelled       somebody deleted the kernel while it was starting
    ├── BackendUnavailable        the remote cannot be reached now; try again (``retry_after`` seconds)
    │   └── GatewayEnding         this gateway takes no new launch; the next one will
    ├── KernelStarting            the call needs a kernel that is ready
    └── KernelGone                there is no such kernel (any more)

A plugin raises these for what it expects, and lets everything else fly: an unexpected exception
reaches the user as "internal error" with the kernel's id, and the log with its traceback.
"""

from __future__ import annotations


class GatewayError(Exception):
    """An expected failure.

    ``message`` is a sentence for the user that says what to do next. ``reason`` is one word of a small
    set (a metric label and the model's ``reason_code``). ``detail`` goes to the log only.
    """

    reason = "error"

    def __init__(self, message: str, *, reason: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.detail = detail


class InvalidRequest(GatewayError):
    reason = "invalid_request"


class NoSuchKernelspec(InvalidRequest):
    reason = "no_such_kernelspec"


class LaunchDenied(GatewayError):
    reason = "denied"


class LaunchFailed(GatewayError):
    reason = "launch_failed"


class LaunchTimeout(LaunchFailed):
    reason = "launch_timeout"


class LaunchCancelled(LaunchFailed):
    reason = "cancelled"


class BackendUnavailable(GatewayError):
    reason = "backend_unavailable"

    def __init__(
        self, message: str, *, reason: str | None = None, detail: str | None = None, retry_after: float = 10.0
    ) -> None:
        super().__init__(message, reason=reason, detail=detail)
        self.retry_after = retry_after


class GatewayEnding(BackendUnavailable):
    reason = "gateway_ending"


class KernelStarting(GatewayError):
    reason = "starting"


class NoSuchRequest(GatewayError):
    """Nothing is kept of what a client once asked a kernel."""

    reason = "no_such_request"


class KernelGone(GatewayError):
    reason = "gone"
