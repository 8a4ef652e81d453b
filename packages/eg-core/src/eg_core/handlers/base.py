"""What all handlers share: the token, JSON in and out, and the one table from error class to HTTP status."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any, ClassVar

from tornado import web

from eg_core import errors, logs
from eg_core.handlers import credential
from eg_core.handlers.cors import Cors, names_this_machine
from eg_core.kernels.registry import KernelRegistry
from eg_core.launchers.client import LauncherUnreachable
from eg_core.store.store import DuplicateKernel
from eg_core.tls import is_issued_to

STATUSES: tuple[tuple[type[errors.GatewayError], HTTPStatus], ...] = (
    (errors.NoSuchKernelspec, HTTPStatus.NOT_FOUND),
    (errors.InvalidRequest, HTTPStatus.BAD_REQUEST),
    (errors.LaunchDenied, HTTPStatus.FORBIDDEN),
    (errors.LaunchCancelled, HTTPStatus.CONFLICT),
    (errors.LaunchFailed, HTTPStatus.INTERNAL_SERVER_ERROR),  # proxies replace the bodies of 502 and 504
    (errors.BackendUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (LauncherUnreachable, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.KernelStarting, HTTPStatus.CONFLICT),
    (DuplicateKernel, HTTPStatus.CONFLICT),
    (errors.KernelGone, HTTPStatus.NOT_FOUND),
    (errors.NoSuchRequest, HTTPStatus.NOT_FOUND),
    (errors.GatewayError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


def status_of(error: errors.GatewayError) -> HTTPStatus:
    return next(status for kind, status in STATUSES if isinstance(error, kind))


class GatewayHandler(web.RequestHandler):
    """Authenticated unless a subclass says ``public = True``; every error is JSON ``{"reason", "message"}``."""

    public: ClassVar[bool] = False
    foreign_origin: ClassVar[int] = 404
    """The status for a page of an origin that may not come in; Enterprise Gateway's."""

    @property
    def registry(self) -> KernelRegistry:
        registry: KernelRegistry = self.settings["registry"]
        return registry

    @property
    def log(self) -> logging.Logger:
        log: logging.Logger = self.settings["log"]
        return log

    @property
    def cors(self) -> Cors:
        cors: Cors = self.settings.get("cors") or Cors()
        return cors

    @property
    def base_url(self) -> str:
        return str(self.settings["base_url"])

    @property
    def request_id(self) -> str:
        """Stands on every line of the log that this request caused, and in the answer."""
        found: str | None = self.__dict__.get("_request_id")
        if found is None:
            found = self.__dict__["_request_id"] = logs.request_id(self.request.headers.get("X-Request-ID"))
        return found

    def set_default_headers(self) -> None:
        self.set_header("Server", "eg")
        self.set_header("X-Request-ID", self.request_id)
        self.set_header("X-Content-Type-Options", "nosniff")
        for name, value in self.cors.headers(self.request.headers.get("Origin")):
            self.set_header(name, value)

    async def prepare(self) -> None:
        logs.bind(request_id=self.request_id, kernel_id=self.path_kwargs.get("kernel_id"))
        if self.request.method == "OPTIONS":
            return  # a browser asks before it sends the page's request, and sends no token along
        self._check_certificate()
        self._check_host()
        if not self.public and self.current_user is None:
            self.set_header("WWW-Authenticate", 'Bearer realm="eg"')
            raise web.HTTPError(
                401, "Give the gateway's token as 'Authorization: token …' (jupyter_server: GatewayClient.auth_token)."
            )
        logs.bind(user=self.current_user)
        if self._is_foreign():
            raise web.HTTPError(
                self.foreign_origin,
                "Pages of this origin may not use the gateway (EnterpriseGatewayApp.allow_origin says which may).",
            )

    async def options(self, *_args: str, **_kwargs: str) -> None:
        """The headers say it all."""
        self._is_foreign()

    def _is_foreign(self) -> bool:
        """Said in the log too: a browser tells a page that may not come in nothing of what it was told."""
        origin = self.request.headers.get("Origin")
        if self.check_origin(origin):
            return False
        said = "%s %s: pages of %.200r may not use the gateway (EnterpriseGatewayApp.allow_origin says which may)"
        self.log.info(said, self.request.method, self.request.path, origin)
        return True

    def _check_host(self) -> None:
        """Without a token, a browser's own rule (a page of this very host may come in) is all that keeps foreign pages
        out, and their DNS can say that their host is this machine. A browser always names the host."""
        host = self.request.headers.get("Host")
        if host is not None and self.settings.get("own_names_only") and not names_this_machine(host):
            raise web.HTTPError(
                403,
                "Without a token the gateway answers only to localhost and to addresses, not to other names in the "
                "Host header. Set EG_AUTH_TOKEN, or say EnterpriseGatewayApp.allow_unauthenticated=True.",
            )

    def _check_certificate(self) -> None:
        expected = self.settings.get("authorized_origin")
        if not expected:
            return
        certificate = self.request.get_ssl_certificate()
        if not isinstance(certificate, dict) or not is_issued_to(certificate, expected):
            raise web.HTTPError(403, "The client's certificate is not issued to who may use the gateway.")

    def get_current_user(self) -> str | None:
        """Whoever has the token is the trusted service; without a token set, everybody who reaches the port is."""
        given = credential.given_token(self.request.query, self.request.headers)
        return "service" if credential.is_right(given, self.settings["auth_token"]) else None

    def check_origin(self, origin: str | None) -> bool:
        """A browser says where its page comes from: pages of this very host and of allowed origins may come in."""
        return self.cors.allows(origin, self.request.headers.get("Host", ""))

    def check_xsrf_cookie(self) -> None:
        """No cookie authenticates here, so there is nothing to forge."""

    def json_body(self) -> dict[str, Any]:
        """The request's JSON object; an empty body is an empty object."""
        if not self.request.body.strip():
            return {}
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise errors.InvalidRequest("The request's body is not valid JSON.") from None
        if not isinstance(body, dict):
            raise errors.InvalidRequest("The request's body must be a JSON object.")
        return body

    def write_json(self, value: Any, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        body: dict[str, Any]
        if isinstance(error, errors.GatewayError):
            body = self._expected(error)
        elif isinstance(error, web.HTTPError):
            self.set_status(error.status_code)
            phrase = error.reason or HTTPStatus(error.status_code).phrase
            body = {"reason": phrase, "message": self._words(error)}
        else:
            self.set_status(500)
            body = {"reason": "Internal error", "message": "Internal error; the gateway's log has the details."}
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body))

    def _words(self, error: web.HTTPError) -> str:
        if error.log_message:
            return error.log_message % error.args if error.args else error.log_message.replace("%%", "%")
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return f"{(self.request.method or '')[:20]} cannot be used on {self.request.path[:200]}."
        return "The request cannot be understood."

    def _expected(self, error: errors.GatewayError) -> dict[str, Any]:
        """Stock clients show the status line's phrase or ``reason``, so both carry the essence."""
        status = status_of(error)
        phrase = "".join(c for c in error.message.replace("\n", " ") if " " <= c <= "~")[:200]
        self.set_status(status, phrase or status.phrase)
        if isinstance(error, errors.BackendUnavailable):
            self.set_header("Retry-After", str(max(1, round(error.retry_after))))
        if isinstance(error, errors.LaunchFailed) or status >= 500:
            return {"reason": error.message, "message": error.message, "reason_code": error.reason}
        return {"reason": status.phrase, "message": error.message, "reason_code": error.reason}

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, errors.GatewayError):
            self.log.info("%s %s: %s", self.request.method, self.request.path, value)
        elif isinstance(value, web.HTTPError):
            self.log.debug("%s %s: %s", self.request.method, self.request.path, value)
        else:
            self.log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))


class NotFoundHandler(GatewayHandler):
    """Everything that is in no route."""

    public = True

    async def prepare(self) -> None:
        raise web.HTTPError(404, f"There is nothing at {self.request.path}.")
