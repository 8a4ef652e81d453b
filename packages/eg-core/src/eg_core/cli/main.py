"""``eg COMMAND``: the table of sub-commands. Each imports what it needs when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable

from eg_core import __version__

USAGE = """\
usage: eg COMMAND [OPTIONS]

  eg serve              start the gateway (also: jupyter enterprisegateway); options: eg serve --help
  eg lab [NOTEBOOK]     a gateway and a JupyterLab connected to it, to try it out on this machine;
                        with a notebook: run that through the gateway and write its outputs back
  eg doctor             look at what a gateway with this configuration needs, and say what is wrong
  eg kernels COMMAND    list, log, interrupt, restart, stop the kernels of a running gateway
  eg version            print the version
"""


def _serve(argv: list[str]) -> int:
    from eg_core.app import EnterpriseGatewayApp  # noqa: PLC0415 - a sub-command pays for its own imports

    EnterpriseGatewayApp.launch_instance(argv)
    return 0


def _lab(argv: list[str]) -> int:
    from eg_core.cli import lab  # noqa: PLC0415 - a sub-command pays for its own imports

    return lab.run(argv)


def _doctor(argv: list[str]) -> int:
    from eg_core.cli import doctor  # noqa: PLC0415 - a sub-command pays for its own imports

    return doctor.run(argv)


def _kernels(argv: list[str]) -> int:
    from eg_core.cli import kernels  # noqa: PLC0415 - a sub-command pays for its own imports

    return kernels.run(argv)


def _version(argv: list[str]) -> int:
    del argv
    print(__version__)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "serve": _serve,
    "lab": _lab,
    "doctor": _doctor,
    "kernels": _kernels,
    "version": _version,
}


def main() -> int:
    """The ``eg`` script."""
    argv = sys.argv[1:]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    command = COMMANDS.get(argv[0].removeprefix("--"))
    if command is None:
        print(f"eg: there is no command {argv[0]!r}\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    return command(argv[1:])


def enterprisegateway() -> int:
    """The ``jupyter-enterprisegateway`` script."""
    return _serve(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
