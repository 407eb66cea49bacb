"""Creating, adopting and deleting the resources of a run, without nodes."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from tests_support import leftovers_of

from tasks.azure.values import Container, JobSpec
from tasks.errors import ConfigurationError, ForeignResourceError
from tasks.model.run import Keep
from tasks.model.verdict import Category
from tasks.steps.cleanup import delete
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool, get_existing_pool
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import submit_chunk


@pytest.fixture
def batch(batch_without_nodes):
    return batch_without_nodes


def test_second_provisioning_adopts_existing_resources(batch, blobs, run, workload, pool_options, parts):
    containers, job = parts
    assert ensure_containers(blobs, run, workload) == containers
    assert ensure_pool(batch, blobs, run, workload, containers, pool_options, 1) == run.name
    assert ensure_job(batch, blobs, run, workload, containers, run.name) == job


def test_foreign_resources_are_never_adopted(batch, blobs, run, workload, pool_options, parts):
    mine = replace(run, flow_run_id=str(uuid.uuid4()))
    foreign_metadata = {"owner": "topn", "flow_run_id": "another"}
    blobs.create_container(f"{mine.name}-app", foreign_metadata)
    batch.create_job(JobSpec(job_id=mine.name, pool_id=run.name, wall_clock_seconds=60, metadata=foreign_metadata))
    with pytest.raises(ForeignResourceError, match=r"Container `topn-.*` does not belong to this run"):
        ensure_containers(blobs, mine, workload)
    with pytest.raises(ForeignResourceError, match=r"Job `topn-.*` does not belong to this run"):
        ensure_job(batch, blobs, mine, workload, parts[0], run.name)

    assert leftovers_of(batch, blobs, mine.flow_run_id).names == ()

    batch.delete_jobs_and_pools([mine.name], [], 5)
    blobs.delete_container(f"{mine.name}-app")


def test_cleanup_deletes_all_generations_and_is_idempotent(batch, blobs, run, workload, pool_options):
    later = replace(run, generation=1)
    for generation in (run, later):
        containers = ensure_containers(blobs, generation, workload)
        ensure_pool(batch, blobs, generation, workload, containers, pool_options, 1)
        ensure_job(batch, blobs, generation, workload, containers, generation.name)
    flow_run_id = run.flow_run_id
    leftovers = leftovers_of(batch, blobs, flow_run_id)
    assert len(leftovers.names) == 10

    assert delete(batch, blobs, leftovers) == {}
    assert delete(batch, blobs, leftovers) == {}

    assert leftovers_of(batch, blobs, flow_run_id).names == ()


def test_cleanup_keeps_requested_resources(batch, blobs, run, parts):
    flow_run_id = run.flow_run_id
    assert leftovers_of(batch, blobs, flow_run_id, Keep(containers=True, pool=True)).names == (f"job {run.name}",)
    assert len(leftovers_of(batch, blobs, flow_run_id, Keep(job=True)).names) == 4


def test_cleanup_reports_failures_and_continues(batch, blobs, run, parts):
    leftovers = leftovers_of(batch, blobs, run.flow_run_id)
    nothing = Container(metadata={}, age=timedelta(0))
    failures = delete(batch, blobs, replace(leftovers, containers={"Not-A-Name": nothing, **leftovers.containers}))
    assert list(failures) == ["container Not-A-Name"]
    assert leftovers_of(batch, blobs, run.flow_run_id).names == ()


def test_missing_existing_pool_is_rejected(batch):
    with pytest.raises(ConfigurationError, match="Pool `nowhere` does not exist"):
        get_existing_pool(batch, "nowhere")


def test_wait_ends_with_reason_of_ended_job(
    server_without_nodes, batch, blobs, run, workload, parts, chunk_factory, watch_chunk
):
    containers, _ = parts
    short = replace(run, flow_run_id=str(uuid.uuid4()))
    # Batch tasks wait forever for a pool that does not exist.
    waiting_job = replace(ensure_job(batch, blobs, short, workload, containers, run.name), pool_id="missing")
    batch.delete_jobs_and_pools([waiting_job.job_id], [], 5)
    chunk = stage_chunk(blobs, chunk_factory(b"text"), workload, containers)
    batch.create_job(
        JobSpec(job_id=waiting_job.job_id, pool_id="missing", wall_clock_seconds=1, metadata=short.metadata(kept=False))
    )
    submitted = submit_chunk(batch, blobs, short, chunk, waiting_job, workload, containers)
    server_without_nodes.advance(timedelta(seconds=2))

    finished = watch_chunk(submitted, waiting_job, containers)

    assert finished.reason.category in {Category.WALL_CLOCK, Category.NODE}
    batch.delete_jobs_and_pools([waiting_job.job_id], [], 5)
