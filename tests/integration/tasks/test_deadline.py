"""A run that reaches its deadline reports it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests_support import wait_until

from tasks.azure.values import JobSpec
from tasks.model.run import BatchJob
from tasks.model.verdict import Category
from tasks.steps.collect import collect_chunk
from tasks.steps.provision import ensure_containers, ensure_pool
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import submit_chunk
from tasks.workload.results_store import FolderStore


@pytest.fixture
def azure_settings(azure_of_one_test, monkeypatch):
    azure = azure_of_one_test()
    for variable, value in azure.environment.items():
        monkeypatch.setenv(variable, value)
    return azure


def test_wall_clock_fails_batch_tasks_by_deadline(
    batch, blobs, run, workload, pool_options, chunk_factory, azure_settings, watch_chunk, tmp_path
):
    azure_settings.faults.add("endless_task", task="*")
    containers = ensure_containers(blobs, run, workload)
    pool_id = ensure_pool(batch, blobs, run, workload, containers, pool_options, 1)
    batch.create_job(
        JobSpec(job_id=run.name, pool_id=pool_id, wall_clock_seconds=600, metadata=run.metadata(kept=False))
    )
    job = BatchJob(job_id=run.name, pool_id=pool_id, files_variable="AZ_BATCH_NODE_SHARED_DIR")
    chunk = stage_chunk(blobs, chunk_factory(b"text"), workload, containers)
    try:
        submitted = submit_chunk(batch, blobs, run, chunk, job, workload, containers)
        wait_until(lambda: batch.task_counts(job.job_id).running, "the Batch task to run")
        azure_settings.batch.advance(timedelta(minutes=10))
        finished = watch_chunk(submitted, job, containers)
        [verdict] = collect_chunk(blobs, FolderStore(tmp_path / "store"), finished, job, workload, containers).values()
    finally:
        azure_settings.faults.clear()
        batch.delete_jobs_and_pools([job.job_id], [pool_id], 5)
        for name in (containers.application, containers.inputs, containers.outputs):
            blobs.delete_container(name)
    assert verdict.category is Category.WALL_CLOCK
    assert "deadline" in verdict.message
