"""The routes: every operation of the REST API, and its handler if it is served.

https://learn.microsoft.com/rest/api/batchservice/
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from starlette.responses import Response

from localbatch import errors
from localbatch.account import states
from localbatch.api import job_schedules, jobs, nodes, pools, tasks
from localbatch.api.requests import Call

Handler = Callable[[Call], Response]


class Route(NamedTuple):
    """An operation of the REST API, and its handler if it is served."""

    method: str
    path: str
    operation: str
    handler: Handler | None = None


_POOL = "/pools/{pool_id}"
_NODE = f"{_POOL}/nodes/{{node_id}}"
_JOB = "/jobs/{job_id}"
_TASK = f"{_JOB}/tasks/{{task_id}}"
_SCHEDULE = "/jobschedules/{job_schedule_id}"
_CERTIFICATE = "/certificates(thumbprintAlgorithm={thumbprint_algorithm},thumbprint={thumbprint})"

# In the order of the REST reference, with the names of the Python SDK.
ROUTES = (
    Route("GET", "/applications", "list_applications", pools.list_applications),
    Route("GET", "/applications/{application_id}", "get_application", pools.get_application),
    Route("GET", "/poolusagemetrics", "list_pool_usage_metrics", pools.list_pool_usage_metrics),
    Route("POST", "/pools", "create_pool", pools.create_pool),
    Route("GET", "/pools", "list_pools", pools.list_pools),
    Route("DELETE", _POOL, "delete_pool", pools.delete_pool),
    Route("HEAD", _POOL, "pool_exists", pools.pool_exists),
    Route("GET", _POOL, "get_pool", pools.get_pool),
    Route("PATCH", _POOL, "update_pool", pools.update_pool),
    Route("POST", f"{_POOL}/disableautoscale", "disable_pool_auto_scale", pools.disable_pool_auto_scale),
    Route("POST", f"{_POOL}/enableautoscale", "enable_pool_auto_scale", pools.enable_pool_auto_scale),
    Route("POST", f"{_POOL}/evaluateautoscale", "evaluate_pool_auto_scale", pools.evaluate_pool_auto_scale),
    Route("POST", f"{_POOL}/resize", "resize_pool", pools.resize_pool),
    Route("POST", f"{_POOL}/stopresize", "stop_pool_resize", pools.stop_pool_resize),
    Route("POST", f"{_POOL}/updateproperties", "replace_pool_properties", pools.replace_pool_properties),
    Route("POST", f"{_POOL}/removenodes", "remove_nodes", pools.remove_nodes),
    Route("GET", "/supportedimages", "list_supported_images", pools.list_supported_images),
    Route("GET", "/nodecounts", "list_pool_node_counts", pools.list_pool_node_counts),
    Route("DELETE", _JOB, "delete_job", jobs.delete_job),
    Route("GET", _JOB, "get_job", jobs.get_job),
    Route("PATCH", _JOB, "update_job", jobs.update_job),
    Route("PUT", _JOB, "replace_job", jobs.replace_job),
    Route("POST", f"{_JOB}/disable", "disable_job", jobs.disable_job),
    Route("POST", f"{_JOB}/enable", "enable_job", jobs.enable_job),
    Route("POST", f"{_JOB}/terminate", "terminate_job", jobs.terminate_job),
    Route("POST", "/jobs", "create_job", jobs.create_job),
    Route("GET", "/jobs", "list_jobs", jobs.list_jobs),
    Route("GET", f"{_SCHEDULE}/jobs", "list_jobs_from_schedule", job_schedules.list_jobs_from_schedule),
    Route(
        "GET",
        f"{_JOB}/jobpreparationandreleasetaskstatus",
        "list_job_preparation_and_release_task_status",
        jobs.list_job_preparation_and_release_task_status,
    ),
    Route("GET", f"{_JOB}/taskcounts", "get_job_task_counts", jobs.get_job_task_counts),
    Route("HEAD", _SCHEDULE, "job_schedule_exists", job_schedules.job_schedule_exists),
    Route("DELETE", _SCHEDULE, "delete_job_schedule", job_schedules.delete_job_schedule),
    Route("GET", _SCHEDULE, "get_job_schedule", job_schedules.get_job_schedule),
    Route("PATCH", _SCHEDULE, "update_job_schedule", job_schedules.update_job_schedule),
    Route("PUT", _SCHEDULE, "replace_job_schedule", job_schedules.replace_job_schedule),
    Route("POST", f"{_SCHEDULE}/disable", "disable_job_schedule", job_schedules.disable_job_schedule),
    Route("POST", f"{_SCHEDULE}/enable", "enable_job_schedule", job_schedules.enable_job_schedule),
    Route("POST", f"{_SCHEDULE}/terminate", "terminate_job_schedule", job_schedules.terminate_job_schedule),
    Route("POST", "/jobschedules", "create_job_schedule", job_schedules.create_job_schedule),
    Route("GET", "/jobschedules", "list_job_schedules", job_schedules.list_job_schedules),
    Route("POST", f"{_JOB}/tasks", "create_task", tasks.create_task),
    Route("GET", f"{_JOB}/tasks", "list_tasks", tasks.list_tasks),
    Route("POST", f"{_JOB}/addtaskcollection", "create_task_collection", tasks.create_task_collection),
    Route("DELETE", _TASK, "delete_task", tasks.delete_task),
    Route("GET", _TASK, "get_task", tasks.get_task),
    Route("PUT", _TASK, "replace_task", tasks.replace_task),
    Route("GET", f"{_TASK}/subtasksinfo", "list_subtasks", tasks.list_subtasks),
    Route("POST", f"{_TASK}/terminate", "terminate_task", tasks.terminate_task),
    Route("POST", f"{_TASK}/reactivate", "reactivate_task", tasks.reactivate_task),
    Route("DELETE", f"{_TASK}/files/{{file_path}}", "delete_task_file", tasks.delete_task_file),
    Route("GET", f"{_TASK}/files/{{file_path}}", "download_task_file", tasks.get_task_file),
    Route("HEAD", f"{_TASK}/files/{{file_path}}", "get_task_file_properties", tasks.get_task_file),
    Route("GET", f"{_TASK}/files", "list_task_files", tasks.list_task_files),
    Route("POST", f"{_NODE}/users", "create_node_user", nodes.create_node_user),
    Route("DELETE", f"{_NODE}/users/{{user_name}}", "delete_node_user", nodes.delete_node_user),
    Route("PUT", f"{_NODE}/users/{{user_name}}", "replace_node_user", nodes.replace_node_user),
    Route("GET", _NODE, "get_node", nodes.get_node),
    Route("POST", f"{_NODE}/reboot", "reboot_node", nodes.reboot_node),
    Route("POST", f"{_NODE}/start", "start_node", nodes.start_node),
    Route("POST", f"{_NODE}/reimage", "reimage_node", nodes.reimage_node),
    Route("POST", f"{_NODE}/deallocate", "deallocate_node", nodes.deallocate_node),
    Route("POST", f"{_NODE}/disablescheduling", "disable_node_scheduling", nodes.disable_node_scheduling),
    Route("POST", f"{_NODE}/enablescheduling", "enable_node_scheduling", nodes.enable_node_scheduling),
    Route(
        "GET", f"{_NODE}/remoteloginsettings", "get_node_remote_login_settings", nodes.get_node_remote_login_settings
    ),
    Route("POST", f"{_NODE}/uploadbatchservicelogs", "upload_node_logs", nodes.upload_node_logs),
    Route("GET", f"{_POOL}/nodes", "list_nodes", nodes.list_nodes),
    Route("GET", f"{_NODE}/extensions/{{extension_name}}", "get_node_extension"),
    Route("GET", f"{_NODE}/extensions", "list_node_extensions"),
    Route("DELETE", f"{_NODE}/files/{{file_path}}", "delete_node_file", nodes.delete_node_file),
    Route("GET", f"{_NODE}/files/{{file_path}}", "download_node_file", nodes.get_node_file),
    Route("HEAD", f"{_NODE}/files/{{file_path}}", "get_node_file_properties", nodes.get_node_file),
    Route("GET", f"{_NODE}/files", "list_node_files", nodes.list_node_files),
    # Operations that only versions before 2025-06-01 have.
    Route("GET", f"{_NODE}/rdp", "get_remote_desktop"),
    Route("POST", "/certificates", "create_certificate"),
    Route("GET", "/certificates", "list_certificates"),
    Route("DELETE", _CERTIFICATE, "delete_certificate"),
    Route("GET", _CERTIFICATE, "get_certificate"),
    Route("POST", f"{_CERTIFICATE}/canceldelete", "cancel_certificate_deletion"),
    Route("GET", "/lifetimepoolstats", "get_all_pool_lifetime_statistics"),
    Route("GET", "/lifetimejobstats", "get_all_job_lifetime_statistics"),
)


# Only the routes of one path need its pattern, and the routes never change.
@functools.cache
def _patterns() -> Sequence[tuple[re.Pattern[str], dict[str, Route]]]:
    by_path: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    return [(_pattern(path), routes) for path, routes in by_path.items()]


def _pattern(path: str) -> re.Pattern[str]:
    texts_and_names = re.split(r"\{(\w+)\}", path)
    pieces = [re.escape(text) if not index % 2 else f"(?P<{text}>[^/]+)" for index, text in enumerate(texts_and_names)]
    return re.compile("".join(pieces))


class Match(NamedTuple):
    """The route of a request, and the parameters in its path."""

    route: Route
    parameters: dict[str, str]


def match_route(method: str, raw_path: str) -> Match:
    """Return the route of a request.

    Args:
        method: The HTTP method.
        raw_path: The path as received: a slash within a parameter is percent-encoded there.

    Raises:
        ServiceError: InvalidUri or UnsupportedHttpVerb.
    """
    for pattern, routes in _patterns():
        match = pattern.fullmatch(raw_path)
        if match:
            if method not in routes:
                raise errors.unsupported_http_verb()
            return Match(routes[method], {name: unquote(value) for name, value in match.groupdict().items()})
    raise errors.invalid_uri()


def call_handler(route: Route, call: Call) -> Response:
    """Return the response of the handler of a route.

    Raises:
        ServiceError: The handler refuses the request, or the route has no handler.
    """
    if not route.handler:
        raise errors.not_implemented(OperationName=route.operation)
    try:
        with call.store.lock:
            return route.handler(call)
    except states.IllegalTransition as error:
        raise errors.operation_invalid_for_current_state(Reason=error) from error
