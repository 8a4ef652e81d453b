"""An application that is configured as those it succeeds: their files, sections, variables and options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

from jupyter_core.application import JupyterApp
from traitlets import Integer, TraitError
from traitlets.config import Application

from eg_core.options import environment
from eg_core.options.legacy import LegacyOptions

KERNEL_GATEWAY_FILE = "jupyter_kernel_gateway_config"
_SHARED_FILE = "jupyter_config"

_App = TypeVar("_App", bound="ConfiguredApp")


class ConfiguredApp(LegacyOptions, JupyterApp):
    dynamic_config_interval = Integer(
        0, min=0, help="Seconds between two looks at the configuration files; 0: none (EG_DYNAMIC_CONFIG_INTERVAL)."
    ).tag(config=True)

    environ: Mapping[str, str] = {}

    raise_config_file_errors = True
    """Whoever wrote a file that cannot be read must be told, not be served without what it says."""

    def load_config_file(self, suppress_errors: bool = False) -> None:  # type: ignore[override]
        """Files called as Enterprise Gateway's, and below them Kernel Gateway's."""
        if not self.config_file:
            Application.load_config_file(self, KERNEL_GATEWAY_FILE, path=self.config_file_paths)
        super().load_config_file(suppress_errors=suppress_errors)

    def finish_configuration(self) -> Iterator[str]:
        """What comes below the files: the environment, and options that had another name. Yields what is to be told.

        Raises ValueError, TraitError or GatewayError in words.
        """
        yield from environment.apply(self, self.environ)
        yield from environment.apply_deprecated(self)
        yield from self.legacy_warnings(self.environ)

    def fresh(self: _App) -> _App:
        """Another one, configured by what the files say now. Raises for files that cannot be used."""
        other = type(self)(log=self.log)
        other.environ = self.environ
        other.cli_config = deepcopy(self.cli_config)
        other.update_config(deepcopy(self.cli_config))
        other.config_file = self.config_file
        try:
            other.load_config_file()
        except SystemExit:  # traitlets' answer to a wrong value; it has said which
            raise TraitError("a value is wrong (see above)") from None
        for _ in other.finish_configuration():
            pass  # said at start
        return other

    def config_file_candidates(self) -> Iterator[str]:
        """Every file that would be read if it were there."""
        names = [_SHARED_FILE]
        if self.config_file:
            yield from _both_kinds(Path(self.config_file))
        else:
            names += [KERNEL_GATEWAY_FILE, self.config_file_name]
        for folder in self.config_file_paths:
            for name in names:
                yield from _both_kinds(Path(folder, name))


def _both_kinds(path: Path) -> Iterator[str]:
    for suffix in (".py", ".json"):
        yield str(path.with_suffix(suffix))
