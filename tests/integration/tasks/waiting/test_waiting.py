"""While Batch tasks wait, the user sees the reason, and a hopeless wait ends."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from tests_support import MAX_IDLE_POLLS, POLL_SECONDS, MovableClock, polling_clock, pool_has, wait_until

from tasks.model.verdict import Category, StoredResult
from tasks.steps.provision import ensure_containers, ensure_pool


@pytest.mark.parametrize("code", ["AccountCoreQuotaReached", "PoolQuotaReached", "ImageNotFound"])
def test_permanent_allocation_failure_ends_wait_within_two_polls(batch, run, submitted, watch_chunk, code):
    """Field reports 11 and 32: a missing quota or a retired image."""
    chunk, job, containers = submitted([{"fault": "allocation_fails", "code": code, "message": f"No: {code}."}])
    wait_until(lambda: batch.get_pool(run.name).resize_problems, "the resize to fail")
    clock = MovableClock()

    finished = watch_chunk(chunk, job, containers, clock)

    assert finished.reason.category is Category.NODE
    assert f"No: {code} [{code}]" in finished.reason.message
    assert clock.sleeps <= MAX_IDLE_POLLS


def test_failed_start_task_is_retried_once(batch, run, submitted, watch_chunk, notes):
    """Field reports 8 and 9: a second failure ends the wait with the exit code."""
    chunk, job, containers = submitted([{"fault": "start_task_fails", "exit_code": 9}])
    wait_until(pool_has(batch, run, "starttaskfailed"), "the start task to fail")
    clock = polling_clock()

    finished = watch_chunk(chunk, job, containers, clock)

    assert finished.reason.category is Category.NODE
    assert "exit code 9 [StartTaskFailed]" in finished.reason.message
    restarts = [note for note in notes if "rebooted tvm" in note]
    assert len(restarts) == 1


def test_restarted_node_counts_file(batch, run, submitted, watch_chunk, counted, azure_faults, notes):
    chunk, job, containers = submitted([{"fault": "start_task_fails", "exit_code": 9}])
    wait_until(pool_has(batch, run, "starttaskfailed"), "the start task to fail")
    azure_faults.clear()

    finished = watch_chunk(chunk, job, containers, polling_clock())

    assert isinstance(counted(finished, job, containers), StoredResult)
    assert any("rebooted tvm" in note for note in notes)


def test_nodes_of_existing_pool_are_not_restarted(
    batch, blobs, run, workload, submitted, watch_chunk, pool_options, azure_faults, notes
):
    azure_faults.add("start_task_fails", exit_code=9)
    other = replace(run, flow_run_id=str(uuid.uuid4()))
    containers = ensure_containers(blobs, run, workload)
    ensure_pool(batch, blobs, other, workload, containers, pool_options, 1)
    wait_until(pool_has(batch, other, "starttaskfailed"), "the start task to fail")
    chunk, job, containers = submitted(pool_id=other.name)

    finished = watch_chunk(chunk, job, containers, polling_clock())

    assert "[StartTaskFailed]" in finished.reason.message
    assert pool_has(batch, other, "starttaskfailed")()
    assert not any("rebooted" in note for note in notes)
    batch.delete_jobs_and_pools([], [other.name], 5)


def test_unusable_nodes_end_wait_within_two_polls(batch, run, submitted, watch_chunk, azure_faults):
    """Field report 9: Batch tasks do not stay active silently."""
    chunk, job, containers = submitted(
        [
            {"fault": "endless_task", "task": "*"},
            {"fault": "make_node_unusable", "when": "task_running", "code": "DiskFull", "message": "No space left."},
        ]
    )
    wait_until(pool_has(batch, run, "unusable"), "the node to become unusable")
    clock = MovableClock()

    finished = watch_chunk(chunk, job, containers, clock)

    assert finished.reason.category is Category.NODE
    assert "No space left [DiskFull]" in finished.reason.message
    assert clock.sleeps <= MAX_IDLE_POLLS


def test_preempted_batch_task_is_requeued_and_counted(batch, run, submitted, watch_chunk, counted, azure_faults):
    chunk, job, containers = submitted(
        [{"fault": "endless_task", "task": "*"}, {"fault": "preempt_node", "when": "task_running"}]
    )
    wait_until(pool_has(batch, run, "preempted"), "the node to be preempted")
    azure_faults.clear()

    finished = watch_chunk(chunk, job, containers, polling_clock())

    assert isinstance(counted(finished, job, containers), StoredResult)
    [outcome] = finished.outcomes.values()
    assert (outcome.requeue_count, outcome.retry_count) == (1, 0)


def test_pool_without_working_node_is_reported(batch, run, submitted, watch_chunk, counted, notes, azure_faults):
    chunk, job, containers = submitted(
        [{"fault": "endless_task", "task": "*"}, {"fault": "lose_node", "when": "task_running"}]
    )
    wait_until(pool_has(batch, run, "unknown"), "the node to be lost")
    reported_after = []

    def recover_after_note():
        time.sleep(POLL_SECONDS)
        if notes and not reported_after:
            reported_after.append(clock.sleeps)
            azure_faults.clear()
            azure_faults.add("recover_node")

    clock = MovableClock(recover_after_note)
    finished = watch_chunk(chunk, job, containers, clock)

    assert isinstance(counted(finished, job, containers), StoredResult)
    assert "no working nodes (1 unknown)" in notes[0]
    assert reported_after[0] <= MAX_IDLE_POLLS


def test_disabled_job_is_reported_and_resumes(submitted, watch_chunk, counted, notes, batch, azure_faults):
    chunk, job, containers = submitted([{"fault": "endless_task", "task": "*"}])
    batch._client.begin_disable_job(job.job_id, {"disableTasks": "requeue"}, polling_interval=0.1).wait(10)

    def enable():
        time.sleep(POLL_SECONDS)
        azure_faults.clear()
        if notes and batch.get_job(job.job_id).state == "disabled":
            batch._client.begin_enable_job(job.job_id)

    finished = watch_chunk(chunk, job, containers, MovableClock(enable))

    assert isinstance(counted(finished, job, containers), StoredResult)
    assert "is disabled. Enable it to continue the run" in notes[0]


@pytest.mark.parametrize(("what", "category"), [("job", Category.CANCELLED), ("pool", Category.NODE)])
def test_deleted_job_or_pool_ends_wait(batch, submitted, watch_chunk, what, category):
    chunk, job, containers = submitted([{"fault": "endless_task", "task": "*"}])
    batch.delete_jobs_and_pools(
        [job.job_id] if what == "job" else [], [job.pool_id] if what == "pool" else [], wait_seconds=10
    )
    finished = watch_chunk(chunk, job, containers, polling_clock())
    assert finished.reason.category is category
    assert "was deleted by someone else" in finished.reason.message


def test_deleted_batch_task_is_added_again(submitted, watch_chunk, counted, batch, azure_faults):
    chunk, job, containers = submitted([{"fault": "endless_task", "task": "*"}])
    batch._client.delete_task(job.job_id, chunk.staged[0].task_id)
    azure_faults.clear()

    finished = watch_chunk(chunk, job, containers, polling_clock())

    assert isinstance(counted(finished, job, containers), StoredResult)


def test_old_resize_error_of_existing_pool_is_ignored(
    batch, blobs, run, workload, submitted, watch_chunk, counted, pool_options, azure_faults
):
    """Field report 10: an old error must not block new runs."""
    other = replace(run, flow_run_id=str(uuid.uuid4()))
    azure_faults.add("allocation_fails", code="AccountCoreQuotaReached")
    ensure_pool(batch, blobs, other, workload, ensure_containers(blobs, run, workload), pool_options, 1)
    wait_until(lambda: batch.get_pool(other.name).resize_problems, "the resize to fail")
    azure_faults.clear()
    chunk, job, containers = submitted(pool_id=other.name)
    polls = []

    def resize_at_last():
        time.sleep(POLL_SECONDS)
        polls.append(batch.get_pool(other.name).allocation_state)
        if len(polls) == 2 * MAX_IDLE_POLLS:
            batch._client.disable_pool_auto_scale(other.name)
            batch._client.begin_resize_pool(other.name, {"targetDedicatedNodes": 1})

    finished = watch_chunk(chunk, job, containers, MovableClock(resize_at_last))

    assert isinstance(counted(finished, job, containers), StoredResult)
    batch.delete_jobs_and_pools([], [other.name], 5)


def test_transient_renewal_failure_loses_no_file(submitted, watch_chunk, counted, azure_faults, run, notes):
    chunk, job, containers = submitted()
    expiring_soon = replace(chunk, signed_until_at=run.deadline_at - timedelta(hours=59, minutes=50))
    azure_faults.add("answer", operation="list_tasks", status=409, code="JobBeingDeleted", times=1)

    finished = watch_chunk(expiring_soon, job, containers, polling_clock())

    assert isinstance(counted(finished, job, containers), StoredResult)
    assert "Retrying." in notes[0]


def test_terminated_batch_task_does_not_list_nodes(batch, run, submitted, watch_chunk, local_azure):
    chunk, job, containers = submitted([{"fault": "endless_task", "task": "*"}])
    wait_until(lambda: batch.get_task_counts(job.job_id).running == 1, "the Batch task to run")
    batch._client.terminate_task(job.job_id, chunk.staged[0].task_id)

    finished = watch_chunk(chunk, job, containers, polling_clock())

    assert finished.reason is None
    read_paths = [record.path for record in list(local_azure.batch.requests) if record.method == "GET"]
    assert f"/pools/{run.name}/nodes" not in read_paths
