"""Stage: put the input files into the run's container."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.accounts import blob_account
from tasks.blob_account import BlobAccount
from tasks.models import Category, Chunk, Containers, FileError, InputFile, Run, StagedChunk
from tasks.names import shown
from tasks.progress import advance
from tasks.step import CACHED_STEP


@task(**CACHED_STEP, task_run_name="stage {chunk.label}")
def stage_files(run: Run, chunk: Chunk, containers: Containers) -> StagedChunk:
    """Upload a chunk's files; one that cannot be read any more fails alone."""
    del run  # It is in the cache key: what was staged is there as long as the run's containers are.
    return stage_chunk(blob_account(), chunk, containers)


def stage_chunk(account: BlobAccount, chunk: Chunk, containers: Containers) -> StagedChunk:
    """Upload each file under its hash; its content must still be what was hashed.

    Raises:
        ServiceError: Storage refused.
    """
    staged, failures = [], {}
    for file in chunk.files:
        error = _stage_file(account, file, containers)
        if error is None:
            staged.append(file)
        else:
            failures[file.content_key] = error
        advance("staged", done=1)
    return StagedChunk(chunk=chunk, staged=tuple(staged), failures=failures)


def _stage_file(account: BlobAccount, file: InputFile, containers: Containers) -> FileError | None:
    try:
        sent = account.upload_file(containers.inputs, file.sha256, Path(file.path), file.size_bytes)
    except OSError as error:
        return FileError(
            category=Category.INPUT, message=f"{shown(file.name)} cannot be read any more ({error.strerror})"
        )
    if sent != file.sha256:
        return FileError(
            category=Category.INPUT, message=f"{shown(file.name)} was changed while the run read it: run again"
        )
    return None
