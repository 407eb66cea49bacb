"""The monitor reads each completed Batch task only a few times, and misses none."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests_support import MovableClock, Submitted, wait_until

from localbatch import LocalBatch
from tasks.azure.batch import BatchAccount
from tasks.azure.settings import AzureSettings
from tasks.steps.doctor import Doctor
from tasks.steps.monitor import watch
from tasks.steps.provision import ensure_job, ensure_pool
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import Renewal, submit_chunk

BATCH_TASKS = 60


@pytest.fixture
def server(tmp_path):
    with LocalBatch(state_dir=tmp_path / "batch", pace="instant", runner="simulated", task_seconds=1) as server:
        yield server


def listed_bytes(server):
    return sum(record.bytes for record in list(server.requests) if record.operation == "list_tasks")


def test_completed_batch_tasks_are_not_reread(server, blobs, run, workload, parts, pool_options, chunk_factory):
    settings = AzureSettings(batch_endpoint=server.endpoint, batch_account=server.account, batch_key=server.key)
    account = BatchAccount(settings)
    containers, _ = parts
    ensure_pool(account, blobs, run, workload, containers, pool_options, BATCH_TASKS)
    job = ensure_job(account, blobs, run, workload, containers, run.name)
    chunk = stage_chunk(blobs, chunk_factory(*(str(n).encode() for n in range(BATCH_TASKS))), workload, containers)
    submitted = submit_chunk(account, blobs, run, chunk, job, workload, containers)
    seen = 0

    def complete_next_tasks():
        nonlocal seen
        wait_until(lambda: account.get_task_counts(job.job_id).running, "Batch tasks to run")
        server.advance(timedelta(seconds=1))
        wait_until(lambda: account.get_task_counts(job.job_id).completed > seen, "Batch tasks to complete")
        seen = account.get_task_counts(job.job_id).completed

    clock = MovableClock(complete_next_tasks)
    renewal = Renewal(account=account, blobs=blobs, run=run, job=job, workload=workload, containers=containers)
    deadline_at = run.deadline_at + timedelta(hours=1)
    [finished] = watch(
        account, job, Submitted(submitted), deadline_at, renewal, Doctor(account, job, own_pool=True), clock
    )

    assert len(finished.outcomes) == BATCH_TASKS
    read_bytes = listed_bytes(server)
    list(account.list_completed_tasks(job.job_id, None))
    assert read_bytes < 3.5 * (listed_bytes(server) - read_bytes)
