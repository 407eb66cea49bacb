"""Upload the input files to the run's input container, except blobs, which the nodes read where they are."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tasks.azure.accounts import blob_account
from tasks.azure.blob import BlobAccount
from tasks.model.chunks import Chunk, Pack, StagedChunk
from tasks.model.files import InputFile, MergeInput
from tasks.model.inputs import changed_error, unreadable_error
from tasks.model.run import Containers, Run
from tasks.model.verdict import Category, FileError
from tasks.progress import advance
from tasks.steps.step import PartialFailures, step
from tasks.workload.base import Workload
from tasks.workload.packs import packed


@step("stage {chunk.label}", cached=True)
def stage_files(run: Run, chunk: Chunk, workload: Workload, containers: Containers) -> StagedChunk:
    """Upload the files of a chunk; a file that cannot be uploaded does not fail the others."""
    del run  # Part of the cache key: staged blobs exist as long as the containers of the run.
    return stage_chunk(blob_account(), chunk, workload, containers)


def stage_chunk(account: BlobAccount, chunk: Chunk, workload: Workload, containers: Containers) -> StagedChunk:
    """Upload the files and archives of a chunk; a file that changed since it was hashed is left out.

    Raises:
        ServiceError: An upload failed for a transient reason, and the step will be retried.
    """
    staged = []
    failures = PartialFailures("staged", Category.RESOURCE_FILE)
    uploaded_archives: set[str] = set()
    for pack in chunk.packs:
        stage = partial(_stage, account, pack, workload, containers, uploaded_archives)
        failures.errors.update(failures.attempt(pack.files, stage) or {})
        if uploaded := pack.without(failures.errors):
            staged.append(uploaded)
        if not chunk.kind:
            advance("staged", done=len(pack.files))
    return StagedChunk(chunk=chunk, staged=tuple(staged), failures=failures.errors)


def _stage(
    account: BlobAccount, pack: Pack, workload: Workload, containers: Containers, uploaded_archives: set[str]
) -> dict[str, FileError]:
    """Upload a pack, and return the errors of the files that were left out, by content key.

    An archive that several packs share is uploaded once per chunk.
    """
    if pack.is_archive:
        if pack.input_blob in uploaded_archives:
            return {}
        left_out = _stage_archive(account, pack, workload, containers)
        uploaded_archives.add(pack.input_blob)
        return left_out
    [file] = pack.files
    if isinstance(file, MergeInput):
        account.upload_bytes(containers.inputs, pack.input_blob, file.script)
        return {}
    if file.etag:
        return {}  # Its node reads the blob itself.
    return _stage_file(account, file, containers)


def _stage_file(account: BlobAccount, file: InputFile, containers: Containers) -> dict[str, FileError]:
    failure = changed_error(file)
    for path in (file.path, *file.copies):
        try:
            if account.upload_file(containers.inputs, Path(path), file.size_bytes, file.sha256):
                return {}
        except OSError as error:
            failure = unreadable_error(file, error)
    return {file.content_key: failure}


def _stage_archive(
    account: BlobAccount, pack: Pack, workload: Workload, containers: Containers
) -> dict[str, FileError]:
    with packed(pack, workload) as (archive, left_out):
        if len(left_out) < len(pack.files):
            account.upload_archive(containers.inputs, pack.input_blob, archive)
    return left_out
