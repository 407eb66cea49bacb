"""Who asks: the routes of the REST API, then one handler for each operation that is served."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

from starlette.responses import Response

from localbatch import autoscale, errors, odata, states, wire
from localbatch.files import file_response, find_file, list_files
from localbatch.images import IMAGES
from localbatch.models import Job, Json, Node, Pool, Stated, Task
from localbatch.scheduler import Scheduler
from localbatch.store import Store, key_of

_T = TypeVar("_T")

MAX_BODY_BYTES = 1 << 20
MAX_TASKS_PER_COLLECTION = 100
"""Source of both: Batch REST API, Add Task Collection."""

JSON_TYPE = "application/json;odata=minimalmetadata"
DEALLOCATION_OPTIONS = ("requeue", "terminate", "taskcompletion", "retaineddata")


@dataclass(frozen=True, kw_only=True)
class Service:
    """What handlers work on."""

    store: Store
    scheduler: Scheduler
    root_of: Callable[[Node], Path]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, authenticated and matched."""

    service: Service
    method: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    """By names in lower case."""
    headers: Mapping[str, str]
    body: bytes
    base: str
    """The URL that the client knows the account by."""
    raw_path: str
    raw_query: str
    now: datetime

    @property
    def store(self) -> Store:
        """The records."""
        return self.service.store

    @property
    def scheduler(self) -> Scheduler:
        """The decisions."""
        return self.service.scheduler

    def json(self) -> Json:
        """Return the body; one that is empty means an empty object."""
        try:
            body = json.loads(self.body or b"{}")
        except ValueError as error:
            raise errors.invalid_request_body(Reason=error) from error
        if not isinstance(body, dict):
            raise errors.invalid_request_body(Reason="The body must be an object")
        return body

    def pool(self) -> Pool:
        """Return the pool that the path names, if the conditions of the headers hold."""
        pool = self.store.pool(self.parameters["pool_id"])
        _check_conditions(self, pool.etag, pool.modified_at)
        return pool

    def live_pool(self) -> Pool:
        """Return the pool that the path names, if it may be changed."""
        pool = self.pool()
        if pool.state == "deleting":
            raise errors.pool_being_deleted()
        return pool

    def node(self) -> Node:
        """Return the node that the path names."""
        return self.store.node(self.parameters["pool_id"], self.parameters["node_id"])

    def job(self) -> Job:
        """Return the job that the path names, if the conditions of the headers hold."""
        job = self.store.job(self.parameters["job_id"])
        _check_conditions(self, job.etag, job.modified_at)
        return job

    def live_job(self) -> Job:
        """Return the job that the path names, if it may be changed."""
        job = self.job()
        _check_live(job)
        return job

    def task(self) -> Task:
        """Return the Batch task that the path names, if the conditions of the headers hold."""
        task = self.store.task(self.parameters["job_id"], self.parameters["task_id"])
        _check_conditions(self, task.etag, task.created_at)
        return task


def _check_live(job: Job) -> None:
    refusals = {
        "completed": errors.job_completed,
        "terminating": errors.job_being_terminated,
        "deleting": errors.job_being_deleted,
    }
    if job.state in refusals:
        refuse = refusals[job.state]
        raise refuse()


def _check_conditions(call: Call, etag: str, modified_at: datetime) -> None:
    """Raise ConditionNotMet unless the request's conditional headers hold; clients add quotes to an etag or do not."""
    match, none_match = call.headers.get("if-match"), call.headers.get("if-none-match")
    modified_at = modified_at.replace(microsecond=0)
    since, unmodified = call.headers.get("if-modified-since"), call.headers.get("if-unmodified-since")
    try:
        holds = (
            (match is None or match == "*" or match.strip('"') == etag)
            and (none_match is None or (none_match != "*" and none_match.strip('"') != etag))
            and (since is None or modified_at > wire.read_http_date(since))
            and (unmodified is None or modified_at <= wire.read_http_date(unmodified))
        )
    except ValueError as error:
        raise errors.invalid_header_value(Reason=error) from error
    if not holds:
        raise errors.not_modified() if call.method in {"GET", "HEAD"} else errors.condition_not_met()


# Answers.


def _json(call: Call, kind: str, body: Json, record: Pool | Job | Task | None = None) -> Response:
    content = {"odata.metadata": f"{call.base}/$metadata#{kind}"} | body
    return Response(json.dumps(content), headers=_tags(record), media_type=JSON_TYPE)


def _one(call: Call, kind: str, body: Json, record: Pool | Job | Task | None = None) -> Response:
    return _json(call, f"{kind}/@Element", odata.select(body, call.query.get("$select")), record)


def _done(status: int, record: Pool | Job | Task | None = None, url: str | None = None) -> Response:
    headers = _tags(record)
    if url:
        headers |= {"DataServiceId": url}
    if url and status == HTTPStatus.CREATED:
        headers |= {"Location": url}
    return Response(status_code=status, headers=headers)


def _tags(record: Pool | Job | Task | None) -> dict[str, str]:
    if not record:
        return {}
    modified_at = record.created_at if isinstance(record, Task) else record.modified_at
    return {"ETag": record.etag, "Last-Modified": wire.http_date(modified_at)}


def _list(
    call: Call, kind: str, records: Mapping[str, _T], fields: odata.Fields, write: Callable[[_T], Json]
) -> Response:
    """Answer with the page of a list that the request asks for."""
    size = call.query.get("maxresults", str(wire.PAGE_SIZE))
    if not size.isascii() or not size.isdigit() or not 1 <= int(size) <= wire.PAGE_SIZE:
        raise errors.out_of_range_query_parameter_value(
            QueryParameterName="maxresults", QueryParameterValue=size, MinimumAllowed=1, MaximumAllowed=wire.PAGE_SIZE
        )
    matches = odata.read_filter(call.query.get("$filter"), fields)
    found, token = wire.page(records, matches, int(size), call.query.get("$skiptoken"))
    body: Json = {"value": [odata.select(write(record), call.query.get("$select")) for record in found]}
    if token:
        # Names and values stand as they came: the client encodes the link's query anew.
        kept = [part for part in call.raw_query.split("&") if "skiptoken=" not in part.lower()]
        body["odata.nextLink"] = f"{call.base}{call.raw_path}?{'&'.join(kept)}&$skiptoken={token}"
    return _json(call, kind, body)


# Pools.


def create_pool(call: Call) -> Response:
    """POST /pools."""
    body, now = call.json(), call.now
    spec = wire.pool_spec(body)
    if spec["enableAutoScale"]:
        _check_formula(spec["autoScaleFormula"])
    dedicated, low_priority = wire.targets(body, 0, 0)
    pool = Pool(
        id=body["id"],
        spec=spec,
        etag=call.store.new_etag(),
        created_at=now,
        modified_at=now,
        state="active",
        state_at=now,
        allocation=Stated(state="resizing", state_at=now),
        target_dedicated=dedicated,
        target_low_priority=low_priority,
    )
    call.store.add_pool(pool)
    if spec["enableAutoScale"]:
        call.scheduler.enable_autoscale(pool, now)
    return _done(201, pool, f"{call.base}/pools/{pool.id}")


def list_pools(call: Call) -> Response:
    """GET /pools."""
    return _list(call, "pools", call.store.pools, odata.POOLS, lambda pool: wire.pool_json(pool, call.base))


def delete_pool(call: Call) -> Response:
    """DELETE /pools/{pool_id}."""
    call.scheduler.delete_pool(call.live_pool(), call.now)
    return _done(202)


def pool_exists(call: Call) -> Response:
    """HEAD /pools/{pool_id}."""
    return _done(200, call.pool())


def get_pool(call: Call) -> Response:
    """GET /pools/{pool_id}."""
    pool = call.pool()
    return _one(call, "pools", wire.pool_json(pool, call.base), pool)


def update_pool(call: Call) -> Response:
    """PATCH /pools/{pool_id}."""
    pool = call.live_pool()
    changes = wire.pool_patch(call.json(), pool)
    pool.spec = {name: value for name, value in (pool.spec | changes).items() if value is not None}
    return _changed_pool(call, pool, 200)


def _changed_pool(call: Call, pool: Pool, status: int, action: str = "") -> Response:
    call.scheduler.touch(pool, call.now)
    return _done(status, pool, f"{call.base}/pools/{pool.id}{action}")


def disable_pool_auto_scale(call: Call) -> Response:
    """POST /pools/{pool_id}/disableautoscale."""
    pool = call.live_pool()
    call.scheduler.disable_autoscale(pool, call.now)
    return _changed_pool(call, pool, 200, "/disableautoscale")


def enable_pool_auto_scale(call: Call) -> Response:
    """POST /pools/{pool_id}/enableautoscale."""
    pool, body = call.live_pool(), call.json()
    if pool.allocation.state != "steady":
        raise errors.pool_being_resized()
    formula = body.get("autoScaleFormula") or pool.spec.get("autoScaleFormula")
    if not formula:
        raise errors.missing_required_property(PropertyName="autoScaleFormula")
    _check_formula(formula)
    interval = wire.autoscale_interval(body, pool.spec.get("autoScaleEvaluationInterval", "PT15M"))
    pool.spec |= {"autoScaleFormula": formula, "autoScaleEvaluationInterval": interval}
    call.scheduler.enable_autoscale(pool, call.now)
    return _changed_pool(call, pool, 200, "/enableautoscale")


def evaluate_pool_auto_scale(call: Call) -> Response:
    """POST /pools/{pool_id}/evaluateautoscale."""
    pool, formula = call.live_pool(), call.json().get("autoScaleFormula")
    if not pool.spec["enableAutoScale"]:
        raise errors.operation_invalid_for_current_state(Reason="The pool does not scale automatically")
    if not isinstance(formula, str) or not formula:
        raise errors.missing_required_property(PropertyName="autoScaleFormula")
    _, run = call.scheduler.evaluate(pool, formula, call.now)
    return _json(call, "Microsoft.Azure.Batch.Protocol.Entities.AutoScaleRun", run, pool)


def _check_formula(formula: object) -> None:
    if not isinstance(formula, str):
        raise errors.invalid_property_value(PropertyName="autoScaleFormula", PropertyValue=formula)
    try:
        autoscale.check(formula)
    except autoscale.FormulaError as error:
        raise errors.formula_refused(error.code, error.message) from error


def resize_pool(call: Call) -> Response:
    """POST /pools/{pool_id}/resize."""
    pool, body = call.live_pool(), call.json()
    if pool.spec["enableAutoScale"]:
        raise errors.operation_invalid_for_current_state(Reason="The pool scales automatically")
    if pool.allocation.state != "steady":
        raise errors.pool_being_resized()
    pool.spec["resizeTimeout"] = wire.resize_timeout(body)
    dedicated, low_priority = wire.targets(body, pool.target_dedicated, pool.target_low_priority)
    option = wire.choice(body, "nodeDeallocationOption", DEALLOCATION_OPTIONS, "requeue")
    call.scheduler.resize(pool, dedicated, low_priority, option, call.now)
    return _done(202, pool, f"{call.base}/pools/{pool.id}/resize")


def stop_pool_resize(call: Call) -> Response:
    """POST /pools/{pool_id}/stopresize."""
    pool = call.live_pool()
    call.scheduler.stop_resize(pool, call.now)
    return _done(202, pool, f"{call.base}/pools/{pool.id}/stopresize")


def list_supported_images(call: Call) -> Response:
    """GET /supportedimages."""
    return _list(call, "supportedimages", IMAGES, odata.IMAGES, lambda image: image)


def list_pool_node_counts(call: Call) -> Response:
    """GET /nodecounts."""
    return _list(call, "poolnodecounts", call.store.pools, odata.NODE_COUNTS, wire.node_counts_json)


# Jobs.


def create_job(call: Call) -> Response:
    """POST /jobs."""
    body, now = call.json(), call.now
    spec = wire.job_spec(body)
    job = Job(
        id=body["id"],
        key=key_of(body["id"]),
        spec=spec,
        etag=call.store.new_etag(),
        created_at=now,
        modified_at=now,
        state="active",
        state_at=now,
        expires_at=wire.expiry(now, spec["constraints"]["maxWallClockTime"]),
    )
    call.store.add_job(job)
    return _done(201, job, f"{call.base}/jobs/{job.id}")


def list_jobs(call: Call) -> Response:
    """GET /jobs."""
    return _list(call, "jobs", call.store.jobs, odata.JOBS, lambda job: wire.job_json(job, call.base))


def delete_job(call: Call) -> Response:
    """DELETE /jobs/{job_id}."""
    job = call.job()
    if job.state == "deleting":
        raise errors.job_being_deleted()
    call.scheduler.delete_job(job, call.now)
    return _done(202)


def get_job(call: Call) -> Response:
    """GET /jobs/{job_id}."""
    job = call.job()
    return _one(call, "jobs", wire.job_json(job, call.base), job)


def update_job(call: Call) -> Response:
    """PATCH /jobs/{job_id}."""
    job = call.live_job()
    job.spec = job.spec | wire.job_patch(call.json(), job)
    job.expires_at = wire.expiry(job.created_at, job.spec["constraints"]["maxWallClockTime"])
    call.scheduler.touch(job, call.now)
    return _changed_job(call, job, 200)


def _changed_job(call: Call, job: Job, status: int, action: str = "") -> Response:
    return _done(status, job, f"{call.base}/jobs/{job.id}{action}")


def disable_job(call: Call) -> Response:
    """POST /jobs/{job_id}/disable."""
    job, body = call.live_job(), call.json()
    if body.get("disableTasks") is None:
        raise errors.missing_required_property(PropertyName="disableTasks")
    option = wire.choice(body, "disableTasks", ("requeue", "terminate", "wait"), "requeue")
    call.scheduler.disable_job(job, option, call.now)
    return _changed_job(call, job, 202, "/disable")


def enable_job(call: Call) -> Response:
    """POST /jobs/{job_id}/enable."""
    job = call.live_job()
    call.scheduler.enable_job(job, call.now)
    return _changed_job(call, job, 202, "/enable")


def terminate_job(call: Call) -> Response:
    """POST /jobs/{job_id}/terminate."""
    job = call.live_job()
    call.scheduler.terminate_job(job, call.json().get("terminateReason") or "UserTerminate", call.now)
    return _changed_job(call, job, 202, "/terminate")


def list_job_preparation_and_release_task_status(call: Call) -> Response:
    """GET /jobs/{job_id}/jobpreparationandreleasetaskstatus."""
    job = call.job()
    if "jobPreparationTask" not in job.spec:
        raise errors.job_preparation_task_not_specified()
    rows = {
        node.id: wire.preparation_json(node, node.preparations[job.key], job, call.base)
        for pool in call.store.pools.values()
        for node in pool.nodes.values()
        if job.key in node.preparations
    }
    return _list(call, "jobpreparationandreleasetaskstatuslist", rows, odata.PREPARATIONS, lambda row: row)


def get_job_task_counts(call: Call) -> Response:
    """GET /jobs/{job_id}/taskcounts."""
    return _json(call, "taskcountsresult/@Element", wire.counts_json(call.job()))


# Batch tasks.


def create_task(call: Call) -> Response:
    """POST /jobs/{job_id}/tasks."""
    task = _add_task(call, call.live_job(), call.json())
    return _done(201, task, _task_url(call, task))


def _add_task(call: Call, job: Job, body: Json) -> Task:
    spec = wire.task_spec(body, job)
    task = Task(
        id=body["id"],
        key=(job.key, key_of(body["id"])),
        job_id=job.id,
        spec=spec,
        etag=call.store.new_etag(),
        created_at=call.now,
        state="active",
        state_at=call.now,
        slots=spec["requiredSlots"],
        max_retries=spec["constraints"]["maxTaskRetryCount"],
    )
    call.store.add_task(job, task)
    return task


def _task_url(call: Call, task: Task) -> str:
    return f"{call.base}/jobs/{task.job_id}/tasks/{task.id}"


def list_tasks(call: Call) -> Response:
    """GET /jobs/{job_id}/tasks."""
    return _list(call, "tasks", call.job().tasks, odata.TASKS, lambda task: wire.task_json(task, call.base))


def create_task_collection(call: Call) -> Response:
    """POST /jobs/{job_id}/addtaskcollection."""
    job, tasks = call.live_job(), call.json().get("value")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise errors.missing_required_property(PropertyName="value")
    if not 1 <= len(tasks) <= MAX_TASKS_PER_COLLECTION:
        raise errors.invalid_property_value(
            PropertyName="value", Reason=f"A collection has 1 to {MAX_TASKS_PER_COLLECTION} tasks"
        )
    return _json(call, "taskaddresult", {"value": [_try_to_add_task(call, job, task) for task in tasks]})


def _try_to_add_task(call: Call, job: Job, body: Json) -> Json:
    try:
        task = _add_task(call, job, body)
    except errors.ServiceError as error:
        return {"status": "ClientError", "taskId": body.get("id"), "error": error.body(call.now)}
    return {
        "status": "Success",
        "taskId": task.id,
        "eTag": task.etag,
        "lastModified": wire.timestamp(task.created_at),
        "location": _task_url(call, task),
    }


def delete_task(call: Call) -> Response:
    """DELETE /jobs/{job_id}/tasks/{task_id}."""
    task = call.task()
    call.scheduler.delete_task(call.store.job(task.job_id), task, call.now)
    return _done(200)


def get_task(call: Call) -> Response:
    """GET /jobs/{job_id}/tasks/{task_id}."""
    task = call.task()
    return _one(call, "tasks", wire.task_json(task, call.base), task)


def terminate_task(call: Call) -> Response:
    """POST /jobs/{job_id}/tasks/{task_id}/terminate."""
    task = call.task()
    if task.state == "completed":
        raise errors.task_completed()
    call.scheduler.terminate_task(call.store.job(task.job_id), task, call.now)
    return _done(204, task, f"{_task_url(call, task)}/terminate")


def reactivate_task(call: Call) -> Response:
    """POST /jobs/{job_id}/tasks/{task_id}/reactivate."""
    task = call.task()
    job = call.store.job(task.job_id)
    _check_live(job)
    if task.state != "completed":
        raise errors.task_not_completed()
    if not task.execution.failure:
        raise errors.task_succeeded()
    call.scheduler.reactivate_task(job, task, call.now)
    return _done(204, task, f"{_task_url(call, task)}/reactivate")


def get_task_file(call: Call) -> Response:
    """GET or HEAD /jobs/{job_id}/tasks/{task_id}/files/{file_path}."""
    task = call.task()
    return _file(call, _task_directory(call, task), f"{_task_url(call, task)}/files")


def list_task_files(call: Call) -> Response:
    """GET /jobs/{job_id}/tasks/{task_id}/files."""
    task = call.task()
    return _list_files(call, _task_directory(call, task), f"{_task_url(call, task)}/files")


def _task_directory(call: Call, task: Task) -> Path:
    node = task.node
    pool = call.store.pools.get(key_of(node.pool_id)) if node else None
    if not node or not pool or pool.nodes.get(node.id) is not node:
        raise errors.task_files_unavailable()
    return call.service.root_of(node) / "workitems" / task.job_id / "job-1" / task.id


def _file(call: Call, root: Path, url: str) -> Response:
    path = find_file(root, call.parameters["file_path"])
    url = f"{url}/{path.relative_to(root).as_posix()}"
    return file_response(path, url, call.headers, with_body=call.method == "GET")


def _list_files(call: Call, root: Path, url: str) -> Response:
    listing = list_files(root, url, recursive=call.query.get("recursive", "").lower() == "true")
    return _list(call, "files", listing, odata.FILES, lambda file: file)


# Nodes.


def get_node(call: Call) -> Response:
    """GET /pools/{pool_id}/nodes/{node_id}."""
    node = call.node()
    return _one(call, "nodes", wire.node_json(node, call.store.pool(node.pool_id), call.base))


def reboot_node(call: Call) -> Response:
    """POST /pools/{pool_id}/nodes/{node_id}/reboot."""
    node = call.node()
    option = wire.choice(call.json(), "nodeRebootOption", DEALLOCATION_OPTIONS, "requeue")
    refusals = {
        "creating": errors.node_being_created,
        "starting": errors.node_being_started,
        "waitingforstarttask": errors.node_being_started,
        "rebooting": errors.node_being_rebooted,
    }
    try:
        call.scheduler.reboot(node, option, call.now)
    except states.IllegalTransition as error:
        refuse = refusals.get(node.state, errors.node_state_unusable)
        raise refuse() from error
    return _done(202, url=f"{call.base}/pools/{node.pool_id}/nodes/{node.id}/reboot")


def list_nodes(call: Call) -> Response:
    """GET /pools/{pool_id}/nodes."""
    pool = call.store.pool(call.parameters["pool_id"])
    return _list(call, "nodes", pool.nodes, odata.NODES, lambda node: wire.node_json(node, pool, call.base))


def get_node_file(call: Call) -> Response:
    """GET or HEAD /pools/{pool_id}/nodes/{node_id}/files/{file_path}."""
    node = call.node()
    return _file(call, call.service.root_of(node), f"{call.base}/pools/{node.pool_id}/nodes/{node.id}/files")


def list_node_files(call: Call) -> Response:
    """GET /pools/{pool_id}/nodes/{node_id}/files."""
    node = call.node()
    return _list_files(call, call.service.root_of(node), f"{call.base}/pools/{node.pool_id}/nodes/{node.id}/files")


# The table.

Handler = Callable[[Call], Response]


class Route(NamedTuple):
    """An operation of the REST API, and the handler that serves it, if one does."""

    method: str
    path: str
    operation: str
    handler: Handler | None = None


_POOL = "/pools/{pool_id}"
_NODE = f"{_POOL}/nodes/{{node_id}}"
_JOB = "/jobs/{job_id}"
_TASK = f"{_JOB}/tasks/{{task_id}}"
_SCHEDULE = "/jobschedules/{job_schedule_id}"

ROUTES = (
    Route("GET", "/applications", "list_applications"),
    Route("GET", "/applications/{application_id}", "get_application"),
    Route("GET", "/poolusagemetrics", "list_pool_usage_metrics"),
    Route("POST", "/pools", "create_pool", create_pool),
    Route("GET", "/pools", "list_pools", list_pools),
    Route("DELETE", _POOL, "delete_pool", delete_pool),
    Route("HEAD", _POOL, "pool_exists", pool_exists),
    Route("GET", _POOL, "get_pool", get_pool),
    Route("PATCH", _POOL, "update_pool", update_pool),
    Route("POST", f"{_POOL}/disableautoscale", "disable_pool_auto_scale", disable_pool_auto_scale),
    Route("POST", f"{_POOL}/enableautoscale", "enable_pool_auto_scale", enable_pool_auto_scale),
    Route("POST", f"{_POOL}/evaluateautoscale", "evaluate_pool_auto_scale", evaluate_pool_auto_scale),
    Route("POST", f"{_POOL}/resize", "resize_pool", resize_pool),
    Route("POST", f"{_POOL}/stopresize", "stop_pool_resize", stop_pool_resize),
    Route("POST", f"{_POOL}/updateproperties", "replace_pool_properties"),
    Route("POST", f"{_POOL}/removenodes", "remove_nodes"),
    Route("GET", "/supportedimages", "list_supported_images", list_supported_images),
    Route("GET", "/nodecounts", "list_pool_node_counts", list_pool_node_counts),
    Route("DELETE", _JOB, "delete_job", delete_job),
    Route("GET", _JOB, "get_job", get_job),
    Route("PATCH", _JOB, "update_job", update_job),
    Route("PUT", _JOB, "replace_job"),
    Route("POST", f"{_JOB}/disable", "disable_job", disable_job),
    Route("POST", f"{_JOB}/enable", "enable_job", enable_job),
    Route("POST", f"{_JOB}/terminate", "terminate_job", terminate_job),
    Route("POST", "/jobs", "create_job", create_job),
    Route("GET", "/jobs", "list_jobs", list_jobs),
    Route("GET", f"{_SCHEDULE}/jobs", "list_jobs_from_schedule"),
    Route(
        "GET",
        f"{_JOB}/jobpreparationandreleasetaskstatus",
        "list_job_preparation_and_release_task_status",
        list_job_preparation_and_release_task_status,
    ),
    Route("GET", f"{_JOB}/taskcounts", "get_job_task_counts", get_job_task_counts),
    Route("HEAD", _SCHEDULE, "job_schedule_exists"),
    Route("DELETE", _SCHEDULE, "delete_job_schedule"),
    Route("GET", _SCHEDULE, "get_job_schedule"),
    Route("PATCH", _SCHEDULE, "update_job_schedule"),
    Route("PUT", _SCHEDULE, "replace_job_schedule"),
    Route("POST", f"{_SCHEDULE}/disable", "disable_job_schedule"),
    Route("POST", f"{_SCHEDULE}/enable", "enable_job_schedule"),
    Route("POST", f"{_SCHEDULE}/terminate", "terminate_job_schedule"),
    Route("POST", "/jobschedules", "create_job_schedule"),
    Route("GET", "/jobschedules", "list_job_schedules"),
    Route("POST", f"{_JOB}/tasks", "create_task", create_task),
    Route("GET", f"{_JOB}/tasks", "list_tasks", list_tasks),
    Route("POST", f"{_JOB}/addtaskcollection", "create_task_collection", create_task_collection),
    Route("DELETE", _TASK, "delete_task", delete_task),
    Route("GET", _TASK, "get_task", get_task),
    Route("PUT", _TASK, "replace_task"),
    Route("GET", f"{_TASK}/subtasksinfo", "list_subtasks"),
    Route("POST", f"{_TASK}/terminate", "terminate_task", terminate_task),
    Route("POST", f"{_TASK}/reactivate", "reactivate_task", reactivate_task),
    Route("DELETE", f"{_TASK}/files/{{file_path}}", "delete_task_file"),
    Route("GET", f"{_TASK}/files/{{file_path}}", "download_task_file", get_task_file),
    Route("HEAD", f"{_TASK}/files/{{file_path}}", "get_task_file_properties", get_task_file),
    Route("GET", f"{_TASK}/files", "list_task_files", list_task_files),
    Route("POST", f"{_NODE}/users", "create_node_user"),
    Route("DELETE", f"{_NODE}/users/{{user_name}}", "delete_node_user"),
    Route("PUT", f"{_NODE}/users/{{user_name}}", "replace_node_user"),
    Route("GET", _NODE, "get_node", get_node),
    Route("POST", f"{_NODE}/reboot", "reboot_node", reboot_node),
    Route("POST", f"{_NODE}/start", "start_node"),
    Route("POST", f"{_NODE}/reimage", "reimage_node"),
    Route("POST", f"{_NODE}/deallocate", "deallocate_node"),
    Route("POST", f"{_NODE}/disablescheduling", "disable_node_scheduling"),
    Route("POST", f"{_NODE}/enablescheduling", "enable_node_scheduling"),
    Route("GET", f"{_NODE}/remoteloginsettings", "get_node_remote_login_settings"),
    Route("POST", f"{_NODE}/uploadbatchservicelogs", "upload_node_logs"),
    Route("GET", f"{_POOL}/nodes", "list_nodes", list_nodes),
    Route("GET", f"{_NODE}/extensions/{{extension_name}}", "get_node_extension"),
    Route("GET", f"{_NODE}/extensions", "list_node_extensions"),
    Route("DELETE", f"{_NODE}/files/{{file_path}}", "delete_node_file"),
    Route("GET", f"{_NODE}/files/{{file_path}}", "download_node_file", get_node_file),
    Route("HEAD", f"{_NODE}/files/{{file_path}}", "get_node_file_properties", get_node_file),
    Route("GET", f"{_NODE}/files", "list_node_files", list_node_files),
)
"""In the order of the REST reference. Operations have the names that the Python SDK gives them."""


@functools.cache
def _patterns() -> Sequence[tuple[re.Pattern[str], dict[str, Route]]]:
    by_path: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    return [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), routes) for path, routes in by_path.items()]


def match_route(method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
    """Return the route of a request, and the parameters in its path.

    Args:
        method: The HTTP method.
        raw_path: As it stands on the wire: a slash within a parameter is encoded there.

    Raises:
        ServiceError: InvalidUri or UnsupportedHttpVerb.
    """
    for pattern, routes in _patterns():
        match = pattern.fullmatch(raw_path)
        if match:
            if method not in routes:
                raise errors.unsupported_http_verb()
            return routes[method], {name: unquote(value) for name, value in match.groupdict().items()}
    raise errors.invalid_uri()


def serve(route: Route, call: Call) -> Response:
    """Let the handler of a route answer, or refuse an operation that has none."""
    if not route.handler:
        raise errors.not_implemented(OperationName=route.operation)
    try:
        with call.store.lock:
            return route.handler(call)
    except states.IllegalTransition as error:
        raise errors.operation_invalid_for_current_state(Reason=error) from error
