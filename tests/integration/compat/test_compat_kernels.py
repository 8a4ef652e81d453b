"""Kernels by REST: start, list, look at, interrupt, restart, end."""

from __future__ import annotations

import re
import uuid

import pytest
from eg_compat.gateways import NOWHERE, Config
from eg_integration.waiting import wait_until

ERROR = {"reason": "str", "message": "str"}
MODEL = {"id", "name", "last_activity", "execution_state", "connections"}


@pytest.fixture
def gw(gateways):
    gw = gateways(Config())
    yield gw
    gw.delete_all_of(model["id"] for model in gw.list_kernels())


def test_start_with_a_name(gw, agree):
    answer = gw.request("POST", "/api/kernels", {"name": "python3"})
    model = answer.json
    agree(
        {
            "status": answer.status,
            "location": answer.headers["Location"] == f"/api/kernels/{model['id']}",
            "model": set(model) >= MODEL,
            "id": bool(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", model["id"])),
            "name": model["name"],
            "connections": model["connections"],
            "last_activity": bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", model["last_activity"])),
            "state": model["execution_state"] in {"starting", "idle", "busy"},
            "listed": [each["id"] for each in gw.list_kernels()] == [model["id"]],
            "one": set(gw.model(model["id"])) == set(model),
        },
        {
            "status": 201,
            "location": True,
            "model": True,
            "id": True,
            "name": "python3",
            "connections": 0,
            "last_activity": True,
            "state": True,
            "listed": True,
            "one": True,
        },
    )


def test_start_without_a_name(gw, agree):
    bodies = {"no body": None, "empty object": {}, "name null": {"name": None}, "white space": b"  "}
    answers = {what: gw.request("POST", "/api/kernels", body) for what, body in bodies.items()}
    agree(
        {what: (a.status, a.json.get("name")) for what, a in answers.items()},
        dict.fromkeys(bodies, (201, "python3")),
    )


def test_start_with_a_name_in_capitals(gw, agree):
    answer = gw.request("POST", "/api/kernels", {"name": "PYTHON3"})
    agree({"status": answer.status, "name": str(answer.json.get("name")).lower()}, {"status": 201, "name": "python3"})


def test_mended_an_unknown_kernelspec_is_a_404(gw, agree):
    agree(gw.error(gw.request("POST", "/api/kernels", {"name": "nothing"})), {"status": 404, "fields": ERROR})
    assert gw.list_kernels() == []


BAD = {
    "no JSON": b"{name",
    "array": [],
    "string": '"python3"',
    "name a number": {"name": 7},
    "env a list": {"env": ["A=1"]},
    "env a string": {"env": "A=1"},
    "env value a number": {"env": {"KERNEL_A": 1}},
    "env value null": {"env": {"KERNEL_A": None}},
    "env value with NUL": {"env": {"KERNEL_A": "a\0b"}},
    "env value of 256 KiB": {"env": {"KERNEL_A": "x" * (1 << 18)}},
}


def test_mended_bad_bodies_are_400_and_start_nothing(gw, agree):
    answers = {what: gw.request("POST", "/api/kernels", body) for what, body in BAD.items()}
    agree(
        {what: answer.status for what, answer in answers.items()} | {"kernels": len(gw.list_kernels())},
        {**dict.fromkeys(BAD, 400), "kernels": 0},
    )


def test_a_variable_of_5000_characters(gw, agree):
    answer = gw.request("POST", "/api/kernels", {"env": {"KERNEL_A": "x" * 5000}})
    agree({"status": answer.status}, {"status": 201})


def test_mended_no_traceback_reaches_a_client(gw, agree):
    answers = [gw.request("POST", "/api/kernels", body) for body in (*BAD.values(), {"name": "nothing"})]
    answers.append(gw.request("POST", f"/api/kernels/{NOWHERE}/restart", {}))
    agree({"tracebacks": any(b"Traceback" in answer.body for answer in answers)}, {"tracebacks": False})


def test_unknown_kernels_are_404(gw, agree):
    answers = {
        "GET": gw.request("GET", f"/api/kernels/{NOWHERE}"),
        "DELETE": gw.request("DELETE", f"/api/kernels/{NOWHERE}"),
        "interrupt": gw.request("POST", f"/api/kernels/{NOWHERE}/interrupt", {}),
    }
    agree(
        {what: gw.error(answer) for what, answer in answers.items()}
        | {"id in message": NOWHERE in answers["GET"].json["message"]},
        {**{what: {"status": 404, "fields": ERROR} for what in answers}, "id in message": True},
    )


def test_mended_restart_of_an_unknown_kernel_is_a_404(gw, agree):
    agree(gw.error(gw.request("POST", f"/api/kernels/{NOWHERE}/restart", {})), {"status": 404, "fields": ERROR})


def test_delete(gw, agree):
    kernel_id = gw.start_kernel()
    deleted = gw.request("DELETE", f"/api/kernels/{kernel_id}")
    after = {
        "again": gw.request("DELETE", f"/api/kernels/{kernel_id}").status,
        "GET": gw.request("GET", f"/api/kernels/{kernel_id}").status,
        "listed": len(gw.list_kernels()),
    }
    agree({"status": deleted.status, "body": deleted.body, **after},
          {"status": 204, "body": b"", "again": 404, "GET": 404, "listed": 0})  # fmt: skip
    wait_until(lambda: not gw.kernels(), "the kernel's process to be gone")


def test_interrupt(gw, agree):
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        assert channels.run("kept = 7").reply["status"] == "ok"
        request = channels.execute("import time; print('begun', flush=True); time.sleep(60)")
        channels.wait_for(lambda m: m.type == "stream", "the cell to begin")
        answer = gw.request("POST", f"/api/kernels/{kernel_id}/interrupt", {})
        done = channels.finish(request)
        agree(
            {"status": answer.status, "body": answer.body, "error": done.reply.get("ename"),
             "kept": channels.value("kept"),
             "no body": gw.request("POST", f"/api/kernels/{kernel_id}/interrupt").status},
            {"status": 204, "body": b"", "error": "KeyboardInterrupt", "kept": 7, "no body": 204},
        )  # fmt: skip


def test_restart(gw, agree):
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        channels.run("kept = 7")
        pid = channels.value("__import__('os').getpid()")
    answer = gw.request("POST", f"/api/kernels/{kernel_id}/restart", {})
    with gw.connect(kernel_id) as channels:
        agree(
            {
                "status": answer.status,
                "id": answer.json["id"] == kernel_id,
                "model": set(answer.json) >= MODEL,
                "another process": channels.value("__import__('os').getpid()") != pid,
                "kept": channels.value("'kept' in globals()"),
                "listed": len(gw.list_kernels()),
            },
            {"status": 200, "id": True, "model": True, "another process": True, "kept": False, "listed": 1},
        )


def test_the_model_follows_the_kernel(gw, agree):
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        channels.run("1")
        wait_until(lambda: gw.model(kernel_id)["execution_state"] == "idle", "idle")
        before = gw.model(kernel_id)
        request = channels.execute("import time; time.sleep(60)")
        busy = wait_until(lambda: gw.model(kernel_id)["execution_state"] == "busy", "busy")
        with gw.connect(kernel_id):
            two = wait_until(lambda: gw.model(kernel_id)["connections"] == 2, "two connections")
        gw.request("POST", f"/api/kernels/{kernel_id}/interrupt", {})
        channels.finish(request)
        idle = wait_until(lambda: gw.model(kernel_id)["execution_state"] == "idle", "idle again")
        after = wait_until(
            lambda: gw.model(kernel_id)["last_activity"] > before["last_activity"], "last_activity to be later"
        )
    none = wait_until(lambda: gw.model(kernel_id)["connections"] == 0, "no connection")
    agree(
        {"connected": before["connections"], "busy": busy, "two": two, "idle": idle, "later": after, "none": none},
        {"connected": 1, "busy": True, "two": True, "idle": True, "later": True, "none": True},
    )


def test_mended_a_question_on_control_makes_no_busy_kernel_idle(gw, agree):
    kernel_id = gw.start_kernel()

    def is_idle():
        return gw.model(kernel_id)["execution_state"] == "idle"

    with gw.connect(kernel_id) as channels:
        channels.finish(channels.send("kernel_info_request", {}, channel="control"))
        channels.execute("import time; time.sleep(60)")
        channels.wait_for(lambda m: m.type == "execute_input", "the cell to begin")
        channels.finish(channels.send("kernel_info_request", {}, channel="control"))
        try:
            idle = wait_until(is_idle, "the kernel to be taken for idle", 1)
        except AssertionError:
            idle = False
    agree({"taken for idle": idle}, {"taken for idle": False})


def test_the_client_chooses_the_id(gw, agree):
    chosen = str(uuid.uuid4())
    answer = gw.request("POST", "/api/kernels", {"env": {"KERNEL_ID": chosen}})
    agree({"status": answer.status, "id": answer.json.get("id") == chosen}, {"status": 201, "id": True})


def test_mended_a_bad_id_is_a_400(gw, agree):
    agree(
        {bad: gw.request("POST", "/api/kernels", {"env": {"KERNEL_ID": bad}}).status
         for bad in ("nonsense", "../../../etc/passwd")} | {"kernels": len(gw.list_kernels())},
        {"nonsense": 400, "../../../etc/passwd": 400, "kernels": 0},
    )  # fmt: skip


def test_mended_the_same_id_twice_is_one_kernel(gw, agree):
    body = {"env": {"KERNEL_ID": str(uuid.uuid4())}}
    first, second = (gw.request("POST", "/api/kernels", body) for _ in range(2))
    agree({"first": first.status, "second": second.status, "kernels": len(gw.list_kernels())},
          {"first": 201, "second": 201, "kernels": 1})  # fmt: skip


def test_a_path_becomes_the_working_directory(gw, agree):
    folder = gw.folder / "home" / "some" / "folder"
    folder.mkdir(parents=True, exist_ok=True)

    def cwd(**body):
        answer = gw.request("POST", "/api/kernels", {"name": "python3", **body})
        if answer.status != 201:
            return answer.status
        with gw.connect(answer.json["id"]) as channels:
            seen = channels.value("__import__('os').getcwd()")
        gw.delete_kernel(answer.json["id"])
        return seen.replace(str(gw.folder / "home"), "HOME")

    agree(
        {
            "none": cwd(),
            "folder": cwd(path="some/folder"),
            "file in it": cwd(path="some/folder/notebook.ipynb"),
            "absolute": cwd(path=str(folder)),
            "KERNEL_WORKING_DIR": cwd(env={"KERNEL_WORKING_DIR": str(folder)}),
        },
        {
            "none": "HOME",
            "folder": "HOME/some/folder",
            "file in it": "HOME/some/folder",
            "absolute": "HOME/some/folder",
            "KERNEL_WORKING_DIR": "HOME/some/folder",
        },
    )


def test_a_kernel_that_cannot_start(gw, agree):
    gw.add_kernelspec("absent", argv=["/nowhere/python", "-f", "{connection_file}"])
    answer = gw.request("POST", "/api/kernels", {"name": "absent"})
    agree(
        {**gw.error(answer), "why": b"/nowhere/python" in answer.body, "kernels": len(
            [m for m in gw.list_kernels() if m["execution_state"] != "dead"])},
        {"status": 500, "fields": ERROR, "why": True, "kernels": 0},
    )  # fmt: skip


def test_mended_a_kernel_that_ends_at_once_is_a_failed_start_with_its_last_words(gw, agree):
    code = "import sys; sys.exit('the licence server said no')"
    gw.add_kernelspec("exits", argv=[gw.python, "-c", code, "-f", "{connection_file}"])
    answer = gw.request("POST", "/api/kernels", {"name": "exits"})
    agree({"status": answer.status, "why": b"the licence server said no" in answer.body}, {"status": 500, "why": True})


def test_mended_a_kernel_that_dies_stays_dead_and_can_be_restarted(gw, agree):
    kernel_id = gw.start_kernel()
    with gw.connect(kernel_id) as channels:
        pid = channels.value("__import__('os').getpid()")
        channels.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        told = channels.wait_for(
            lambda m: m.type == "status" and m.content["execution_state"] in {"restarting", "dead"}, "the death"
        ).content["execution_state"]
    state = gw.model(kernel_id)["execution_state"] if told == "dead" else "not asked"
    restarted = gw.request("POST", f"/api/kernels/{kernel_id}/restart", {}).status if told == "dead" else 200
    with gw.connect(kernel_id) as channels:
        other = channels.value("__import__('os').getpid()") != pid
    agree({"told": told, "model": state, "restart": restarted, "another process": other},
          {"told": "dead", "model": "dead", "restart": 200, "another process": True})  # fmt: skip


def test_many_starts_at_once(gw, agree):
    found = [answer.status for answer in gw.at_once("POST", "/api/kernels", [{"env": {}}] * 3)]
    agree({"answers": found, "kernels": len({m["id"] for m in gw.list_kernels()})},
          {"answers": [201] * 3, "kernels": 3})  # fmt: skip
