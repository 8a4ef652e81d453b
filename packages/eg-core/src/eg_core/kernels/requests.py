"""From what a client asks to what the registry starts: kernelspec, owner, environment, working directory. No I/O
but the kernelspec finder's cache, and a look for the working directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eg_core.errors import InvalidRequest
from eg_core.kernels.access import Access
from eg_core.kernels.env import kernel_env
from eg_core.kernels.settings import NewKernel
from eg_core.kernelspecs.finder import Kernelspec, KernelspecFinder
from eg_core.types import KernelStart


@dataclass(frozen=True)
class KernelRequest:
    """The body of ``POST /api/kernels``, checked field by field."""

    name: str | None
    env: Mapping[str, str]
    path: str | None = None
    kernel_id: str | None = None


@dataclass(frozen=True)
class Composer:
    """Turns requests into kernels to start. ``environ`` is the gateway's environment, read once at start."""

    finder: KernelspecFinder
    default_kernel_name: str
    user: str  # who owns what is asked for without a name
    inherited_envs: Collection[str]
    client_envs: Collection[str]
    environ: Mapping[str, str] = field(repr=False)
    access: Access = Access()  # noqa: RUF009 - frozen
    force_kernel_name: str = ""
    root_dir: str = ""

    def owner(self, env: Mapping[str, str]) -> str:
        return env.get("KERNEL_USERNAME") or self.user

    def compose(self, request: KernelRequest, kernel_id: str) -> NewKernel:
        """Raises NoSuchKernelspec, InvalidRequest, LaunchDenied."""
        kernelspec = self.finder.get(self.force_kernel_name or request.name or self.default_kernel_name)
        owner = self.owner(request.env)
        self.access.check(owner, kernelspec.options, named=bool(request.env.get("KERNEL_USERNAME")))
        env = kernel_env(
            client=request.env,
            kernelspec=kernelspec.env,
            gateway=self.environ,
            inherited_envs=self.inherited_envs,
            client_envs=self.client_envs,
            own={
                "KERNEL_ID": kernel_id,
                "KERNEL_USERNAME": owner,
                "KERNEL_LANGUAGE": request.env.get("KERNEL_LANGUAGE") or kernelspec.language.lower(),
            },
        )
        return NewKernel(
            kernel_id=kernel_id,
            kernelspec=kernelspec.name,
            backend=kernelspec.backend,
            owner=owner,
            options=kernelspec.options,
            launch_timeout=_launch_timeout(kernelspec),
            start=KernelStart(
                argv=list(kernelspec.argv),
                env=env,
                cwd=request.env.get("KERNEL_WORKING_DIR") or working_directory(request.path, self.root_dir),
                interrupt_mode=kernelspec.interrupt_mode,
            ),
        )


def working_directory(path: str | None, root_dir: str) -> str | None:
    """The nearest folder of a document's path: paths of Jupyter's API lie below ``root_dir``. An absolute one that is
    a folder is taken as it is, as a program on the same host means it."""
    if not path:
        return None
    try:
        if Path(path).is_absolute() and Path(path).is_dir():
            return path
        root = Path(root_dir or ".").resolve()
        folder = (root / path.lstrip("/")).resolve()
        while not folder.is_dir() and folder != root and folder.is_relative_to(root):
            folder = folder.parent
        return str(folder if folder.is_relative_to(root) else root)
    except (OSError, RuntimeError):  # too long, links in a circle: the launcher has a folder of its own
        return None


def _launch_timeout(kernelspec: Kernelspec) -> float | None:
    """The kernelspec's own launch timeout in seconds, if it has one."""
    stanza = kernelspec.metadata.get("eg")
    value = stanza.get("launch_timeout") if isinstance(stanza, Mapping) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 86400:
        raise InvalidRequest(
            f"Kernelspec {kernelspec.name!r}: metadata.eg.launch_timeout must be seconds up to 86400, not {value!r}."
        )
    return float(value)
