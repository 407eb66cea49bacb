"""Collecting results after the pool is gone."""

from __future__ import annotations

from tests_support import wait_until

from tasks.model.verdict import StoredResult
from tasks.steps.collect import collect_chunk
from tasks.workload.results_store import FolderStore


def test_results_and_logs_outlive_node(batch, blobs, workload, parts, submitted, watch_chunk, tmp_path):
    """Field report 13: results do not depend on the node."""
    containers, job = parts
    finished = watch_chunk(submitted(b"one two two", b"abc\xffdef"), job, containers)
    batch.delete_jobs_and_pools([], [job.pool_id], 10)
    wait_until(lambda: not batch.list_pools(job.pool_id), "the pool to be gone")

    good, bad = collect_chunk(blobs, FolderStore(tmp_path / "s"), finished, job, workload, containers).values()

    assert isinstance(good, StoredResult)
    assert "offset 3" in bad.stderr
