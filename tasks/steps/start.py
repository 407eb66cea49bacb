"""Start a run: choose its name and its deadline, or adopt those of an earlier attempt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from prefect.runtime import flow_run

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.clock import service_time
from tasks.model.naming import CLEANUP_MARK, run_prefix
from tasks.model.run import Keep, Run
from tasks.progress import run_started
from tasks.steps.life import lock_run
from tasks.steps.step import step

# An earlier attempt that has less time than this before its deadline is not continued.
MIN_REMAINING_TIME = timedelta(minutes=1)


@step("start")
def start_run(timeout_minutes: float, keep: Keep) -> Run:
    """Return the run, which is named by its flow run and its start.

    A repeated flow run adopts the resources and the deadline of an earlier attempt if all of them can be used: its
    containers and its job exist, no cleanup has started, and the deadline is not near.
    """
    flow_run_id = str(flow_run.id)
    lock_run(flow_run_id)
    run_started(flow_run_id)
    batch, blobs = batch_account(), blob_account()
    # The answer has the time of the service, by which deadlines count.
    batch.list_jobs(run_prefix(flow_run_id))
    now = service_time()
    run = Run(
        flow_run_id=flow_run_id,
        generation=int(now.timestamp()),
        deadline_at=now + timedelta(minutes=timeout_minutes),
        keep=keep,
    )
    return adopt_or_skip(batch, blobs, run)


def adopt_or_skip(batch: BatchAccount, blobs: BlobAccount, run: Run) -> Run:
    """Adopt the newest complete resources of the flow run, or use a name that it has never used.

    Returns:
        The run with the generation and the deadline of the adopted resources, or with its own deadline.
    """
    containers = blobs.list_containers(run_prefix(run.flow_run_id))
    jobs = {job.job_id: job for job in batch.list_jobs(run_prefix(run.flow_run_id))}
    adopted: Run | None = None
    for job in jobs.values():
        generation = job.job_id.removeprefix(run_prefix(run.flow_run_id))
        if not (run.owns(job.metadata) and generation.isdecimal()):
            continue
        if job.state != "active" or CLEANUP_MARK in job.metadata:
            continue
        attempt = replace(
            run, generation=int(generation), deadline_at=datetime.fromisoformat(job.metadata["expires_at"])
        )
        found = [containers.get(name) for name in attempt.containers.names]
        is_complete = all(container is not None and run.owns(container.metadata) for container in found)
        has_time = attempt.deadline_at - service_time() > MIN_REMAINING_TIME
        if is_complete and has_time and (adopted is None or attempt.generation > adopted.generation):
            adopted = attempt
    if adopted is not None:
        return adopted
    while run.name in jobs or any(name in containers for name in run.containers.names):
        run = replace(run, generation=run.generation + 1)
    return run
