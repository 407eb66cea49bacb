"""The verdict on a file when its upload fails, and the number of requests of a run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests_support import polling_clock, wait_until

from tasks.azure.values import BatchTaskSpec
from tasks.model.verdict import Category
from tasks.steps.collect import collect_chunk
from tasks.workload.results_store import FolderStore


def requests_about(job_id, local_azure):
    return [record for record in list(local_azure.batch.requests) if f"/{job_id}" in record.path]


@pytest.mark.parametrize(
    "code", ["FileUploadMiscError", "FileUploadTimedOut", "FileUploadAccessDenied", "FileUploadContainerNotFound"]
)
def test_failed_upload_has_own_category(
    blobs, workload, parts, submitted, watch_chunk, azure_faults, tmp_path, code, local_azure
):
    """Field report 16: the program succeeded, but its output was not uploaded."""
    containers, job = parts
    azure_faults.add("upload_fails", task="*", code=code)
    finished = watch_chunk(submitted(b"one"), job, containers)
    [error] = collect_chunk(blobs, FolderStore(tmp_path / "s"), finished, job, workload, containers).values()
    assert error.category is Category.UPLOAD
    assert f"[{code}]" in error.message


def test_batch_task_files_are_retained_one_day(batch, parts, submitted):
    """Field report 18: nodes delete the files of a Batch task after one day."""
    chunk = submitted(b"one")
    task = batch._client.get_task(parts[1].job_id, chunk.staged[0].task_id)
    assert task.constraints.retention_time == timedelta(days=1)


def test_watch_requests_do_not_grow_with_batch_tasks(batch, run, parts, submitted, watch_chunk, local_azure):
    """Field report 24: progress needs no list of all Batch tasks."""
    containers, job = parts
    requests = {}
    for number in (1, 20):
        before = len(requests_about(job.job_id, local_azure))
        chunk = submitted(*(f"{number} {i}".encode() for i in range(number)))
        clock = polling_clock()
        watch_chunk(chunk, job, containers, clock)
        seen = requests_about(job.job_id, local_azure)[before:]
        listings = [record for record in seen if record.method == "GET" and record.path.endswith("/tasks")]
        assert len(listings) <= clock.sleeps + 2
        requests[number] = len(seen) / (clock.sleeps + 1)
    assert requests[20] < 2 * requests[1] + 3


def test_batch_tasks_are_added_in_hundreds(batch, idle_job, local_azure):
    """Field reports 22 and 23: one request per hundred Batch tasks, and no oversized request."""
    specs = [
        BatchTaskSpec(task_id=f"many{i}", command_line="true", resource_files=(), uploads=(), retries=0)
        for i in range(1001)
    ]
    assert batch.add_tasks(idle_job, specs).rejected == {}
    # The server records a request after it has responded.
    wait_until(lambda: len(additions(idle_job, local_azure)) >= 11, "the requests")
    assert len(additions(idle_job, local_azure)) == 11


def additions(job_id, local_azure):
    return [record for record in requests_about(job_id, local_azure) if record.path.endswith("addtaskcollection")]
