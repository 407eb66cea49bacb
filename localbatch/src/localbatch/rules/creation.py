"""New pools, jobs and Batch tasks: their records, and what creating a job means for its pool and its job manager task."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import cast

from localbatch import wire
from localbatch.account.records import Job, Pool, Stated, Task
from localbatch.account.specs import AutoPoolSpec, JobSpec, PoolSpec, TaskSpec, merge
from localbatch.account.store import Store, key_of
from localbatch.rules import autoscale
from localbatch.rules.jobs import JobRules


def new_pool(store: Store, pool_id: str, spec: PoolSpec, targets: tuple[int, int], now: datetime) -> Pool:
    """Return the record of a new pool, whose first resize has started."""
    return Pool(
        id=pool_id,
        spec=merge(spec, {}),
        etag=store.new_etag(),
        created_at=now,
        modified_at=now,
        state="active",
        state_at=now,
        # A new pool is being resized to its targets.
        allocation=Stated(state="resizing", state_at=now),
        target_dedicated=targets[0],
        target_low_priority=targets[1],
    )


def new_task(store: Store, job: Job, task_id: str, spec: TaskSpec, now: datetime) -> Task:
    """Return the record of a new Batch task, which is active."""
    return Task(
        id=task_id,
        key=(job.key, key_of(task_id)),
        job_id=job.id,
        spec=spec,
        etag=store.new_etag(),
        created_at=now,
        state="active",
        state_at=now,
        slots=spec["requiredSlots"],
        max_retries=spec["constraints"]["maxTaskRetryCount"],
    )


def create_job(rules: JobRules, job_id: str, spec: JobSpec, now: datetime, *, shared_pool_id: str | None = None) -> Job:
    """Add a job with its automatic pool and its job manager task.

    Args:
        rules: The rules of jobs.
        job_id: The id of the job.
        spec: Its properties.
        now: The current time.
        shared_pool_id: An automatic pool that exists already; None to create one if the job has one.

    Raises:
        ServiceError: As Store.add_job.
    """
    store = rules.store
    job = Job(
        id=job_id,
        key=key_of(job_id),
        spec=spec,
        etag=store.new_etag(),
        created_at=now,
        modified_at=now,
        state="active",
        state_at=now,
        # maxWallClockTime counts from the creation of the job, not from its first task.
        expires_at=wire.expiry(now, spec["constraints"]["maxWallClockTime"]),
        auto_pool_id=shared_pool_id,
    )
    auto = spec["poolInfo"].get("autoPoolSpecification")
    pool = refusal = None
    if auto and not shared_pool_id:
        try:
            pool = _auto_pool(store, auto, now)
        except autoscale.FormulaError as error:
            # The request succeeds, and the job completes at once.
            refusal = error
    rules.create(job, pool, now)
    if refusal:
        rules.fail(job, "InvalidAutoScaleFormulaInAutoPool", refusal.message, now)
    elif "jobManagerTask" in spec:
        manager = spec["jobManagerTask"]
        task_spec = {name: value for name, value in manager.items() if name != "id"}
        task = new_task(store, job, manager["id"], cast("TaskSpec", task_spec), now)
        # The job manager task goes to the front of the queue, ahead of the tasks that it adds.
        task.is_exclusive = manager["runExclusive"]
        store.add_task(job, task, first=True)
    return job


def _auto_pool(store: Store, auto: AutoPoolSpec, now: datetime) -> Pool:
    """Return the record of the automatic pool of a job; its id begins with the prefix that the client chose."""
    properties = auto["pool"]
    if properties["enableAutoScale"]:
        autoscale.check(properties["autoScaleFormula"])
    targets = (properties.get("targetDedicatedNodes", 0), properties.get("targetLowPriorityNodes", 0))
    spec = {
        name: value
        for name, value in properties.items()
        if name not in {"targetDedicatedNodes", "targetLowPriorityNodes"}
    }
    # Recorded from the service: Prefix_132B2A40-5F19-4C31-948F-49F7F4C46F87.
    prefix, guid = auto.get("autoPoolIdPrefix"), str(uuid.uuid4()).upper()
    pool_id = f"{prefix}_{guid}" if prefix else guid
    return new_pool(store, pool_id, cast("PoolSpec", spec), targets, now)
