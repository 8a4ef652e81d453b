"""The program: its command line, configuration files, variables, signals and what it writes."""

from __future__ import annotations

import json
import re
import signal
import socket

import pytest
from eg_compat.gateways import APP, CONFIG_FILE, Config, free_port
from eg_integration.waiting import wait_until

PLAIN = Config(token="")
CORS_NAMES = ("ALLOW_CREDENTIALS", "ALLOW_HEADERS", "ALLOW_METHODS", "ALLOW_ORIGIN", "EXPOSE_HEADERS", "MAX_AGE")
VARIABLES = {
    "BASE_URL": "/below",
    "AUTH_TOKEN": "from-the-environment",
    "LIST_KERNELS": "True",
    "DEFAULT_KERNEL_NAME": "other",
    "MAX_KERNELS": "0",
    "ALLOW_CREDENTIALS": "true",
    "ALLOW_HEADERS": "X-One",
    "ALLOW_METHODS": "GET",
    "ALLOW_ORIGIN": "https://pages.example",
    "EXPOSE_HEADERS": "X-Two",
    "MAX_AGE": "5",
}
EG_TRAITS = {
    "port_retries": "5", "ip": "127.0.0.1", "base_url": "/", "auth_token": "", "allow_credentials": "true",
    "allow_headers": "X-One", "allow_methods": "GET", "allow_origin": "*", "expose_headers": "X-Two", "max_age": "5",
    "trust_xheaders": "True", "max_kernels": "7", "max_kernels_per_user": "3",
    "default_kernel_name": "python3", "list_kernels": "True", "client_envs": "['A']", "inherited_envs": "['B']",
    "env_whitelist": "['A']", "env_process_whitelist": "['B']", "kernel_headers": "['X-H']",
    "remote_hosts": "['localhost']", "load_balancing_algorithm": "round-robin",
    "yarn_endpoint": "http://localhost:8088/ws/v1/cluster", "alt_yarn_endpoint": "http://localhost:8089/ws/v1/cluster",
    "yarn_endpoint_security_enabled": "False", "conductor_endpoint": "http://localhost:8090",
    "impersonation_enabled": "False", "unauthorized_users": "{'root'}", "authorized_users": "{'alice'}",
    "authorized_origin": "", "port_range": "40000..50000", "ws_ping_interval": "30", "dynamic_config_interval": "0",
}  # fmt: skip
OTHER_TRAITS = (
    "--KernelSpecCache.cache_enabled=True", "--FileKernelSessionManager.enable_persistence=False",
    "--RemoteMappingKernelManager.cull_idle_timeout=600", "--RemoteMappingKernelManager.cull_interval=60",
    "--RemoteMappingKernelManager.cull_connected=False", "--RemoteMappingKernelManager.cull_busy=False",
    "--RemoteMappingKernelManager.kernel_info_timeout=60", "--MappingKernelManager.cull_idle_timeout=600",
    "--RemoteKernelManager.shutdown_wait_time=5.0", "--KernelSpecManager.ensure_native_kernel=False",
)  # fmt: skip


def complaints(text):
    """What a program says of options it does not know."""
    return sorted(set(re.findall(r"(?:not recognized|[Uu]nrecognized|[Ii]nvalid).{0,80}", text)))


def test_it_says_where_it_is(gateways, gateway_kind, agree):
    gw = gateways(PLAIN)
    said = re.search(r"(?m)^(\S.*) (Jupyter .* is available at .*)$", gw.log())
    assert said, gw.log()
    agree(
        {
            "words": bool(re.fullmatch(r"Jupyter \w+ Gateway \S+ is available at http://127\.0\.0\.1:\d+/?", said[2])),
            "stamp": bool(re.fullmatch(r"\[I \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \w+\]", said[1])),
        },
        {"words": True, "stamp": True},
    )


@pytest.mark.parametrize("option", ["--help", "--help-all", "--version"])
def test_help_and_version(fresh, gateway_kind, agree, option):
    done = fresh(PLAIN).run(option)
    named = {"--help": "--port", "--help-all": f"{APP[gateway_kind]}.port", "--version": "."}[option]
    agree({option: (done.returncode, named in done.stdout)}, {option: (0, True)})


def test_generate_config(fresh, gateway_kind, agree):
    gw = fresh(PLAIN)
    done = gw.run("--generate-config")
    written = gw.folder / "config" / f"{CONFIG_FILE[gateway_kind]}.py"
    text = written.read_text() if written.exists() else ""
    again = gw.run("--generate-config", "-y")
    agree(
        {"exit": done.returncode, "written": written.exists(), "names a trait": f"# c.{APP[gateway_kind]}.port" in text,
         "again with -y": again.returncode},
        {"exit": 0, "written": True, "names a trait": True, "again with -y": 0},
    )  # fmt: skip


def test_show_config(fresh, gateway_kind, agree):
    done = fresh(PLAIN).run("--show-config-json", f"--{APP[gateway_kind]}.port=8123")
    shown = json.loads(done.stdout) if done.returncode == 0 else {}
    agree({"exit": done.returncode, "port": shown.get(APP[gateway_kind], {}).get("port")}, {"exit": 0, "port": 8123})


@pytest.mark.parametrize("suffix", ["py", "json"])
def test_a_configuration_file_by_its_usual_name(fresh, gateway_kind, agree, suffix):
    gw = fresh(Config(list_kernels=False, token=""))
    values = {"base_url": "/from-file", "auth_token": "t0ken-in-file", "allow_origin": "https://pages.example"}
    file = gw.folder / "config" / f"{CONFIG_FILE[gateway_kind]}.{suffix}"
    app = APP[gateway_kind]
    if suffix == "py":
        file.write_text("".join(f"c.{app}.{name} = {value!r}\n" for name, value in values.items()))
    else:
        file.write_text(json.dumps({app: values}))
    gw.start()
    gw.url = gw.url.removesuffix("/from-file")
    above = gw.request("GET", "/api", token="t0ken-in-file").status
    gw.url += "/from-file"
    answer = gw.request("GET", "/api", token="t0ken-in-file", headers={"Origin": "https://pages.example"})
    agree(
        {
            "above": above,
            "token": answer.status,
            "without": gw.request("GET", "/api", token=None).status,
            "allow_origin": answer.headers.get("Access-Control-Allow-Origin"),
        },
        {"above": 404, "token": 200, "without": 401, "allow_origin": "https://pages.example"},
    )


def test_command_line_over_file_over_environment(fresh, gateway_kind, agree):
    app = APP[gateway_kind]
    gw = fresh(
        Config(
            env={"ALLOW_ORIGIN": "environment", "ALLOW_HEADERS": "environment", "ALLOW_METHODS": "environment"},
            file="c.{app}.allow_origin = 'file'\nc.{app}.allow_headers = 'file'",
        )
    )
    gw.start(f"--{app}.allow_origin=line")
    answer = gw.request("GET", "/api")
    agree(
        {name: answer.headers.get(f"Access-Control-Allow-{name}") for name in ("Origin", "Headers", "Methods")},
        {"Origin": "line", "Headers": "file", "Methods": "environment"},
    )


def test_config_names_another_file(fresh, gateway_kind, agree):
    gw = fresh(Config())
    file = gw.folder / "elsewhere.py"
    file.write_text(f"c.{APP[gateway_kind]}.allow_origin = 'elsewhere'\n")
    gw.start(f"--config={file}")
    agree({"origin": gw.request("GET", "/api").headers.get("Access-Control-Allow-Origin")}, {"origin": "elsewhere"})


def from_variables(gw):
    gw.add_kernelspec("other")
    gw.start()
    gw.url = gw.url.split("/below")[0] + "/below"
    token = VARIABLES["AUTH_TOKEN"]
    page = {"Origin": "https://pages.example"}
    specs = gw.request("GET", "/api/kernelspecs", token=token, headers=page)
    return {
        "token and base_url": specs.status,
        "without token": gw.request("GET", "/api/kernelspecs", token=None).status,
        "default": specs.json.get("default"),
        "list_kernels": gw.request("GET", "/api/kernels", token=token).status,
        "max_kernels": gw.request("POST", "/api/kernels", {}, token=token).status,
        "cors": [specs.headers.get(name) for name in (
            "Access-Control-Allow-Credentials", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
            "Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Access-Control-Max-Age")],
    }  # fmt: skip


EXPECTED = {
    "token and base_url": 200,
    "without token": 401,
    "default": "other",
    "list_kernels": 200,
    "max_kernels": 403,
    "cors": [VARIABLES[name] for name in CORS_NAMES],
}


def test_variables_of_the_gateway(fresh, agree):
    """EG_* for Enterprise Gateway and ours, KG_* for Kernel Gateway."""
    agree(from_variables(fresh(Config(env=VARIABLES, token=""))), EXPECTED)


def test_variables_of_kernel_gateway(fresh, agree):
    """KG_* for everybody."""
    raw = {f"KG_{name}": value for name, value in VARIABLES.items()}
    agree(from_variables(fresh(Config(raw=raw, token="", list_kernels=False))), EXPECTED)


def test_the_older_names_of_lists_of_variables(fresh, agree):
    gw = fresh(
        Config(raw={"EG_ENV_WHITELIST": "OLD_CLIENT", "EG_ENV_PROCESS_WHITELIST": "GATEWAYS_OWN_SECRET"}, token="")
    ).start()
    kernel_id = gw.start_kernel(env={"OLD_CLIENT": "passes"})
    with gw.connect(kernel_id) as channels:
        found = channels.value("dict(__import__('os').environ)")
    agree(
        {name: found.get(name) for name in ("OLD_CLIENT", "GATEWAYS_OWN_SECRET")},
        {"OLD_CLIENT": "passes", "GATEWAYS_OWN_SECRET": "of-the-gateway"},
    )


def test_every_trait_is_taken_on_the_command_line(fresh, agree):
    gw = fresh(Config(token="", anybody=False))
    gw.start(*(f"--EnterpriseGatewayApp.{name}={value}" for name, value in EG_TRAITS.items()), *OTHER_TRAITS)
    agree({"status": gw.request("GET", "/api").status, "complaints": complaints(gw.log())},
          {"status": 200, "complaints": []})  # fmt: skip


def test_every_alias_is_taken_on_the_command_line(fresh, agree):
    gw = fresh(Config(token=""))
    port = free_port()
    gw.start("--ip=127.0.0.1", f"--port={port}", "--port_retries=0", "--log-level=DEBUG", port=0)
    agree(
        {"port": f":{port}" in gw.url, "status": gw.request("GET", "/api").status, "log": complaints(gw.log())},
        {"port": True, "status": 200, "log": []},
    )


def test_a_port_in_use(fresh, agree):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gw = fresh(Config(token=""))
        gw.start(port=port)
        other = f":{port}" not in gw.url
        refused = fresh(Config(token="")).run(f"--port={port}", "--port_retries=0")
    agree({"another": other, "no retries": refused.returncode != 0}, {"another": True, "no retries": True})


def test_a_bad_value_is_refused(fresh, gateway_kind, agree):
    done = fresh(PLAIN).run(f"--{APP[gateway_kind]}.port=not-a-number")
    agree({"failed": done.returncode != 0, "named": "port" in done.stderr}, {"failed": True, "named": True})


def test_mended_sigterm_ends_the_gateway_and_not_its_kernels(fresh, agree):
    gw = fresh(Config()).start()
    gw.start_kernel()
    assert gw.process is not None
    gw.process.send_signal(signal.SIGHUP)
    still = gw.request("GET", "/api").status
    code = gw.terminate()
    agree({"after SIGHUP": still, "exit": code, "kernels stay": bool(gw.kernels())},
          {"after SIGHUP": 200, "exit": 0, "kernels stay": True})  # fmt: skip


def test_ctrl_c_ends_the_kernels_too(fresh, agree):
    gw = fresh(Config()).start()
    gw.start_kernel()
    gw.stop(signal.SIGINT)
    wait_until(lambda: not gw.kernels(), "the kernel to end with its gateway")
    agree({"kernels": len(gw.kernels())}, {"kernels": 0})
