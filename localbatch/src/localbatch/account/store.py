"""The store: the records of an account, and the lock that guards them."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TypeVar

from localbatch import errors
from localbatch.account.queues import SortedRecords
from localbatch.account.records import Action, Job, JobSchedule, Node, Pool, Report, Run, Stated, Task

_T = TypeVar("_T", Pool, Job, JobSchedule, Node, Task)


def key_of(resource_id: str) -> str:
    """Return the key of an id. The service preserves the case of ids, and ignores it in comparisons."""
    return resource_id.lower()


class Store:
    """All records of an account. Hold `lock` to read or change them; only appending to `reports` needs no lock."""

    def __init__(
        self,
        *,
        pool_quota: int = 100,
        job_quota: int = 300,
        core_quota: int | None = None,
        low_priority_core_quota: int | None = None,
        family_core_quotas: Mapping[str, int] | None = None,
    ) -> None:
        """Create an empty store.

        Args:
            pool_quota: Maximum number of pools.
            job_quota: Maximum number of jobs and job schedules that are not completed.
            core_quota: Maximum number of cores of the dedicated nodes of all pools; None for no limit.
            low_priority_core_quota: The same for spot nodes.
            family_core_quotas: Maximum numbers of cores of dedicated nodes, by VM family such as `standardDSv3Family`.
        """
        self.lock = threading.RLock()
        self.pools: SortedRecords[Pool] = SortedRecords()
        # Keys are lower-case ids: see key_of.
        self.jobs: SortedRecords[Job] = SortedRecords()
        self.schedules: SortedRecords[JobSchedule] = SortedRecords()
        self.runs: dict[int, Run] = {}
        self.reports: deque[Report] = deque()
        self.outbox: list[Action] = []
        """Actions decided since the last tick."""
        self.changed: dict[int, Stated] = {}
        """Records that the next tick reviews, by `id()`."""
        self.unassigned: set[str] = set()
        """Keys of pools where a Batch task may be able to start."""
        self.pool_quota = pool_quota
        self.job_quota = job_quota
        self.core_quotas = {True: core_quota, False: low_priority_core_quota}
        """By whether nodes are dedicated."""
        self.family_core_quotas = family_core_quotas or {}
        self._run_ids = itertools.count(1)
        self._etag = 0

    def mark(self, record: Stated) -> None:
        """Review a record in the next tick."""
        self.changed[id(record)] = record

    def new_etag(self) -> str:
        """Return a new etag. Like the etags of the service, it encodes the time."""
        # Strictly increasing, even if the clock goes back.
        self._etag = max(self._etag + 1, time.time_ns() // 100)
        return f"0x8D{self._etag & 0xFFFFFFFFFFFFF:013X}"

    def new_run_id(self) -> int:
        """Return the id of a new run."""
        return next(self._run_ids)

    def pool(self, pool_id: str) -> Pool:
        """Return a pool, or raise PoolNotFound."""
        return _found(self.pools.get(key_of(pool_id)), errors.pool_not_found())

    def node(self, pool_id: str, node_id: str) -> Node:
        """Return a node of a pool, or raise PoolNotFound or NodeNotFound."""
        return _found(self.pool(pool_id).nodes.get(key_of(node_id)), errors.node_not_found())

    def job(self, job_id: str) -> Job:
        """Return a job, or raise JobNotFound."""
        return _found(self.jobs.get(key_of(job_id)), errors.job_not_found())

    def schedule(self, schedule_id: str) -> JobSchedule:
        """Return a job schedule, or raise JobScheduleNotFound."""
        return _found(self.schedules.get(key_of(schedule_id)), errors.job_schedule_not_found())

    def jobs_of(self, schedule: JobSchedule) -> list[Job]:
        """Return the jobs that a job schedule created."""
        prefix = f"{schedule.key}:"
        return [job for _, job in itertools.takewhile(lambda each: each[0].startswith(prefix), self.jobs.after(prefix))]

    def task(self, job_id: str, task_id: str) -> Task:
        """Return a Batch task of a job, or raise JobNotFound or TaskNotFound."""
        return _found(self.job(job_id).tasks.get(key_of(task_id)), errors.task_not_found())

    def add_pool(self, pool: Pool) -> None:
        """Add a pool, or raise PoolExists or PoolQuotaReached."""
        existing = self.pools.get(key_of(pool.id))
        if existing:
            # An id is free only when the deletion has finished.
            raise errors.pool_being_deleted() if existing.state == "deleting" else errors.pool_exists()
        if len(self.pools) >= self.pool_quota:
            raise errors.pool_quota_reached()
        self.pools[key_of(pool.id)] = pool
        self.mark(pool)

    def check_job_id(self, key: str) -> None:
        """Raise an error if the job cannot be added.

        Raises:
            ServiceError: JobExists, JobBeingDeleted, JobScheduleWithSameIdExists or ActiveJobAndScheduleQuotaReached.
        """
        existing = self.jobs.get(key)
        if existing:
            raise errors.job_being_deleted() if existing.state == "deleting" else errors.job_exists()
        if key in self.schedules:
            raise errors.job_schedule_with_same_id_exists()
        self._check_job_quota()

    def _check_job_quota(self) -> None:
        # Completed jobs and job schedules do not count.
        active = sum(job.state != "completed" for job in self.jobs.values())
        active += sum(schedule.state != "completed" for schedule in self.schedules.values())
        if active >= self.job_quota:
            raise errors.job_quota_reached()

    def add_schedule(self, schedule: JobSchedule) -> None:
        """Add a job schedule.

        Raises:
            ServiceError: JobScheduleExists, JobScheduleBeingDeleted, JobWithSameIdExists or
                ActiveJobAndScheduleQuotaReached.
        """
        existing = self.schedules.get(schedule.key)
        if existing:
            is_leaving = existing.state == "deleting"
            raise errors.job_schedule_being_deleted() if is_leaving else errors.job_schedule_exists()
        if schedule.key in self.jobs:
            raise errors.job_with_same_id_exists()
        self._check_job_quota()
        self.schedules[schedule.key] = schedule
        self.mark(schedule)

    def add_job(self, job: Job) -> None:
        """Add a job, or raise as `check_job_id`."""
        self.check_job_id(job.key)
        self.jobs[job.key] = job
        self.mark(job)

    def add_task(self, job: Job, task: Task, *, first: bool = False) -> None:
        """Add an active Batch task to the queue of its job, or raise TaskExists."""
        key = key_of(task.id)
        if key in job.tasks:
            raise errors.task_exists()
        job.tasks[key] = task
        job.count(task, 1)
        job.dependencies.add(task, task.spec.get("dependsOn") or {})
        # A Batch task with dependencies is queued when the last is satisfied.
        if not task.unmet:
            self.enqueue(job, task, first=first)

    def enqueue(self, job: Job, task: Task, *, first: bool = False) -> None:
        """Queue an active Batch task for the next free slot."""
        job.waiting.push(task, first=first)
        self.unassigned.add(key_of(job.pool_id))

    def remove_task(self, job: Job, task: Task) -> None:
        """Remove a Batch task."""
        del job.tasks[key_of(task.id)]
        job.waiting.discard(task)
        job.count(task, -1)
        self.mark(job)


def _found(record: _T | None, error: errors.ServiceError) -> _T:
    if record is None:
        raise error
    return record
