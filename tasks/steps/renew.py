"""Renew the signatures of waiting Batch tasks, and add missing Batch tasks again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tasks.azure import sas_expiry as signatures
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.clock import SYSTEM_CLOCK, Clock
from tasks.model.chunks import StagedChunk
from tasks.model.run import BatchJob, Containers, Run
from tasks.progress import notify
from tasks.steps.provision import start_task
from tasks.steps.submit import submit_chunk
from tasks.workload.base import Workload


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
