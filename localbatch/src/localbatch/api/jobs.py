"""The handlers of the operations on jobs.

https://learn.microsoft.com/rest/api/batchservice/jobs
"""

from __future__ import annotations

from starlette.responses import Response

from localbatch import errors, wire
from localbatch.account.records import Job
from localbatch.account.specs import Json, merge
from localbatch.api import odata, request_bodies, response_bodies
from localbatch.api.paging import listing
from localbatch.api.requests import Call
from localbatch.api.responses import done, json_answer, one
from localbatch.rules import creation


def create_job(call: Call) -> Response:
    """POST /jobs."""
    body = call.json("job")
    job = creation.create_job(call.scheduler.jobs, body["id"], request_bodies.job_spec(body), call.now)
    # Recorded from the service: this URL is the same for all jobs.
    return done(201, job, f"{call.base}/jobs/job-1")


def list_jobs(call: Call) -> Response:
    """GET /jobs."""
    return listing(call, "jobs", call.store.jobs, odata.JOBS, lambda job: response_bodies.job_json(job, call.base))


def delete_job(call: Call) -> Response:
    """DELETE /jobs/{job_id}."""
    job = call.job()
    if job.state == "deleting":
        raise errors.job_being_deleted()
    call.scheduler.jobs.delete(job, call.now, force=call.option("force"))
    return done(202)


def get_job(call: Call) -> Response:
    """GET /jobs/{job_id}."""
    job = call.job()
    return one(call, "jobs", response_bodies.job_json(job, call.base), job)


def update_job(call: Call) -> Response:
    """PATCH /jobs/{job_id}."""
    job = call.live_job()
    return _changed(call, job, request_bodies.job_patch(call.json("job_change"), job))


def replace_job(call: Call) -> Response:
    """PUT /jobs/{job_id}."""
    job = call.live_job()
    return _changed(call, job, request_bodies.job_replacement(call.json("job_replacement"), job))


def _changed(call: Call, job: Job, changes: Json) -> Response:
    job.spec = merge(job.spec, changes)
    job.expires_at = wire.expiry(job.created_at, job.spec["constraints"]["maxWallClockTime"])
    # A disabled job may move from its automatic pool to an existing one.
    if "poolId" in job.spec["poolInfo"]:
        job.auto_pool_id = None
    call.scheduler.agenda.touch(job, call.now)
    return done(200, job, call.url(job))


def disable_job(call: Call) -> Response:
    """POST /jobs/{job_id}/disable."""
    job, body = call.live_job(), call.json("disable_job")
    call.scheduler.jobs.disable(job, body["disableTasks"], call.now)
    return done(202, job, call.url(job, "/disable"))


def enable_job(call: Call) -> Response:
    """POST /jobs/{job_id}/enable."""
    job = call.live_job()
    call.scheduler.jobs.enable(job, call.now)
    return done(202, job, call.url(job, "/enable"))


def terminate_job(call: Call) -> Response:
    """POST /jobs/{job_id}/terminate."""
    job = call.live_job()
    # force: do not wait for job release tasks.
    job.is_forced = call.option("force")
    call.scheduler.jobs.terminate(job, call.json("terminate_job").get("terminateReason") or "UserTerminate", call.now)
    return done(202, job, call.url(job, "/terminate"))


def list_job_preparation_and_release_task_status(call: Call) -> Response:
    """GET /jobs/{job_id}/jobpreparationandreleasetaskstatus."""
    job = call.job()
    if "jobPreparationTask" not in job.spec:
        raise errors.job_preparation_task_or_release_task_not_specified()
    # Jobs without a node have an empty list.
    rows = {
        node.id: response_bodies.preparation_json(node, job, call.base)
        for node in job.prepared.values()
        if job.key in node.preparations
    }
    return listing(call, "jobpreparationandreleasetaskstatuslist", rows, odata.PREPARATIONS, lambda row: row)


def get_job_task_counts(call: Call) -> Response:
    """GET /jobs/{job_id}/taskcounts."""
    return json_answer(call, "taskcountsresult/@Element", response_bodies.counts_json(call.job()))
