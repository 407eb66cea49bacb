"""The Azure usage of a run, as the Batch service reports it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from tests_support import wait_until

from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool


def test_nodes_report_allocation_time(batch, blobs, run, workload, pool_options):
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    containers = ensure_containers(blobs, run, workload)
    pool_id = ensure_pool(batch, blobs, run, workload, containers, pool_options, 1)
    ensure_job(batch, blobs, run, workload, containers, pool_id)
    wait_until(lambda: batch.list_node_allocations(pool_id), "the pool has a node")
    [node] = batch.list_node_allocations(pool_id)
    assert before <= node.allocated_at <= datetime.now(timezone.utc) + timedelta(seconds=5)
    assert (node.is_dedicated, node.is_preempted) == (True, False)
    batch.delete_jobs_and_pools([run.name], [run.name], 10)
    for name in (containers.application, containers.inputs, containers.outputs):
        blobs.delete_container(name)
