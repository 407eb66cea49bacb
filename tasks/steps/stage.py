"""Stage: put the input files into the run's container."""

from __future__ import annotations

from pathlib import Path

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount
from tasks.model.chunks import Chunk, Pack, StagedChunk
from tasks.model.files import InputFile
from tasks.model.inputs import is_unreadable, was_changed
from tasks.model.run import Containers, Run
from tasks.model.verdict import FileError
from tasks.progress import advance
from tasks.steps.step import step
from tasks.workload.base import Workload
from tasks.workload.packs import packed


@step("stage {chunk.label}", cached=True)
def stage_files(run: Run, chunk: Chunk, workload: Workload, containers: Containers) -> StagedChunk:
    """Upload a chunk's files; one that cannot be read any more fails alone."""
    del run  # It is in the cache key: what was staged is there as long as the run's containers are.
    return stage_chunk(blob_account(), chunk, workload, containers)


def stage_chunk(account: BlobAccount, chunk: Chunk, workload: Workload, containers: Containers) -> StagedChunk:
    """Upload each file under its hash, or each archive under its pack's id; contents must still be what was hashed.

    Raises:
        ServiceError: Storage refused.
    """
    staged, failures = [], {}
    for pack in chunk.packs:
        if pack.is_archive:
            left_out = _stage_archive(account, pack, workload, containers)
        else:
            left_out = _stage_file(account, pack.files[0], containers)
        failures.update(left_out)
        if good := pack.without(left_out):
            staged.append(good)
        advance("staged", done=len(pack.files))
    return StagedChunk(chunk=chunk, staged=tuple(staged), failures=failures)


def blob_of(pack: Pack) -> str:
    """Name the blob in the input container that a Batch task works on."""
    return f"{pack.task_id}.tar" if pack.is_archive else pack.files[0].sha256


def _stage_file(account: BlobAccount, file: InputFile, containers: Containers) -> dict[str, FileError]:
    failure = was_changed(file)
    for path in (file.path, *file.copies):
        try:
            if account.upload_file(containers.inputs, Path(path), file.size_bytes, file.sha256):
                return {}
        except OSError as error:
            failure = is_unreadable(file, error)
    return {file.content_key: failure}


def _stage_archive(
    account: BlobAccount, pack: Pack, workload: Workload, containers: Containers
) -> dict[str, FileError]:
    with packed(pack, workload) as (archive, left_out):
        if len(left_out) < len(pack.files):
            account.upload_archive(containers.inputs, blob_of(pack), archive)
    return left_out
