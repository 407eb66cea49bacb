"""Batch tasks that failed for a transient reason run again.

The test has its own job, because watching a job reactivates all such Batch tasks in it.
"""

from __future__ import annotations

from tasks.model.verdict import StoredResult
from tasks.progress import listen
from tasks.steps.collect import collect_chunk
from tasks.workload.results_store import FolderStore


def test_batch_task_reruns_after_failed_upload(blobs, workload, parts, submitted, watch_chunk, azure_faults, tmp_path):
    """Field report 16: a randomly failed upload needs no second run."""
    containers, job = parts
    azure_faults.add("upload_fails", task="*", code="FileUploadMiscError")
    notes = []

    def note(progress):
        if progress.note:
            notes.append(progress.note)
            azure_faults.clear()

    with listen(note):
        finished = watch_chunk(submitted(b"one"), job, containers)

    [verdict] = collect_chunk(blobs, FolderStore(tmp_path / "s"), finished, job, workload, containers).values()
    assert isinstance(verdict, StoredResult)
    assert set(notes) == {"A Batch task failed for a transient reason and will run again [FileUploadMiscError]."}
