"""Renew: no signed URL ends before what needs it has started, and no Batch task that is gone is waited for."""

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
    """Adds Batch tasks again, with new signatures, while they wait."""

    account: BatchAccount
    blobs: BlobAccount
    run: Run
    job: BatchJob
    workload: Workload
    containers: Containers
    clock: Clock = SYSTEM_CLOCK
    _start_task_signed_until_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        # The pool was made, or its start task renewed, just before the Batch tasks are waited for.
        self._start_task_signed_until_at = signatures.expiry(self.run, self.clock.now())

    def renew(self, chunks: Sequence[StagedChunk]) -> list[StagedChunk]:
        """Give new signatures to what has not started and has old ones; returns the chunks as they are then.

        A Batch task cannot be changed, so each that waits is deleted and added again under its id. One that was
        started meanwhile keeps its signatures, which are good for as long again as it may have waited.

        Raises:
            ServiceError: A service refused; nothing is lost, and the next call goes on.
        """
        self._renew_start_task()
        now = self.clock.now()
        due = [
            chunk
            for chunk in chunks
            if chunk.signed_until_at and signatures.must_be_renewed(self.run, chunk.signed_until_at, now)
        ]
        if not due:
            return list(chunks)
        waiting = self.account.waiting_tasks(self.job.job_id)
        notify("Renewing the signatures of Batch tasks that still wait for a node.")
        return [self._renewed(chunk, waiting) if chunk in due else chunk for chunk in chunks]

    def add_missing(self, chunks: Sequence[StagedChunk]) -> None:
        """Add each Batch task again that is gone, whoever deleted it; those that exist stay as they are.

        Raises:
            ServiceError: Batch refused.
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
        if signatures.must_be_renewed(self.run, self._start_task_signed_until_at, now):
            renewed = start_task(self.blobs, self.run, self.workload, self.containers, now, self.job.setup)
            self.account.update_start_task(self.job.pool_id, renewed)
            self._start_task_signed_until_at = signatures.expiry(self.run, now)

    def _submit(self, chunk: StagedChunk) -> StagedChunk:
        return submit_chunk(
            self.account, self.blobs, self.run, chunk, self.job, self.workload, self.containers, self.clock
        )
