"""The operations on jobs, one handler each."""

from __future__ import annotations

import uuid

from starlette.responses import Response

from localbatch import errors, wire
from localbatch.account.records import Job, Json, Pool
from localbatch.account.store import key_of
from localbatch.api import odata, request_bodies, response_bodies
from localbatch.api.paging import listing
from localbatch.api.pools import check_formula, new_pool
from localbatch.api.properties import choice
from localbatch.api.requests import Call
from localbatch.api.responses import done, json_answer, one
from localbatch.api.tasks import new_task


def create_job(call: Call) -> Response:
    """POST /jobs."""
    body, now = call.json("job"), call.now
    spec = request_bodies.job_spec(body)
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
    auto = spec["poolInfo"].get("autoPoolSpecification")
    refusal = _refusal_of_formula(auto["pool"]) if auto else None
    pool = _auto_pool(call, auto) if auto and not refusal else None
    call.scheduler.jobs.create(job, pool, now)
    if refusal:
        call.scheduler.jobs.fail(job, "InvalidAutoScaleFormulaInAutoPool", refusal.sentence, now)
    elif "jobManagerTask" in spec:
        manager = spec["jobManagerTask"]
        task = new_task(call.store, job, manager["id"], {n: v for n, v in manager.items() if n != "id"}, now)
        task.is_exclusive = manager["runExclusive"]
        call.store.add_task(job, task, first=True)
    return done(201, job, call.url(job))


def _refusal_of_formula(pool: Json) -> errors.ServiceError | None:
    try:
        if pool["enableAutoScale"]:
            check_formula(pool["autoScaleFormula"])
    except errors.ServiceError as refusal:
        return refusal
    return None


def _auto_pool(call: Call, auto: Json) -> Pool:
    spec = auto["pool"]
    targets = request_bodies.targets(spec, 0, 0)
    own = {name: value for name, value in spec.items() if not name.startswith("target")}
    pool_id = f"{auto.get('autoPoolIdPrefix') or ''}{str(uuid.uuid4()).upper()}"
    return new_pool(call.store, pool_id, own, targets, call.now)


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
    return _changed(call, job, request_bodies.job_replacement(call.json("job_change"), job))


def _changed(call: Call, job: Job, changes: Json) -> Response:
    job.spec = {name: value for name, value in (job.spec | changes).items() if value is not None}
    job.expires_at = wire.expiry(job.created_at, job.spec["constraints"]["maxWallClockTime"])
    if "poolId" in job.spec["poolInfo"]:
        job.auto_pool_id = None
    call.scheduler.agenda.touch(job, call.now)
    return done(200, job, call.url(job))


def disable_job(call: Call) -> Response:
    """POST /jobs/{job_id}/disable."""
    job, body = call.live_job(), call.json("disable_job")
    if "disableTasks" not in body:
        raise errors.missing_required_property(PropertyName="disableTasks")
    option = choice(body, "disableTasks", ("requeue", "terminate", "wait"), "requeue")
    call.scheduler.jobs.disable(job, option, call.now)
    return done(202, job, call.url(job, "/disable"))


def enable_job(call: Call) -> Response:
    """POST /jobs/{job_id}/enable."""
    job = call.live_job()
    call.scheduler.jobs.enable(job, call.now)
    return done(202, job, call.url(job, "/enable"))


def terminate_job(call: Call) -> Response:
    """POST /jobs/{job_id}/terminate."""
    job = call.live_job()
    job.is_forced = call.option("force")
    call.scheduler.jobs.terminate(job, call.json("terminate_job").get("terminateReason") or "UserTerminate", call.now)
    return done(202, job, call.url(job, "/terminate"))


def list_job_preparation_and_release_task_status(call: Call) -> Response:
    """GET /jobs/{job_id}/jobpreparationandreleasetaskstatus."""
    job = call.job()
    if "jobPreparationTask" not in job.spec:
        raise errors.job_preparation_task_not_specified()
    rows = {
        node.id: response_bodies.preparation_json(node, job, call.base)
        for node in job.prepared.values()
        if job.key in node.preparations
    }
    return listing(call, "jobpreparationandreleasetaskstatuslist", rows, odata.PREPARATIONS, lambda row: row)


def get_job_task_counts(call: Call) -> Response:
    """GET /jobs/{job_id}/taskcounts."""
    return json_answer(call, "taskcountsresult/@Element", response_bodies.counts_json(call.job()))
