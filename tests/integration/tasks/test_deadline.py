"""Runs that reach their deadline, and Batch tasks that reach their time limit."""

from __future__ import annotations

from dataclasses import replace
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


@pytest.fixture
def judged(batch, blobs, run, workload, pool_options, chunk_factory, azure_settings, watch_chunk, tmp_path):
    """Return a function that lets Batch tasks run without end, and returns the verdicts after some minutes."""

    def do(*, after_minutes, task_minutes=None, packed=False):
        # A program that really runs: otherwise, a pack could have stored its results before it is ended.
        hanging = replace(workload, command="exec sleep 300", pack_command="")
        containers = ensure_containers(blobs, run, hanging)
        pool_id = ensure_pool(batch, blobs, run, hanging, containers, pool_options, 1)
        batch.create_job(
            JobSpec(job_id=run.name, pool_id=pool_id, wall_clock_seconds=600, metadata=run.metadata(kept=False))
        )
        job = BatchJob(
            job_id=run.name, pool_id=pool_id, files_variable="AZ_BATCH_NODE_SHARED_DIR", task_minutes=task_minutes
        )
        chunk = stage_chunk(blobs, chunk_factory(b"text", b"another text", packed=packed), hanging, containers)
        submitted = submit_chunk(batch, blobs, run, chunk, job, hanging, containers)
        wait_until(lambda: batch.get_task_counts(job.job_id).running, "a Batch task to run")
        azure_settings.batch.advance(timedelta(minutes=after_minutes))
        finished = watch_chunk(submitted, job, containers)
        store = FolderStore(tmp_path / "store")
        return list(collect_chunk(blobs, store, finished, job, hanging, containers).values())

    yield do
    batch.delete_jobs_and_pools([run.name], [run.name], 5)
    for name in run.containers.names:
        blobs.delete_container(name)


def test_wall_clock_fails_batch_tasks_by_deadline(judged):
    for verdict in judged(after_minutes=10):
        assert verdict.category is Category.WALL_CLOCK
        assert "deadline" in verdict.message


@pytest.mark.parametrize("packed", [False, True])
def test_batch_task_ends_at_its_time_limit(judged, batch, run, packed):
    """A hanging program does not hold its slot until the deadline of the run."""
    for verdict in judged(after_minutes=3, task_minutes=2.5, packed=packed):
        assert verdict.category is Category.WALL_CLOCK
        assert "longer than 2.5 minutes, its limit `task_minutes` [" in verdict.message
    assert batch.get_job(run.name).state == "active"
