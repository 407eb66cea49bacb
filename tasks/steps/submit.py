"""Add one Batch task per staged pack to the job, renew its signatures, and add it again if it is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from tasks.azure import sas_expiry as signatures
from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.values import BatchTaskSpec, Blob, Upload
from tasks.clock import SYSTEM_CLOCK, Clock
from tasks.model.chunks import Pack, StagedChunk
from tasks.model.files import MergeInput
from tasks.model.naming import PARTIALS_CONTAINER, output_blob
from tasks.model.run import BatchJob, Containers, Run
from tasks.model.verdict import Category, FileError
from tasks.progress import advance, notify
from tasks.steps.provision import start_task
from tasks.steps.step import PartialFailures, step
from tasks.workload.base import LOGS, Workload
from tasks.workload.packs import ARCHIVE, RESULTS, batch_task_command, node_path, outputs, partials_output

# A pack whose script was killed continues in another attempt. The commands themselves retry the programs.
MAX_PACK_RETRIES = 1


@step("submit {chunk.label}", cached=True)
def submit_batch_tasks(
    run: Run, chunk: StagedChunk, job: BatchJob, workload: Workload, containers: Containers
) -> StagedChunk:
    """Add the Batch tasks of a chunk; a rejected Batch task does not fail the others."""
    failures = PartialFailures("submitted", Category.NODE)
    submitted = failures.attempt(
        [file for pack in chunk.staged for file in pack.files],
        lambda: submit_chunk(batch_account(), blob_account(), run, chunk, job, workload, containers),
    )
    if not chunk.chunk.kind:
        advance("submitted", done=len(chunk.chunk.files))
    return submitted or replace(chunk, staged=(), failures={**chunk.failures, **failures.errors})


def submit_chunk(
    account: BatchAccount,
    blobs: BlobAccount,
    run: Run,
    chunk: StagedChunk,
    job: BatchJob,
    workload: Workload,
    containers: Containers,
    clock: Clock = SYSTEM_CLOCK,
) -> StagedChunk:
    """Add the Batch tasks of a chunk, and return the chunk with rejected packs moved to its failures.

    Batch tasks that are already in the job do not change, and keep their signatures.

    Raises:
        ServiceError: Batch rejected a whole request.
    """
    expires_at = None if job.node_identity else signatures.expiry(run, clock.now())
    outputs_url = blobs.write_url(containers.outputs, expires_at)
    specs = [_spec(blobs, pack, job, workload, containers, outputs_url, expires_at) for pack in chunk.staged]
    added = account.add_tasks(job.job_id, specs)
    rejected = added.rejected
    if expires_at and added.existing and chunk.signed_until_at is None:
        # An earlier attempt signed them at an unknown time.
        expires_at = signatures.expiry(run, run.started_at)
    failures = {
        file.content_key: FileError(
            category=Category.NODE, message=f"Batch rejected its Batch task: {rejected[pack.task_id]}"
        )
        for pack in chunk.staged
        if pack.task_id in rejected
        for file in pack.files
    }
    return replace(
        chunk,
        staged=tuple(pack for pack in chunk.staged if pack.task_id not in rejected),
        failures={**chunk.failures, **failures},
        signed_until_at=expires_at,
    )


def _spec(
    blobs: BlobAccount,
    pack: Pack,
    job: BatchJob,
    workload: Workload,
    containers: Containers,
    outputs_url: str,
    expires_at: datetime | None,
) -> BatchTaskSpec:
    names = (RESULTS,) if pack.is_archive else outputs(pack, workload)
    if workload.merge is not None:
        names += (partials_output(pack, workload.merge),)
    script = f'export FILES="${job.files_variable}"\n{batch_task_command(pack, workload)}'
    return BatchTaskSpec(
        task_id=pack.task_id,
        command_line=f"/bin/sh -c {shlex.quote(script)}",
        resource_files=tuple(
            Blob(url=url, file_path=path, identity=job.node_identity)
            for url, path in _inputs(blobs, pack, workload, containers, expires_at)
        ),
        uploads=tuple(
            Upload(
                # The logs are in the parent of the working directory. They are uploaded even if the Batch task failed,
                # and so are the results of a pack up to that point.
                pattern=f"../{name}" if name in LOGS else name,
                container_url=outputs_url,
                path=output_blob(pack.task_id, name),
                only_on_success=name not in LOGS and not pack.is_archive,
                identity=job.node_identity,
            )
            for name in names + LOGS
        ),
        retries=MAX_PACK_RETRIES if pack.is_archive else 0,
        container_image=job.setup.container_image,
        max_minutes=job.task_minutes,
        environment=workload.environment,
        required_slots=workload.required_slots,
    )


def _inputs(
    blobs: BlobAccount, pack: Pack, workload: Workload, containers: Containers, expires_at: datetime | None
) -> Iterator[tuple[str, str]]:
    """Yield the URL of each blob that a Batch task downloads, and its path in the working directory."""
    if pack.is_archive:
        yield blobs.read_url(containers.inputs, pack.input_blob, expires_at), ARCHIVE
    for file in pack.files:
        if isinstance(file, MergeInput):
            for blob, path in file.blobs.items():
                yield blobs.read_url(PARTIALS_CONTAINER, blob, expires_at), path
        path = node_path(pack, file, workload)
        if file.etag:
            place = file.place
            yield blobs.at(place.account).read_url(place.container, place.path, expires_at), path
        elif not pack.is_archive:
            yield blobs.read_url(containers.inputs, pack.input_blob, expires_at), path


@dataclass(kw_only=True)
class Renewal:
    """Replaces the signatures of Batch tasks and of the start task before they expire."""

    account: BatchAccount
    blobs: BlobAccount
    run: Run
    job: BatchJob
    workload: Workload
    containers: Containers
    clock: Clock = SYSTEM_CLOCK
    _start_task_signed_until_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        # The machine may have slept while the pool was created, so only the start of the run is certain.
        self._start_task_signed_until_at = signatures.expiry(self.run, self.run.started_at)

    def renew(self, chunks: Sequence[StagedChunk]) -> list[StagedChunk]:
        """Replace signatures that expire soon, and return the updated chunks.

        Batch cannot update the signatures of a task, so each waiting Batch task is deleted and added again under the
        same id. A Batch task that has started keeps its signatures, which are still valid for several hours.

        Raises:
            ServiceError: A service rejected a request. The next call continues, and no Batch task is lost.
        """
        self._renew_start_task()
        now = self.clock.now()
        due = [
            chunk
            for chunk in chunks
            if chunk.signed_until_at and signatures.needs_renewal(self.run, chunk.signed_until_at, now)
        ]
        if not due:
            return list(chunks)
        waiting = self.account.list_waiting_tasks(self.job.job_id)
        notify("Renewing the signatures of Batch tasks that are waiting for a node.")
        return [self._renewed(chunk, waiting) if chunk in due else chunk for chunk in chunks]

    def add_missing(self, chunks: Sequence[StagedChunk]) -> None:
        """Add missing Batch tasks again; existing ones do not change.

        Raises:
            ServiceError: Batch rejected a request.
        """
        for chunk in chunks:
            self._submit(chunk)

    def _renewed(self, chunk: StagedChunk, waiting: dict[str, str]) -> StagedChunk:
        for task_id in (pack.task_id for pack in chunk.staged):
            if task_id in waiting:
                self.account.delete_task(self.job.job_id, task_id, waiting[task_id])
        return self._submit(chunk)

    def _renew_start_task(self) -> None:
        now = self.clock.now()
        if self.job.pool_id != self.run.name:
            return
        if signatures.needs_renewal(self.run, self._start_task_signed_until_at, now):
            renewed = start_task(self.blobs, self.run, self.workload, self.containers, now, self.job.setup)
            self.account.update_start_task(self.job.pool_id, renewed)
            self._start_task_signed_until_at = signatures.expiry(self.run, now)

    def _submit(self, chunk: StagedChunk) -> StagedChunk:
        return submit_chunk(
            self.account, self.blobs, self.run, chunk, self.job, self.workload, self.containers, self.clock
        )
