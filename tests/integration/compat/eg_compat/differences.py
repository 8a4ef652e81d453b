"""Where the incumbents do other than we do: the reviewed list.

A test says what *ours* does; here stands what Enterprise Gateway 3.3.0 (``eg``) and Kernel Gateway 3.0.1 (``kg``) do
otherwise, by test (``name``, or ``name[parameter]``) and by the name of the observation, and why we differ. A
difference that is not here fails, and so does one that is here but is none.
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


_DYNAMIC = {"kg": "it reads its configuration once"}
_USERS = {"kg": "it knows no users"}
_EG_OPTIONS = {"kg": "the options are Enterprise Gateway's"}

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
    "test_the_older_names_of_lists_of_variables": _EG_OPTIONS,
    "test_every_trait_is_taken_on_the_command_line": _EG_OPTIONS,
    "test_mended_no_request_sees_the_variables_of_another": {
        "eg": "a race: the variables of another request are seen sometimes",
        "kg": "a race: the variables of another request are seen sometimes",
    },
    "test_mended_max_kernels_holds_for_racing_starts": {
        "eg": "a race: there are sometimes more kernels than max_kernels",
        "kg": "a race: there are sometimes more kernels than max_kernels",
    },
    "test_tracebacks_can_be_withheld": {"kg": "a request that fails never ends, if tracebacks are withheld"},
}
"""What a kind has not at all, or does only sometimes: by test, the kinds and why. It is not run there."""

_WITH_TRACEBACK = {"reason": "str", "message": "str", "traceback": "str"}
_TOKEN_ONLY = Difference(
    "RFC 6750's word, and words of any case, are what clients and proxies send",
    eg={"Token T": 401, "Bearer T": 401, "bearer T": 401},
    kg={"Token T": 401, "Bearer T": 401, "bearer T": 401},
)
_STATUS_ROUTE = Difference(
    "Jupyter Server has it, and probes want it",
    eg={"status": 404, "keys": False, "without token": 404},
    kg={"status": 404, "keys": False, "without token": 404},
)
_BASE_URL = {"location": False, "resource": "gate/way/kernelspecs/python3/kernel.js", "resource answers": 404}

DIFFERENCES: Mapping[str, tuple[Difference, ...]] = {
    # -- the API's own
    "test_api_says_versions": (
        Difference("Enterprise Gateway's key; its clients ask for it", kg={"keys": {"version"}}),
    ),
    "test_swagger_json_needs_no_token": (
        Difference("a newer version of the same format", eg={"written in": "2.0"}, kg={"written in": "2.0"}),
    ),
    "test_mended_swagger_yaml_has_its_own_content_type": (
        Difference(
            "browsers show text, and download what they do not know",
            eg={"type": "application/octet-stream"},
            kg={"type": "application/octet-stream"},
        ),
    ),
    "test_status_route": (_STATUS_ROUTE,),
    "test_answers_are_utf8_json_and_not_cached_wrongly": (
        Difference("there is nothing that a cookie would be for", kg={"cookie": True}),
    ),
    # -- the token
    "test_options_needs_no_token": (
        Difference(
            "a preflight must be answered on each route, or browsers do not send the request",
            eg={
                "kernelspec": 500,
                "resource": 405,
                "interrupt": 500,
                "restart": 500,
                "session": 500,
                "delete session": 500,
            },
            kg={
                "api": 403,
                "kernelspecs": 403,
                "kernelspec": 403,
                "resource": 405,
                "kernels": 403,
                "start": 403,
                "kernel": 403,
                "delete": 403,
                "interrupt": 403,
                "restart": 403,
                "sessions": 403,
                "session": 403,
                "delete session": 403,
            },
        ),
    ),
    "test_the_header_takes_these_forms": (_TOKEN_ONLY,),
    # -- below a base URL
    "test_everything_is_below_the_base_url[gate/way]": (
        Difference("without its first slash it must be the same URL", eg=_BASE_URL, kg=_BASE_URL),
    ),
    # -- channels
    "test_the_same_session_again_leaves_the_older_socket": (
        Difference(
            "two tabs of one session would close each other's sockets for ever",
            eg={"older closed": True},
            kg={"older closed": True},
        ),
    ),
    "test_a_deleted_kernel_closes_its_sockets": (
        Difference(
            "a client that is told nothing shows a kernel that is not there",
            eg={"closed": False, "for good": False},
            kg={"closed": False, "for good": False},
        ),
    ),
    "test_tracebacks_can_be_withheld": (
        Difference("it is withheld in outputs only; the reply has it, too", eg={"reply": True}),
    ),
    # -- the program
    "test_mended_sigterm_ends_the_gateway_and_not_its_kernels": (
        Difference(
            "a restart of the gateway must not end its users' kernels",
            eg={"kernels stay": False},
            kg={"kernels stay": False},
        ),
    ),
    # -- other origins
    "test_the_headers_are_on_every_answer": (
        Difference("a page may read the API's description, too", kg={"swagger": "none"}),
    ),
    "test_the_headers_are_on_every_preflight": (
        Difference(
            "a preflight must be answered on each route, or browsers do not send the request",
            eg={
                "kernelspec": (500, "all", b'{"reason": "Internal'),
                "resource": (405, "all", b'{"reason": "Method N'),
                "interrupt": (500, "all", b'{"reason": "Internal'),
                "session": (500, "all", b'{"message": "Unhandl'),
            },
            kg={
                **dict.fromkeys(
                    ("api", "kernelspecs", "kernelspec", "kernels", "sessions", "kernel"),
                    (403, "none", b'{"reason": "Forbidde'),
                ),
                "swagger": (200, "none", b""),
                "resource": (405, "none", b'{"reason": "Method N'),
                "interrupt": (403, "none", b'{"message": "Forbidd'),
                "session": (403, "none", b'{"message": "Forbidd'),
            },
        ),
    ),
    "test_the_headers_are_on_errors_too": (
        Difference(
            "without them a page cannot read what was wrong",
            eg={"no such URL": "none"},
            kg=dict.fromkeys(("401", "404", "400", "no such URL"), "none"),
        ),
    ),
    "test_without_configuration_there_are_no_headers": (
        Difference(
            "an empty header says nothing",
            kg={method: {"Access-Control-Allow-Origin": ""} for method in ("GET", "OPTIONS")},
        ),
    ),
    # -- culling
    "test_by_default_busy_kernels_are_spared": (
        Difference(
            "an open tab is not use: cull_connected is on by default, as is said at the start",
            eg={"connected": True},
            kg={"connected": True},
        ),
        Difference(
            "it stays listed as dead, with the reason, for whom it belonged to",
            eg={"status of a culled one": 404},
            kg={"status of a culled one": 404},
        ),
    ),
    **dict.fromkeys(
        ("test_connected_kernels_can_be_spared", "test_connected_and_busy_kernels_can_be_culled_too"),
        (
            Difference(
                "it stays listed as dead, with the reason, for whom it belonged to",
                eg={"status of a culled one": 404},
                kg={"status of a culled one": 404},
            ),
        ),
    ),
    # -- a configuration file that changes
    "test_mended_limits_and_origins_follow_the_file_too": (
        Difference("what can change at run time does", eg={"allow_origin": False}),
    ),
    # -- the environment
    "test_by_default_only_kernel_variables_of_the_client_pass": (
        Difference("a kernel without PATH finds no program, not even its own", eg={"PATH": False}),
    ),
    "test_mended_a_start_without_env_inherits_nothing_of_the_gateways": (
        Difference(
            "the gateway's secrets are none of a kernel's",
            eg={"GATEWAYS_OWN_SECRET": "of-the-gateway"},
            kg={"GATEWAYS_OWN_SECRET": "of-the-gateway"},
        ),
    ),
    # -- kernels
    "test_start_without_a_name": (
        Difference(
            "a body of blanks is an empty one", eg={"white space": (400, None)}, kg={"white space": (400, None)}
        ),
    ),
    "test_mended_an_unknown_kernelspec_is_a_404": (
        Difference(
            "it is the client's mistake",
            eg={"status": 500, "fields": _WITH_TRACEBACK},
            kg={"status": 500, "fields": _WITH_TRACEBACK},
        ),
    ),
    "test_bad_bodies_are_400_and_start_nothing": (
        Difference(
            "it is the client's mistake",
            eg=dict.fromkeys(("array", "string", "name a number", "env value with NUL"), 500),
            kg=dict.fromkeys(
                (
                    "array",
                    "string",
                    "name a number",
                    "env value a number",
                    "env value null",
                    "env value with NUL",
                    "env value of 256 KiB",
                ),
                500,
            ),
        ),
    ),
    "test_mended_no_traceback_reaches_a_client": (
        Difference(
            "it is nothing to the client, and tells of the server", eg={"tracebacks": True}, kg={"tracebacks": True}
        ),
    ),
    "test_mended_restart_of_an_unknown_kernel_is_a_404": (
        Difference(
            "like every other request for it",
            eg={"status": 500, "fields": {"message": "str", "traceback": "list"}},
            kg={"status": 500, "fields": {"message": "str", "reason": "NoneType"}},
        ),
    ),
    "test_mended_a_bad_id_is_a_400": (
        Difference(
            "it is the client's mistake",
            eg={"nonsense": 500, "../../../etc/passwd": 500},
            kg={"nonsense": 201, "../../../etc/passwd": 201, "kernels": 2},
        ),
    ),
    "test_mended_the_same_id_twice_is_one_kernel": (
        Difference(
            "a client that repeats a request which it had no answer to gets it", eg={"second": 500}, kg={"kernels": 2}
        ),
    ),
    "test_a_path_becomes_the_working_directory": (
        Difference(
            "clients send KERNEL_WORKING_DIR, and paths as they know them",
            eg={"absolute": "HOME", "KERNEL_WORKING_DIR": "HOME"},
            kg={"absolute": "HOME", "KERNEL_WORKING_DIR": "HOME"},
        ),
    ),
    "test_a_kernel_that_cannot_start": (
        Difference("no traceback reaches a client", eg={"fields": _WITH_TRACEBACK}, kg={"fields": _WITH_TRACEBACK}),
    ),
    "test_mended_a_kernel_that_ends_at_once_is_a_failed_start_with_its_last_words": (
        Difference("who starts it learns why", eg={"status": 201, "why": False}, kg={"status": 201, "why": False}),
    ),
    "test_mended_a_kernel_that_dies_stays_dead_and_can_be_restarted": (
        Difference(
            "a new kernel behind the user's back has lost its state and does not say so",
            eg={"told": "restarting", "model": "not asked"},
            kg={"told": "restarting", "model": "not asked"},
        ),
    ),
    # -- kernelspecs
    "test_jupyter_servers_way_of_asking_for_one": (
        Difference(
            "Jupyter Server's client wants this one kernelspec, and gets a list", eg={"name": None}, kg={"name": None}
        ),
    ),
    "test_mended_only_declared_resources_are_served": (
        Difference(
            "the folder's other files are the operator's",
            eg={"kernel.json": 200, "private.txt": 200},
            kg={"kernel.json": 200, "private.txt": 200},
        ),
    ),
    "test_no_way_out_of_the_kernelspec": (
        Difference("it is no failure of the server's", eg={"kernel.js%00": 5}, kg={"kernel.js%00": 5}),
    ),
    "test_a_broken_kernelspec_hides_no_other": (
        Difference("it is not listed, so it is not there", eg={"one": 500}, kg={"one": 500}),
    ),
    "test_allowed_kernelspecs": (
        Difference(
            "what is not allowed is not only left out of the list",
            eg={"one": 200, "start": 201},
            kg={"one": 200, "start": 201},
        ),
    ),
    "test_mended_users_are_names_and_not_parts_of_names": (
        Difference("a substring of an authorised name is another name", eg={"char": True, "li": True, "bo": 200}),
    ),
    "test_mended_a_gateway_run_by_root_serves_who_names_no_user": (
        Difference("nobody has asked for root's kernels", eg={"status": 403}),
    ),
    # -- limits
    "test_max_kernels": (
        Difference(
            "the same refusal as for a kernel",
            eg={"a session counts too": 500},
            kg={"a session counts too": 201, "kernels": 3, "after a delete": 403},
        ),
    ),
    "test_listing_is_on_unless_switched_off": (
        Difference(
            "JupyterLab polls the list: list_kernels is on by default, as is said at the start",
            eg={"/api/kernels": 403, "/api/sessions": 403},
            kg={"/api/kernels": 403, "/api/sessions": 403},
        ),
    ),
    # -- sessions
    "test_mended_get_of_a_session": (
        Difference("it fails for each session", eg={"status": 500, "same": False}, kg={"status": 500, "same": False}),
    ),
    "test_mended_patch_of_a_session": (
        Difference("it fails for each session", eg={"status": 500, "path": None}, kg={"status": 500, "path": None}),
    ),
    "test_mended_patch_gives_a_session_another_kernel": (
        Difference("it fails for each session", eg={"status": 500, "kernel": None}, kg={"status": 500, "kernel": None}),
    ),
    "test_delete_ends_the_kernel_too": (
        Difference("a session that is not there is a 404, as for GET", eg={"again": 410}, kg={"again": 410}),
    ),
    "test_mended_the_same_path_twice_is_the_same_session": (
        Difference("Jupyter Server's answer", eg={"status": 500, "same": None}, kg={"status": 500, "same": None}),
    ),
    "test_bad_bodies": (
        Difference(
            "it is the client's mistake",
            eg={"array": 500, "path a number": 500},
            kg={"array": 500, "path a number": 201, "kernels": 1},
        ),
    ),
    "test_mended_a_session_of_an_unknown_kernelspec_is_a_404": (
        Difference(
            "as for a kernel",
            eg={"status": 501, "fields": {"message": "str"}},
            kg={"status": 501, "fields": {"message": "str"}},
        ),
    ),
    "test_errors_of_one_session_have_both_dialects_fields": (
        Difference(
            "clients show the reason",
            eg={"fields": {"message": "str", "reason": "NoneType"}},
            kg={"fields": {"message": "str", "reason": "NoneType"}},
        ),
    ),
    "test_mended_a_session_takes_the_kernel_it_names": (
        Difference("the client has said which", eg={"kernel": False, "kernels": 2}, kg={"kernel": False, "kernels": 2}),
    ),
    "test_mended_a_deleted_kernel_takes_its_session_along": (
        Difference(
            "the list must not fail for it",
            eg={"status": 500, "listed": None, "delete": 410},
            kg={"status": 500, "listed": None, "delete": 410},
        ),
    ),
    "test_a_star_lets_all_variables_of_the_client_pass": (
        Difference("a star is Enterprise Gateway's", kg={"ANYTHING": None}),
    ),
    "test_the_kernelspecs_own_variables": (
        Difference(
            "as in Enterprise Gateway, what the client may set wins over the kernelspec",
            kg={"KERNEL_A": "spec", "ALLOWED": "spec"},
        ),
    ),
    "test_the_gateway_says_who_and_which_kernel": (
        Difference("the variables are Enterprise Gateway's", kg={"KERNEL_ID": False, "KERNEL_LANGUAGE": None}),
    ),
    "test_unknown_kernels_are_404": (
        Difference(
            "clients show the reason",
            kg={"interrupt": {"status": 404, "fields": {"message": "str", "reason": "NoneType"}}},
        ),
    ),
    "test_the_client_chooses_the_id": (Difference("KERNEL_ID is Enterprise Gateway's", kg={"id": False}),),
}
