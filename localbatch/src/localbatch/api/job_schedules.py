"""The handlers of the operations on job schedules.

https://learn.microsoft.com/rest/api/batchservice/job-schedules. Status, headers and bodies were recorded:
https://github.com/Azure/azure-sdk-for-python, sdk/batch/azure-batch/tests/recordings, test_batch_job_schedules
"""

from __future__ import annotations

from datetime import timezone
from typing import cast

from starlette.responses import Response

from localbatch import errors, wire
from localbatch.account.records import JobSchedule
from localbatch.account.specs import Json, ScheduleSpec, merge
from localbatch.account.store import key_of
from localbatch.api import odata, request_bodies, response_bodies
from localbatch.api.paging import listing
from localbatch.api.properties import check_duration, invalid
from localbatch.api.requests import Call
from localbatch.api.responses import done, one


def create_job_schedule(call: Call) -> Response:
    """POST /jobschedules."""
    body, now = call.json("job_schedule"), call.now
    schedule_id = body["id"]
    spec = {name: value for name, value in body.items() if name != "id"} | _replacement(body)
    schedule = JobSchedule(
        id=schedule_id,
        key=key_of(schedule_id),
        spec=merge(cast("ScheduleSpec", spec), {}),
        etag=call.store.new_etag(),
        created_at=now,
        modified_at=now,
        state="active",
        state_at=now,
    )
    call.store.add_schedule(schedule)
    # The service shows the first job at once.
    call.scheduler.schedules.review(schedule, now)
    return done(201, schedule, call.url(schedule))


def _replacement(body: Json) -> Json:
    """Read the properties of a PUT. Without a schedule, one job is created as soon as possible."""
    if "jobSpecification" not in body:
        raise errors.missing_required_property(PropertyName="jobSpecification")
    return {
        "schedule": _recurrence(body.get("schedule", {})),
        "jobSpecification": request_bodies.job_spec(body["jobSpecification"], scheduled=True),
        "metadata": body.get("metadata"),
    }


def _recurrence(given: Json) -> Json:
    for name in ("startWindow", "recurrenceInterval"):
        check_duration(given, name, low="PT1M")
    instants = {name: _instant(name, given[name]) for name in ("doNotRunUntil", "doNotRunAfter") if name in given}
    if "doNotRunAfter" in instants and instants["doNotRunAfter"] < instants.get("doNotRunUntil", ""):
        raise invalid("doNotRunAfter", instants["doNotRunAfter"], "The value must not be before doNotRunUntil")
    return given | instants


def _instant(name: str, text: str) -> str:
    try:
        return wire.timestamp(odata.read_instant(text).astimezone(timezone.utc))
    except (ValueError, TypeError, OverflowError):
        raise invalid(name, text, "The value must be a date with a time") from None


def list_job_schedules(call: Call) -> Response:
    """GET /jobschedules."""
    return listing(
        call, "jobschedules", call.store.schedules, odata.JOB_SCHEDULES, lambda schedule: _json(call, schedule)
    )


def _json(call: Call, schedule: JobSchedule) -> Json:
    # Disabled schedules still show when they would create a job.
    is_live = schedule.state in {"active", "disabled"}
    next_run_at = call.scheduler.schedules.next_run_at(schedule) if is_live else None
    return response_bodies.job_schedule_json(schedule, next_run_at, call.base)


def get_job_schedule(call: Call) -> Response:
    """GET /jobschedules/{job_schedule_id}."""
    schedule = call.schedule()
    return one(call, "jobschedules", _json(call, schedule), schedule)


def job_schedule_exists(call: Call) -> Response:
    """HEAD /jobschedules/{job_schedule_id}."""
    return done(200, call.schedule())


def update_job_schedule(call: Call) -> Response:
    """PATCH /jobschedules/{job_schedule_id}. Objects are replaced as a whole."""
    schedule, given = _live_schedule(call), call.json("job_schedule_change")
    # The checks of a replacement need a job specification.
    everything = _replacement({"jobSpecification": schedule.spec["jobSpecification"]} | given)
    return _changed(call, schedule, {name: value for name, value in everything.items() if name in given})


def replace_job_schedule(call: Call) -> Response:
    """PUT /jobschedules/{job_schedule_id}."""
    schedule = _live_schedule(call)
    return _changed(call, schedule, _replacement(call.json("job_schedule_replacement")))


def _changed(call: Call, schedule: JobSchedule, changes: Json) -> Response:
    # Jobs that exist keep the specification with which they were created.
    schedule.spec = merge(schedule.spec, changes)
    call.scheduler.agenda.touch(schedule, call.now)
    return done(200, schedule, call.url(schedule))


def disable_job_schedule(call: Call) -> Response:
    """POST /jobschedules/{job_schedule_id}/disable."""
    schedule = _live_schedule(call)
    if schedule.state == "disabled":
        raise errors.job_schedule_disabled()
    call.scheduler.schedules.disable(schedule, call.now)
    return done(204, schedule, call.url(schedule, "/disable"))


def enable_job_schedule(call: Call) -> Response:
    """POST /jobschedules/{job_schedule_id}/enable."""
    schedule = _live_schedule(call)
    call.scheduler.schedules.enable(schedule, call.now)
    return done(204, schedule, call.url(schedule, "/enable"))


def terminate_job_schedule(call: Call) -> Response:
    """POST /jobschedules/{job_schedule_id}/terminate."""
    schedule = _live_schedule(call)
    call.scheduler.schedules.terminate(schedule, call.now, force=call.option("force"))
    return done(202, schedule, call.url(schedule, "/terminate"))


def delete_job_schedule(call: Call) -> Response:
    """DELETE /jobschedules/{job_schedule_id}."""
    schedule = call.schedule()
    if schedule.state == "deleting":
        raise errors.job_schedule_being_deleted()
    call.scheduler.schedules.delete(schedule, call.now, force=call.option("force"))
    return done(202)


def list_jobs_from_schedule(call: Call) -> Response:
    """GET /jobschedules/{job_schedule_id}/jobs."""
    schedule = call.store.schedule(call.parameters["job_schedule_id"])
    jobs = {job.key: job for job in call.store.jobs_of(schedule)}
    return listing(call, "jobs", jobs, odata.JOBS, lambda job: response_bodies.job_json(job, call.base))


def _live_schedule(call: Call) -> JobSchedule:
    """Return the job schedule in the path for a change, or raise an error if it can no longer be changed."""
    schedule = call.schedule()
    refusals = {
        "completed": errors.job_schedule_completed,
        "terminating": errors.job_schedule_being_terminated,
        "deleting": errors.job_schedule_being_deleted,
    }
    if schedule.state in refusals:
        refuse = refusals[schedule.state]
        raise refuse()
    return schedule
