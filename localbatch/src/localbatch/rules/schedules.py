"""The rules of job schedules: when they create jobs, and what ends them.

https://learn.microsoft.com/rest/api/batchservice/job-schedules, and a recording of the service:
https://github.com/Azure/azure-sdk-for-python, sdk/batch/azure-batch/tests/recordings, test_batch_job_schedules
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from localbatch import errors
from localbatch.account import states
from localbatch.account.records import Job, JobSchedule
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda
from localbatch.rules.creation import create_job
from localbatch.rules.jobs import LIMITED_STATES, JobRules
from localbatch.rules.pools import PoolRules
from localbatch.wire import INFINITE, expiry, read_duration, read_timestamp

# The wait after a job could not be created because of a quota.
QUOTA_RETRY = timedelta(minutes=1)


@dataclass(frozen=True)
class ScheduleRules:
    """Creates the jobs of job schedules, and disables, enables, terminates and deletes schedules."""

    store: Store
    agenda: Agenda
    jobs: JobRules
    pools: PoolRules

    def review(self, schedule: JobSchedule, now: datetime) -> None:
        """Create a job if one is due, and end transitional states."""
        if self.store.schedules.get(schedule.key) is not schedule:
            return
        if schedule.state == "active":
            self._review_active(schedule, now)
        elif schedule.state == "terminating":
            is_over = all(job.state == "completed" for job in self.store.jobs_of(schedule))
            if is_over and self.agenda.has_lasted(schedule, self.agenda.pace.job, now):
                self.agenda.move(schedule, states.SCHEDULE, "terminated", now)
                schedule.ended_at = now
                self._delete_auto_pool(schedule, now)
        elif schedule.state == "deleting":
            is_over = not self.store.jobs_of(schedule)
            if is_over and self.agenda.has_lasted(schedule, self.agenda.pace.job, now):
                del self.store.schedules[schedule.key]
                self._delete_auto_pool(schedule, now)

    def review_job(self, job: Job) -> None:
        """Review the schedule of a job that may have ended."""
        schedule = self.store.schedules.get(job.schedule_key)
        if schedule:
            self.store.mark(schedule)

    def _review_active(self, schedule: JobSchedule, now: datetime) -> None:
        job = self._recent_job(schedule)
        is_busy = job is not None and job.state != "completed"
        run_at = self.next_run_at(schedule)
        if run_at and self.agenda.is_due(schedule, run_at, now):
            # After a long pause, only the latest opportunity counts.
            opportunity = run_at + self._intervals(schedule, now - run_at)
            if self._is_spent(schedule, job, opportunity, now):
                schedule.last_run_at = opportunity
                # The next opportunity, or the end.
                self.store.mark(schedule)
        elif not run_at and not is_busy and self._is_over(schedule, now):
            self.terminate(schedule, now)

    def _is_spent(self, schedule: JobSchedule, job: Job | None, opportunity: datetime, now: datetime) -> bool:
        """Use an opportunity to create a job after `job`. Return False if it must be tried again later."""
        closes_at = self._closing_time(schedule, opportunity)
        if job and job.state != "completed":
            return closes_at is not None and self.agenda.is_due(schedule, closes_at, now)
        # The moved clock may pass a whole start window: what counts is that the schedule was ready during it.
        ready_at = max(schedule.state_at, job.ended_at) if job and job.ended_at else schedule.state_at
        is_missed = closes_at is not None and ready_at >= closes_at
        return is_missed or self._create_job(schedule, now)

    def next_run_at(self, schedule: JobSchedule) -> datetime | None:
        """Return when a job schedule may create its next job; None if it creates no more."""
        recurrence = schedule.spec["schedule"]
        start = schedule.created_at
        if schedule.last_run_at:
            if "recurrenceInterval" not in recurrence:
                return None
            after = expiry(schedule.last_run_at, recurrence["recurrenceInterval"])
            if not after:
                return None
            start = after
        if "doNotRunUntil" in recurrence:
            start = max(start, read_timestamp(recurrence["doNotRunUntil"]))
        deadline = recurrence.get("doNotRunAfter")
        return None if deadline and start > read_timestamp(deadline) else start

    def _is_over(self, schedule: JobSchedule, now: datetime) -> bool:
        """Whether a schedule that creates no more jobs completes. A recurring one waits for its deadline."""
        recurrence = schedule.spec["schedule"]
        if "recurrenceInterval" not in recurrence:
            return True
        deadline = recurrence.get("doNotRunAfter")
        return deadline is not None and self.agenda.is_due(schedule, read_timestamp(deadline), now)

    def _intervals(self, schedule: JobSchedule, passed: timedelta) -> timedelta:
        """Return the part of a time that is whole recurrence intervals."""
        text = schedule.spec["schedule"].get("recurrenceInterval")
        return passed - passed % read_duration(text) if text else timedelta()

    def _closing_time(self, schedule: JobSchedule, opportunity: datetime) -> datetime | None:
        """Return the end of the start window of an opportunity. Each recurrence replaces the opportunity before it."""
        recurrence = schedule.spec["schedule"]
        deadline = recurrence.get("doNotRunAfter")
        ends = [
            expiry(opportunity, recurrence.get("startWindow", INFINITE)),
            expiry(opportunity, recurrence.get("recurrenceInterval", INFINITE)),
            read_timestamp(deadline) if deadline else None,
        ]
        return min((end for end in ends if end), default=None)

    def _recent_job(self, schedule: JobSchedule) -> Job | None:
        return self.store.jobs.get(key_of(schedule.recent_job_id)) if schedule.recent_job_id else None

    def _create_job(self, schedule: JobSchedule, now: datetime) -> bool:
        """Create the next job, and return whether the quota allowed it."""
        spec = schedule.spec["jobSpecification"]
        auto = spec["poolInfo"].get("autoPoolSpecification")
        is_shared = auto is not None and auto["poolLifetimeOption"].lower() == "jobschedule"
        pool = self.store.pools.get(key_of(schedule.auto_pool_id)) if schedule.auto_pool_id else None
        shared = pool.id if is_shared and pool and pool.state == "active" else None
        job_id = f"{schedule.id}:job-{schedule.jobs_created + 1}"
        try:
            job = create_job(self.jobs, job_id, spec, now, shared_pool_id=shared)
        except errors.ServiceError:
            self.agenda.is_due(schedule, now + QUOTA_RETRY, now)
            return False
        schedule.jobs_created += 1
        if is_shared:
            schedule.auto_pool_id = job.auto_pool_id
        return True

    def _delete_auto_pool(self, schedule: JobSchedule, now: datetime) -> None:
        pool = self.store.pools.get(key_of(schedule.auto_pool_id)) if schedule.auto_pool_id else None
        auto = schedule.spec["jobSpecification"]["poolInfo"].get("autoPoolSpecification")
        if pool and pool.state == "active" and not (auto and auto["keepAlive"]):
            self.pools.delete(pool, now)

    # What clients request.

    def disable(self, schedule: JobSchedule, now: datetime) -> None:
        """Disable a job schedule. Its active job continues."""
        self._move(schedule, "disable", now)

    def enable(self, schedule: JobSchedule, now: datetime) -> None:
        """Enable a job schedule."""
        self._move(schedule, "enable", now)

    def terminate(self, schedule: JobSchedule, now: datetime, *, force: bool = False) -> None:
        """Start to terminate a job schedule and its active job."""
        self._move(schedule, "terminate", now)
        for job in self.store.jobs_of(schedule):
            if job.state in LIMITED_STATES:
                job.is_forced = force
                self.jobs.terminate(job, "TerminateJobSchedule", now)

    def delete(self, schedule: JobSchedule, now: datetime, *, force: bool = False) -> None:
        """Start to delete a job schedule and its jobs."""
        # The etag stays.
        self.agenda.move(schedule, states.SCHEDULE, "delete", now)
        for job in self.store.jobs_of(schedule):
            if job.state != "deleting":
                self.jobs.delete(job, now, force=force)

    def _move(self, schedule: JobSchedule, event: str, now: datetime) -> None:
        self.agenda.move(schedule, states.SCHEDULE, event, now)
        self.agenda.touch(schedule, now)
