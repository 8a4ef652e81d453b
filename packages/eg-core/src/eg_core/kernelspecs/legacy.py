"""Which backend a kernelspec means, and with which options: our own stanza, and those of the field's other projects.

``metadata.eg``                  ``{"backend": "gpu-eu", "config": {…}}``; the backend is an instance's name
``metadata.kernel_provisioner``  gateway_provisioners': ``{"provisioner_name": "yarn-provisioner", "config": {…}}``
``metadata.process_proxy``       Enterprise Gateway's: ``{"class_name": "….YarnClusterProcessProxy", "config": {…}}``

They count in this order. A class is known by its last dotted component (the modules have moved between versions)
and is never imported. Whether a backend of that name is installed is not decided here.
"""

# ruff: noqa: TRY004 - a wrong type in JSON is a wrong value

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LOCAL = "local"

PROVISIONERS = {
    "local-provisioner": LOCAL,
    "distributed-provisioner": "ssh",
    "yarn-provisioner": "yarn",
    "kubernetes-provisioner": "kubernetes",
    "spark-operator-provisioner": "kubernetes",
    "docker-swarm-provisioner": "docker",
    "docker-provisioner": "docker",
}

PROCESS_PROXIES = {
    "LocalProcessProxy": LOCAL,
    "DistributedProcessProxy": "ssh",
    "YarnClusterProcessProxy": "yarn",
    "ConductorClusterProcessProxy": "conductor",
    "KubernetesProcessProxy": "kubernetes",
    "CustomResourceProcessProxy": "kubernetes",
    "SparkOperatorProcessProxy": "kubernetes",
    "DockerSwarmProcessProxy": "docker",
    "DockerProcessProxy": "docker",
}

_BACKEND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def backend_of(metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The backend's name and the options. Raises ValueError in words for a stanza that cannot be understood.

    ``metadata.eg`` without a backend adds its options to those of an older stanza.
    """
    eg = _stanza(metadata, "eg")
    config = _config(eg, "eg")
    if eg.get("backend") is None:
        backend, older = _older_stanza(metadata)
        return backend, {**older, **config}
    backend = eg["backend"]
    if not isinstance(backend, str) or not _BACKEND_NAME.fullmatch(backend):
        raise ValueError("metadata.eg.backend must be a backend's name: letters, digits and ._-, at most 64")
    return backend, config


def _older_stanza(metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    provisioner = _stanza(metadata, "kernel_provisioner")
    proxy = _stanza(metadata, "process_proxy")
    name = _text(provisioner, "kernel_provisioner", "provisioner_name")
    if name in PROVISIONERS:
        return PROVISIONERS[name], _config(provisioner, "kernel_provisioner")
    class_name = _text(proxy, "process_proxy", "class_name")
    if class_name:
        short = class_name.rpartition(".")[2]
        if short not in PROCESS_PROXIES:
            raise ValueError(
                f"metadata.process_proxy.class_name names {class_name}, which no backend stands for; name one in "
                f"metadata.eg.backend, or use one of {', '.join(PROCESS_PROXIES)}"
            )
        return PROCESS_PROXIES[short], _config(proxy, "process_proxy")
    if name:
        raise ValueError(
            f"metadata.kernel_provisioner.provisioner_name is {name}, which no backend stands for; name one in "
            f"metadata.eg.backend, or use one of {', '.join(PROVISIONERS)}"
        )
    return LOCAL, {}


def _stanza(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    stanza = metadata.get(name)
    if stanza is None:
        return {}
    if not isinstance(stanza, Mapping):
        raise ValueError(f"metadata.{name} must be an object")
    return stanza


def _config(stanza: Mapping[str, Any], name: str) -> dict[str, Any]:
    config = stanza.get("config")
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise ValueError(f"metadata.{name}.config must be an object")
    return dict(config)


def _text(stanza: Mapping[str, Any], name: str, key: str) -> str:
    value = stanza.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 512:
        raise ValueError(f"metadata.{name}.{key} must be a string of at most 512 characters")
    return value
