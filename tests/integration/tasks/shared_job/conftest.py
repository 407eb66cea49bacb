"""Fixtures of tests that share one run, with its pool and its job."""

from __future__ import annotations

import pytest

from tasks.steps.collect import collect_chunk
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import submit_chunk
from tasks.workload.results_store import FolderStore


@pytest.fixture
def run(shared_run):
    return shared_run


@pytest.fixture
def parts(shared_parts):
    return shared_parts


@pytest.fixture
def process(batch, blobs, run, workload, parts, watch_chunk, tmp_path):
    """Return a function that runs a chunk from staging to collection and returns it with its verdicts in order."""
    containers, job = parts

    def do(chunk, workload=workload):
        staged = stage_chunk(blobs, chunk, workload, containers)
        submitted = submit_chunk(batch, blobs, run, staged, job, workload, containers)
        finished = watch_chunk(submitted, job, containers)
        verdicts = collect_chunk(blobs, FolderStore(tmp_path / "store"), finished, job, workload, containers)
        return finished, [verdicts[file.content_key] for file in chunk.files]

    return do
