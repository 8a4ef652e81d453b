"""Where the incumbents do other than we do: the reviewed list.

A test says what *ours* does; here stands what Enterprise Gateway 3.3.0 (``eg``) and Kernel Gateway 3.0.1 (``kg``) do
otherwise, by test (``name``, or ``name[parameter]``) and by the name of the observation, and why ours is no copy of it.
A difference that is not here fails, and so does one that is here but is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    why: str
    eg: Mapping[str, Any] | None = None
    kg: Mapping[str, Any] | None = None

    def of(self, kind: str) -> Mapping[str, Any] | None:
        return {"eg": self.eg, "kg": self.kg}.get(kind)


def _both(why: str, seen: Mapping[str, Any]) -> tuple[Difference, ...]:
    return (Difference(why, eg=seen, kg=seen),)


_DYNAMIC = {"kg": "It has no dynamic configuration: files are read once."}
_USERS = {"kg": "It knows no users."}
_OPTIONS = {"kg": "The names are Enterprise Gateway's; its own are used in all tests here."}

ABSENT: Mapping[str, Mapping[str, str]] = {
    "test_allowed_kernelspecs_follow_the_file": _DYNAMIC,
    "test_users_follow_the_file": _DYNAMIC,
    "test_mended_limits_and_origins_follow_the_file_too": _DYNAMIC,
    "test_what_the_environment_says_stays": _DYNAMIC,
    "test_users_see_their_kernelspecs": _USERS,
    "test_mended_users_are_names_and_not_parts_of_names": _USERS,
    "test_one_kernelspec_for_a_user": _USERS,
    "test_users_start_their_kernelspecs": _USERS,
    "test_root_may_start_nothing_by_default": _USERS,
    "test_mended_a_gateway_run_by_root_serves_who_names_no_user": _USERS,
    "test_max_kernels_per_user": _USERS,
    "test_the_older_names_of_lists_of_variables": _OPTIONS,
    "test_every_trait_is_taken_on_the_command_line": _OPTIONS,
}
"""What a kind has not at all: by test, the kinds and why. It is not run there."""

_WITH_TRACEBACK = {"reason": "str", "message": "str", "traceback": "str"}
_NO_REASON = {"message": "str", "reason": "NoneType"}
_CULLED = _both(
    "A culled kernel is gone without a word. Ours stays listed as dead for ten minutes and says why it ended.",
    {"status of a culled one": 404},
)
_PREFLIGHT = (
    "Enterprise Gateway's handlers of these routes take no arguments in options() and fail; Kernel Gateway, on "
    "jupyter_server 2, wants a user there, and a preflight has none. Browsers then never send the request itself."
)

_API: Mapping[str, tuple[Difference, ...]] = {
    "test_api_says_versions": (
        Difference("The version of the gateway is Enterprise Gateway's addition.", kg={"keys": {"version"}}),
    ),
    "test_swagger_json_needs_no_token": _both(
        "The description is of another API and made anew, in OpenAPI 3, which Swagger 2.0 became.",
        {"written in": "2.0"},
    ),
    "test_mended_swagger_yaml_has_its_own_content_type": _both(
        "The code asks for text/x-yaml, and the static file handler below it overwrites that.",
        {"type": "application/octet-stream"},
    ),
    "test_status_route": _both(
        "The route is Jupyter Server's, and probes and idle checkers use it; neither has it.",
        {"status": 404, "keys": False, "without token": 404},
    ),
    "test_answers_are_utf8_json_and_not_cached_wrongly": (
        Difference("jupyter_server 2 sets _xsrf; no cookie authenticates anybody here.", kg={"cookie": True}),
    ),
}

_ACCESS: Mapping[str, tuple[Difference, ...]] = {
    "test_mended_options_is_answered_on_every_route_without_a_token": (
        Difference(
            _PREFLIGHT,
            eg={
                "resource": 405,
                **dict.fromkeys(("kernelspec", "interrupt", "restart", "session", "delete session"), 500),
            },
            kg={
                "resource": 405,
                **dict.fromkeys(("api", "kernelspecs", "kernelspec", "kernels", "start", "kernel", "delete"), 403),
                **dict.fromkeys(("interrupt", "restart", "sessions", "session", "delete session"), 403),
            },
        ),
    ),
    "test_mended_the_header_takes_these_forms_in_any_case": _both(
        "They compare with 'token ' letter by letter; HTTP's scheme names have no case, and most clients say Bearer.",
        {"Token T": 401, "Bearer T": 401, "bearer T": 401},
    ),
    "test_mended_everything_is_below_the_base_url_however_it_is_written[gate/way]": _both(
        "Without its first slash the routes are right, but Location and the resources' URLs become relative paths.",
        {"location": False, "resource": "gate/way/kernelspecs/python3/kernel.js", "resource answers": 404},
    ),
    "test_the_headers_are_on_every_answer": (
        Difference("Its description of the API is served without the configured headers.", kg={"swagger": "none"}),
    ),
    "test_mended_the_headers_are_on_every_preflight": (
        Difference(
            _PREFLIGHT,
            eg={
                "resource": (405, "all", b'{"reason": "Method N'),
                "kernelspec": (500, "all", b'{"reason": "Internal'),
                "interrupt": (500, "all", b'{"reason": "Internal'),
                "session": (500, "all", b'{"message": "Unhandl'),
            },
            kg={
                "swagger": (200, "none", b""),
                "resource": (405, "none", b'{"reason": "Method N'),
                "interrupt": (403, "none", b'{"message": "Forbidd'),
                "session": (403, "none", b'{"message": "Forbidd'),
                **dict.fromkeys(
                    ("api", "kernelspecs", "kernelspec", "kernels", "sessions", "kernel"),
                    (403, "none", b'{"reason": "Forbidde'),
                ),
            },
        ),
    ),
    "test_mended_the_headers_are_on_errors_too": (
        Difference(
            "Without them a page cannot read what is wrong, not even the status.",
            eg={"no such URL": "none"},
            kg=dict.fromkeys(("401", "404", "400", "no such URL"), "none"),
        ),
    ),
    "test_without_configuration_there_are_no_headers": (
        Difference(
            "jupyter_server 2 sends Access-Control-Allow-Origin with nothing in it, which no browser accepts.",
            kg={method: {"Access-Control-Allow-Origin": ""} for method in ("GET", "OPTIONS")},
        ),
    ),
    "test_mended_the_variable_for_whom_clients_certificates_must_be_issued_to_is_read": (
        Difference("EG_AUTHORIZED_ORIGIN is documented, and nothing reads it.", eg={"another": 200}),
        Difference("The option is Enterprise Gateway's.", kg={"another": 200}),
    ),
}

_CHANNELS: Mapping[str, tuple[Difference, ...]] = {
    "test_mended_the_same_session_again_leaves_the_older_socket": _both(
        "They close the older socket; its client connects again, which closes the newer one, and so on.",
        {"older closed": True},
    ),
    "test_mended_a_deleted_kernel_closes_its_sockets": _both(
        "A client that is told nothing shows a kernel that is not there, and waits for its answers for ever.",
        {"closed": False, "for good": False},
    ),
    "test_mended_tracebacks_are_withheld_in_replies_too": (
        Difference("Only the output is replaced; the execute_reply has the traceback.", eg={"reply": True}),
        Difference(
            "The same; and replacing the output fails for want of the option that has the words, so that neither the "
            "error nor the idle after it is sent.",
            kg={"ended": False, "error": None, "ename": None, "evalue": None, "reply": True},
        ),
    ),
    "test_by_default_busy_kernels_are_spared": (
        Difference(
            "An open tab is no use of a kernel: cull_connected is on by default here, as is said at the start.",
            eg={"connected": True},
            kg={"connected": True},
        ),
        *_CULLED,
    ),
    "test_connected_kernels_can_be_spared": _CULLED,
    "test_connected_and_busy_kernels_can_be_culled_too": _CULLED,
}

_PROGRAM: Mapping[str, tuple[Difference, ...]] = {
    "test_mended_sigterm_ends_the_gateway_and_not_its_kernels": _both(
        "They shut all kernels down, so that an upgrade of the gateway loses its users' work.",
        {"kernels stay": False},
    ),
    "test_mended_limits_and_origins_follow_the_file_too": (
        Difference("What is copied into tornado's settings at the start stays as it was.", eg={"allow_origin": False}),
    ),
    "test_by_default_only_kernel_variables_of_the_client_pass": (
        Difference(
            "PATH is not among what a kernel gets, unless it is listed in inherited_envs; then `!ls` finds nothing.",
            eg={"PATH": False},
        ),
    ),
    "test_mended_a_start_without_env_inherits_nothing_of_the_gateways": _both(
        "Without an env object in the body the kernel gets the gateway's whole environment, secrets included.",
        {"GATEWAYS_OWN_SECRET": "of-the-gateway"},
    ),
    "test_mended_no_request_sees_the_variables_of_another": _both(
        "While it waits, the handler has a partial with the request's env in place of start_kernel; of two that "
        "overlap, the first one's stays for good.",
        {"secret": "of alice"},
    ),
    "test_a_star_lets_all_variables_of_the_client_pass": (
        Difference("The star is Enterprise Gateway's.", kg={"ANYTHING": None}),
    ),
    "test_the_kernelspecs_own_variables": (
        Difference(
            "That the client's values win over the kernelspec's is Enterprise Gateway's.",
            kg={"KERNEL_A": "spec", "ALLOWED": "spec"},
        ),
    ),
    "test_the_gateway_says_who_and_which_kernel": (
        Difference("The variables are Enterprise Gateway's.", kg={"KERNEL_ID": False, "KERNEL_LANGUAGE": None}),
    ),
}

_KERNELS: Mapping[str, tuple[Difference, ...]] = {
    "test_start_without_a_name": _both(
        "White space is no JSON to them; here it is as good as no body.", {"white space": (400, None)}
    ),
    "test_mended_an_unknown_kernelspec_is_a_404": _both(
        "NoSuchKernel is not caught, and its traceback is sent.", {"status": 500, "fields": _WITH_TRACEBACK}
    ),
    "test_mended_bad_bodies_are_400_and_start_nothing": (
        Difference(
            "What is no object, or not of the right type, is an exception somewhere further down.",
            eg=dict.fromkeys(("array", "string", "name a number", "env value with NUL"), 500),
            kg=dict.fromkeys(("array", "string", "name a number", "env value with NUL"), 500),
        ),
        Difference(
            "Values of variables are not looked at.",
            kg=dict.fromkeys(("env value a number", "env value null", "env value of 256 KiB"), 500),
        ),
    ),
    "test_a_variable_of_5000_characters": (
        Difference(
            "Its limit is 4096; a Spark configuration or a volume list is longer. Ours is 32 KiB.", eg={"status": 400}
        ),
    ),
    "test_mended_no_traceback_reaches_a_client": _both(
        "Exceptions that are not HTTP's are answered with their traceback.", {"tracebacks": True}
    ),
    "test_unknown_kernels_are_404": (
        Difference(
            "The action's handler is jupyter_server's, whose errors have no reason; old clients show the reason.",
            kg={"interrupt": {"status": 404, "fields": _NO_REASON}},
        ),
    ),
    "test_mended_restart_of_an_unknown_kernel_is_a_404": (
        Difference(
            "The exception is answered as a failed restart, Enterprise Gateway's with its traceback.",
            eg={"status": 500, "fields": {"message": "str", "traceback": "list"}},
            kg={"status": 500, "fields": _NO_REASON},
        ),
    ),
    "test_mended_a_question_on_control_makes_no_busy_kernel_idle": (
        Difference(
            "The last status is taken for the kernel's, whatever it belongs to: a busy kernel can be culled as idle.",
            eg={"taken for idle": True},
        ),
    ),
    "test_the_client_chooses_the_id": (Difference("KERNEL_ID is Enterprise Gateway's.", kg={"id": False}),),
    "test_mended_a_bad_id_is_a_400": (
        Difference("What is no UUID is an exception.", eg={"nonsense": 500, "../../../etc/passwd": 500}),
        Difference(
            "KERNEL_ID is Enterprise Gateway's.", kg={"nonsense": 201, "../../../etc/passwd": 201, "kernels": 2}
        ),
    ),
    "test_mended_the_same_id_twice_is_one_kernel": (
        Difference("A client that repeats a start whose answer it lost gets an error.", eg={"second": 500}),
        Difference("KERNEL_ID is Enterprise Gateway's.", kg={"kernels": 2}),
    ),
    "test_a_path_becomes_the_working_directory": _both(
        "Absolute paths are taken as relative to root_dir. KERNEL_WORKING_DIR, which Jupyter Server always sends, only "
        "counts in containers.",
        {"absolute": "HOME", "KERNEL_WORKING_DIR": "HOME"},
    ),
    "test_a_kernel_that_cannot_start": _both("The traceback is sent.", {"fields": _WITH_TRACEBACK}),
    "test_mended_a_kernel_that_ends_at_once_is_a_failed_start_with_its_last_words": _both(
        "The answer comes as soon as the process has been forked; what it said is in the gateway's log.",
        {"status": 201, "why": False},
    ),
    "test_mended_a_kernel_that_dies_stays_dead_and_can_be_restarted": _both(
        "A new process takes its place, without its variables, and the next cell runs in that as if nothing were.",
        {"told": "restarting", "model": "not asked"},
    ),
}

_KERNELSPECS: Mapping[str, tuple[Difference, ...]] = {
    "test_mended_jupyter_servers_way_of_asking_for_one": _both(
        "The name that jupyter_server appends behind ?user= is taken for a part of the user's; it gets the list.",
        {"name": None},
    ),
    "test_mended_only_declared_resources_are_served": _both(
        "All files in the kernelspec's folder are served, kernel.json and the scripts with their settings included.",
        {"kernel.json": 200, "private.txt": 200},
    ),
    "test_no_way_out_of_the_kernelspec": _both(
        "A NUL byte in the path is an exception of the file system's.", {"kernel.js%00": 5}
    ),
    "test_mended_a_broken_kernelspec_hides_no_other_and_is_a_404": _both(
        "It is left out of the list, but asking for it is an exception.", {"one": 500}
    ),
    "test_mended_the_list_of_allowed_kernelspecs_holds_for_starts_too": _both(
        "The option only shortens the list: whoever knows a name has it.", {"one": 200, "start": 201}
    ),
    "test_mended_users_are_names_and_not_parts_of_names": (
        Difference(
            "The lists of a kernelspec are strings, in which the name is looked for.",
            eg={"char": True, "li": True, "bo": 200},
        ),
    ),
    "test_mended_a_gateway_run_by_root_serves_who_names_no_user": (
        Difference("Who names nobody is root there, who may start nothing by default.", eg={"status": 403}),
    ),
}

_LIMITS: Mapping[str, tuple[Difference, ...]] = {
    "test_mended_max_kernels_is_a_403_for_a_session_too": (
        Difference("The limit holds, but is answered as a failure of the server's.", eg={"a session counts too": 500}),
        Difference(
            "The limit is looked at in the kernels' handler only.",
            kg={"a session counts too": 201, "kernels": 3, "after a delete": 403},
        ),
    ),
    "test_mended_max_kernels_holds_for_racing_starts": (
        Difference(
            "Kernels count when they have started, and all five are let in before that.",
            kg={"kernels": 5, "statuses": [201]},
        ),
    ),
    "test_listing_is_on_unless_switched_off": _both(
        "With a 403 for the list JupyterLab takes its kernels for dead: list_kernels is on by default here, as is said "
        "at the start.",
        {"/api/kernels": 403, "/api/sessions": 403},
    ),
}

_SESSIONS: Mapping[str, tuple[Difference, ...]] = {
    "test_mended_get_of_a_session": _both(
        "The handler awaits what is no coroutine, for each session.", {"status": 500, "same": False}
    ),
    "test_mended_patch_of_a_session": _both(
        "The handler awaits what is no coroutine, for each session.", {"status": 500, "path": None}
    ),
    "test_mended_patch_gives_a_session_another_kernel": _both(
        "The handler awaits what is no coroutine, for each session.", {"status": 500, "kernel": None}
    ),
    "test_delete_ends_the_kernel_too": _both(
        "410, 'Kernel deleted before session', is also said of what never was; 404 is what GET says.", {"again": 410}
    ),
    "test_mended_the_same_path_twice_is_the_same_session": _both(
        "The handler awaits what is no coroutine; Jupyter Server answers with the session that is there.",
        {"status": 500, "same": None},
    ),
    "test_mended_bad_bodies_are_400_and_make_nothing": (
        Difference("What is no object is an exception.", eg={"array": 500}, kg={"array": 500}),
        Difference("So is a path that is no string …", eg={"path a number": 500}),
        Difference("… or it makes a session.", kg={"path a number": 201, "kernels": 1}),
    ),
    "test_mended_a_session_of_an_unknown_kernelspec_is_a_404": _both(
        "501 says that the server lacks the method; for a kernel it is another status.",
        {"status": 501, "fields": {"message": "str"}},
    ),
    "test_mended_errors_of_one_session_have_both_dialects_fields": _both(
        "The handlers are jupyter_server's, whose errors have no reason; old clients show the reason.",
        {"fields": _NO_REASON},
    ),
    "test_mended_a_session_takes_the_kernel_it_names": _both(
        "kernel.id is ignored, and a second kernel started.", {"kernel": False, "kernels": 2}
    ),
    "test_mended_a_deleted_kernel_takes_its_session_along": _both(
        "The list fails once for everybody, because of one session whose kernel is gone.",
        {"status": 500, "listed": None, "delete": 410},
    ),
}

DIFFERENCES: Mapping[str, tuple[Difference, ...]] = {
    **_API,
    **_ACCESS,
    **_CHANNELS,
    **_PROGRAM,
    **_KERNELS,
    **_KERNELSPECS,
    **_LIMITS,
    **_SESSIONS,
}
