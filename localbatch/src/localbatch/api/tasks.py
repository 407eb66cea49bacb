"""The handlers of the operations on Batch tasks and their files.

https://learn.microsoft.com/rest/api/batchservice/tasks
"""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response

from localbatch import errors, wire
from localbatch.account.records import Job, Task, task_directory
from localbatch.account.specs import Json
from localbatch.account.store import key_of
from localbatch.api import odata, request_bodies, response_bodies
from localbatch.api.files import answer_with_file, delete_file, list_files_below
from localbatch.api.paging import listing
from localbatch.api.properties import invalid, read_body
from localbatch.api.requests import Call, check_live
from localbatch.api.responses import done, json_answer, one
from localbatch.rules.creation import new_task

# https://learn.microsoft.com/rest/api/batchservice/tasks/create-task-collection
MAX_TASKS_PER_COLLECTION = 100


def create_task(call: Call) -> Response:
    """POST /jobs/{job_id}/tasks."""
    task = _add_task(call, call.live_job(), call.json("task"))
    return done(201, task, call.url(task))


def _add_task(call: Call, job: Job, body: Json) -> Task:
    spec = request_bodies.task_spec(body, job)
    task = new_task(call.store, job, body["id"], spec, call.now)
    call.store.add_task(job, task)
    return task


def list_tasks(call: Call) -> Response:
    """GET /jobs/{job_id}/tasks."""
    return listing(
        call, "tasks", call.job().tasks, odata.TASKS, lambda task: response_bodies.task_json(task, call.base)
    )


def create_task_collection(call: Call) -> Response:
    """POST /jobs/{job_id}/addtaskcollection."""
    job, tasks = call.live_job(), call.json("tasks")["value"]
    if not 1 <= len(tasks) <= MAX_TASKS_PER_COLLECTION:
        raise invalid("value", len(tasks), f"A collection has 1 to {MAX_TASKS_PER_COLLECTION} tasks")
    # Malformed tasks refuse the whole request, before any is added.
    read = [(body, _try_to_read_task(body)) for body in tasks]
    # The request succeeds even if some tasks fail: each result has a status of its own.
    return json_answer(call, "taskaddresult", {"value": [_try_to_add_task(call, job, *each) for each in read]})


def _try_to_read_task(body: Json) -> Json | errors.ServiceError:
    try:
        return read_body(body, "task")
    except errors.ServiceError as error:
        if error.code == "InvalidRequestBody":
            raise
        return error


def _try_to_add_task(call: Call, job: Job, body: Json, read: Json | errors.ServiceError) -> Json:
    try:
        if isinstance(read, errors.ServiceError):
            raise read
        task = _add_task(call, job, read)
    except errors.ServiceError as error:
        # Clients retry results with the status ServerError, and report this one.
        return {"status": "ClientError", "taskId": body.get("id"), "error": error.body(call.now)}
    return {
        "status": "Success",
        "taskId": task.id,
        "eTag": task.etag,
        "lastModified": wire.timestamp(task.created_at),
        "location": call.url(task),
    }


def delete_task(call: Call) -> Response:
    """DELETE /jobs/{job_id}/tasks/{task_id}."""
    task = call.task()
    job = call.store.job(task.job_id)
    # A completed job still allows deleting its tasks.
    if job.state == "deleting":
        raise errors.job_being_deleted()
    call.scheduler.tasks.delete(job, task, call.now)
    return done(200)


def get_task(call: Call) -> Response:
    """GET /jobs/{job_id}/tasks/{task_id}."""
    task = call.task()
    return one(call, "tasks", response_bodies.task_json(task, call.base), task)


def replace_task(call: Call) -> Response:
    """PUT /jobs/{job_id}/tasks/{task_id}."""
    task, body = call.task(), call.json("task_change")
    job = call.store.job(task.job_id)
    check_live(job)
    if task.state == "completed":
        raise errors.task_completed()
    constraints = request_bodies.task_constraints(body, job.spec["constraints"]["maxTaskRetryCount"])
    call.scheduler.tasks.replace_constraints(task, constraints, call.now)
    return done(200, task, call.url(task))


def list_subtasks(call: Call) -> Response:
    """GET /jobs/{job_id}/tasks/{task_id}/subtasksinfo. Multi-instance tasks run on one node here, without subtasks."""
    call.task()
    nothing: dict[str, Json] = {}
    return listing(call, "subtaskinfo", nothing, {}, lambda subtask: subtask)


def terminate_task(call: Call) -> Response:
    """POST /jobs/{job_id}/tasks/{task_id}/terminate."""
    task = call.task()
    if task.state == "completed":
        raise errors.task_completed()
    call.scheduler.tasks.terminate(call.store.job(task.job_id), task, call.now)
    return done(204, task, call.url(task, "/terminate"))


def reactivate_task(call: Call) -> Response:
    """POST /jobs/{job_id}/tasks/{task_id}/reactivate."""
    task = call.task()
    job = call.store.job(task.job_id)
    check_live(job)
    if task.state != "completed":
        raise errors.task_not_completed()
    # Only failed Batch tasks can run again.
    if not task.execution.failure:
        raise errors.task_succeeded()
    call.scheduler.tasks.reactivate(job, task, call.now)
    # The service sends no DataServiceId here.
    return done(204, task)


def get_task_file(call: Call) -> Response:
    """GET or HEAD /jobs/{job_id}/tasks/{task_id}/files/{file_path}."""
    task = _task(call)
    return answer_with_file(call, _directory(call, task), call.url(task, "/files"))


def delete_task_file(call: Call) -> Response:
    """DELETE /jobs/{job_id}/tasks/{task_id}/files/{file_path}."""
    return delete_file(call, _directory(call, _task(call)))


def list_task_files(call: Call) -> Response:
    """GET /jobs/{job_id}/tasks/{task_id}/files."""
    task = _task(call)
    return list_files_below(call, _directory(call, task), call.url(task, "/files"))


def _task(call: Call) -> Task:
    """Return the Batch task in the path. The conditional headers apply to its file."""
    return call.store.task(call.parameters["job_id"], call.parameters["task_id"])


def _directory(call: Call, task: Task) -> Path:
    # After the retention time the service has an error code of its own.
    if task.files_removed:
        raise errors.task_files_cleaned_up()
    node = task.node
    # A deleted pool or a removed node took the files with it.
    pool = call.store.pools.get(key_of(node.pool_id)) if node else None
    if not node or not pool or pool.nodes.get(node.id) is not node:
        raise errors.task_files_unavailable()
    return call.root_of(node) / task_directory(task.job_id, task.id)
