"""Fixtures for a submitted file whose Batch task waits, and the notes that the run prints."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tasks.progress import listen
from tasks.steps.collect import collect_chunk
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import submit_chunk
from tasks.workload.results_store import FolderStore


@pytest.fixture
def run(run):
    """A run with a deadline in days, so that the deadline does not end the wait."""
    return replace(run, deadline_at=run.deadline_at + timedelta(hours=60))


@pytest.fixture
def notes():
    notes = []
    with listen(lambda progress: notes.append(progress.note) if progress.note else None):
        yield notes


@pytest.fixture
def submitted(batch, blobs, run, workload, pool_options, chunk_factory, azure_faults, local_azure):
    """Return a function that adds faults and submits one file, by default to the run's own pool."""

    def do(faults=(), pool_id=None):
        for fault in faults:
            azure_faults.add(**fault)
        containers = ensure_containers(blobs, run, workload)
        pool_id = pool_id or ensure_pool(batch, blobs, run, workload, containers, pool_options, 1)
        job = ensure_job(batch, blobs, run, workload, containers, pool_id)
        chunk = stage_chunk(blobs, chunk_factory(b"one two two"), workload, containers)
        return submit_chunk(batch, blobs, run, chunk, job, workload, containers), job, containers

    yield do
    azure_faults.clear()
    batch.delete_jobs_and_pools([run.name], [run.name], 5)
    for name in blobs.list_containers(run.name):
        blobs.delete_container(name)


@pytest.fixture
def counted(blobs, workload, tmp_path):
    """Return a function that returns the only verdict of a finished chunk."""

    def do(finished, job, containers):
        [verdict] = collect_chunk(blobs, FolderStore(tmp_path / "store"), finished, job, workload, containers).values()
        return verdict

    return do
