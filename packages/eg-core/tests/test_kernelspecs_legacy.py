import pytest

from eg_core.kernelspecs.legacy import PROCESS_PROXIES, PROVISIONERS, backend_of

PREFIX = "enterprise_gateway.services.processproxies."


@pytest.mark.parametrize(
    ("class_name", "backend"),
    [
        ("processproxy.LocalProcessProxy", "local"),
        ("distributed.DistributedProcessProxy", "ssh"),
        ("yarn.YarnClusterProcessProxy", "yarn"),
        ("conductor.ConductorClusterProcessProxy", "conductor"),
        ("k8s.KubernetesProcessProxy", "kubernetes"),
        ("crd.CustomResourceProcessProxy", "kubernetes"),
        ("spark_operator.SparkOperatorProcessProxy", "kubernetes"),
        ("docker_swarm.DockerSwarmProcessProxy", "docker"),
        ("docker_swarm.DockerProcessProxy", "docker"),
    ],
)
def test_every_class_of_enterprise_gateway_is_known(class_name, backend):
    config = {"image_name": "elyra/kernel-py:3.2.3", "launch_timeout": 60}
    for prefix in (PREFIX, "moved.elsewhere.", ""):
        stanza = {"class_name": prefix + class_name, "config": config}
        assert backend_of({"process_proxy": stanza, "debugger": True}) == (backend, config)
    assert class_name.rpartition(".")[2] in PROCESS_PROXIES


@pytest.mark.parametrize("name", PROVISIONERS)
def test_every_provisioner_is_known(name):
    config = {"remote_hosts": "a,b"}
    stanza = {"provisioner_name": name, "config": config}
    assert backend_of({"kernel_provisioner": stanza}) == (PROVISIONERS[name], config)
    assert backend_of({"kernel_provisioner": {"provisioner_name": name}}) == (PROVISIONERS[name], {})


@pytest.mark.parametrize(
    "metadata",
    [{}, {"eg": {}}, {"process_proxy": {}}, {"process_proxy": None}, {"kernel_provisioner": {"config": None}}],
)
def test_nothing_said_means_local(metadata):
    assert backend_of(metadata) == ("local", {})


def test_the_newest_stanza_counts():
    proxy = {"class_name": "x.YarnClusterProcessProxy", "config": {"from": "proxy"}}
    provisioner = {"provisioner_name": "docker-provisioner", "config": {"from": "provisioner"}}
    eg = {"backend": "gpu-eu", "config": {"from": "eg"}}
    every = {"process_proxy": proxy, "kernel_provisioner": provisioner, "eg": eg}
    assert backend_of(every) == ("gpu-eu", {"from": "eg"})
    assert backend_of({**every, "eg": {"backend": "gpu-eu"}}) == ("gpu-eu", {})
    del every["eg"]
    assert backend_of(every) == ("docker", {"from": "provisioner"})
    every["kernel_provisioner"] = {"provisioner_name": "their-own", "config": {}}
    assert backend_of(every) == ("yarn", {"from": "proxy"})
    assert backend_of({**every, "eg": {"config": {"more": 1}}}) == ("yarn", {"from": "proxy", "more": 1})


def test_the_options_are_a_copy():
    config = {"a": 1}
    backend_of({"eg": {"backend": "local", "config": config}})[1]["b"] = 2
    assert config == {"a": 1}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (
            {"process_proxy": {"class_name": "acme.SpaceProcessProxy"}},
            r"names acme\.SpaceProcessProxy, which no backend",
        ),
        ({"process_proxy": {"class_name": "x.BaseProcessProxyABC"}}, "no backend stands for"),
        ({"process_proxy": {"class_name": ["x"]}}, "class_name must be a string"),
        ({"process_proxy": {"class_name": "x" * 513}}, "at most 512"),
        ({"process_proxy": "x"}, "process_proxy must be an object"),
        ({"kernel_provisioner": {"provisioner_name": "their-own"}}, "their-own, which no backend"),
        ({"kernel_provisioner": {"provisioner_name": "yarn-provisioner", "config": []}}, "config must be an object"),
        ({"eg": {"backend": "a b"}}, "a backend's name"),
        ({"eg": {"backend": ""}}, "a backend's name"),
        ({"eg": {"backend": 1}}, "a backend's name"),
        ({"eg": {"backend": "x", "config": "y"}}, r"eg\.config must be an object"),
        ({"eg": []}, r"metadata\.eg must be an object"),
    ],
)
def test_what_cannot_be_understood_is_said(metadata, words):
    with pytest.raises(ValueError, match=words):
        backend_of(metadata)
