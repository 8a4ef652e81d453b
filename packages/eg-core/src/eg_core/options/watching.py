"""What operators see: the log's format, and who may read the metrics."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, TraitError, Unicode, validate
from traitlets.config import Application

from eg_core.logs import HUMAN_FORMAT, JSON_FORMAT, logging_config


class WatchingOptions(Application):
    log_format = Unicode(
        HUMAN_FORMAT,
        help="Format of the log: 'human', 'json' (one object a line), or a format string of Python's logging module "
        "(EG_LOG_FORMAT).",
    ).tag(config=True)
    authenticate_prometheus = Bool(
        True,
        help="Ask for the token at /metrics, too. False opens it to whoever reaches the port "
        "(EG_AUTHENTICATE_PROMETHEUS).",
    ).tag(config=True)

    @validate("log_format")
    def _valid_log_format(self, proposal: Any) -> str:
        style = str(proposal["value"])
        if style not in (HUMAN_FORMAT, JSON_FORMAT) and "%(" not in style:
            raise TraitError(
                f"log_format must be 'human', 'json' or a format string such as '%(message)s', not {style!r}."
            )
        return style

    def get_default_logging_config(self) -> Any:
        """The base class calls it when the log's traits have changed."""
        config = super().get_default_logging_config()
        if "loggers" not in config:  # traitlets does not log without a console
            return config
        return logging_config(config, style=self.log_format, datefmt=self.log_datefmt, secrets=self._secrets)

    def _secrets(self) -> tuple[str, ...]:
        """What must never be in the log, as it is when a line is written."""
        return (str(getattr(self, "auth_token", "")),)
