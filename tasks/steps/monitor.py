"""Monitor: wait for the Batch tasks, and hand each chunk on when the service has said all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Protocol

from prefect.futures import PrefectFuture

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.values import TaskCounts
from tasks.clock import SYSTEM_CLOCK, Clock
from tasks.errors import NotFoundError, ServiceError
from tasks.model.chunks import FinishedChunk, StagedChunk
from tasks.model.run import BatchJob, Containers, Run
from tasks.model.verdict import BatchTaskOutcome, Category, FileError
from tasks.progress import advance, notify
from tasks.steps.doctor import Doctor
from tasks.steps.renew import Renewal
from tasks.steps.step import step
from tasks.workload.base import Workload

# Polls slow down while nothing moves, and speed up when something does.
FIRST_POLL_SECONDS = 0.25
MAX_POLL_SECONDS = 5.0
SLOWING = 1.5

# Task counts may lag behind the tasks themselves, so completed ones are listed now and then whatever the counts say.
# Source: Batch documentation, "Count tasks and compute nodes by state".
LIST_EVERY_POLLS = 8

# A Batch task that completed a little before another may be seen after it: now and then, a listing goes back by this much.
LISTING_OVERLAP = timedelta(seconds=5)

# Failures of the storage service or of the way to it, after which the same Batch task may well succeed.
# Source: Batch documentation, "Job and task error checking"; Azure/Batch issues 68, 128 and 171 for the uploads.
PASSING_FAILURE_CODES = frozenset(
    {"FileUploadMiscError", "FileUploadTimedOut", "BlobDownloadMiscError", "BlobDownloadTimedOut"}
)
MAX_REACTIVATIONS = 2

# A Batch task that somebody, or the end of its job, has ended. Source: as above.
ENDED_CODE = "TaskEnded"

# How long after the run's deadline the job may still be ending.
DEADLINE_GRACE = timedelta(minutes=2)


class Submissions(Protocol):
    """The chunks on their way into the job."""

    def arrived(self) -> list[StagedChunk]:
        """Give the chunks that were submitted since the last call."""

    @property
    def open_count(self) -> int:
        """How many are neither submitted nor failed."""


class FutureSubmissions:
    """Submissions that are Prefect futures; one that failed is the flow's to report."""

    def __init__(self, futures: Sequence[PrefectFuture[StagedChunk]]) -> None:
        self._ended: SimpleQueue[PrefectFuture[StagedChunk]] = SimpleQueue()
        self.open_count = len(futures)
        for future in futures:
            future.add_done_callback(self._ended.put)

    def arrived(self) -> list[StagedChunk]:
        """Give the chunks that were submitted since the last call."""
        chunks: list[StagedChunk] = []
        while True:
            try:
                future = self._ended.get_nowait()
            except Empty:
                return chunks
            self.open_count -= 1
            result: object = future.result(raise_on_failure=False)
            if isinstance(result, StagedChunk):
                chunks.append(result)


@step("wait for Batch tasks", retries=0)
def wait_for_batch_tasks(
    run: Run, job: BatchJob, submissions: Submissions, workload: Workload, containers: Containers
) -> Iterator[FinishedChunk]:
    """Yield each chunk as soon as its Batch tasks are completed, or waiting for them has become pointless."""
    account = batch_account()
    renewal = Renewal(account=account, blobs=blob_account(), run=run, job=job, workload=workload, containers=containers)
    doctor = Doctor(account, job, own_pool=job.pool_id == run.name)
    yield from watch(account, job, submissions, run.deadline_at, renewal, doctor)


def watch(
    account: BatchAccount,
    job: BatchJob,
    submissions: Submissions,
    deadline_at: datetime,
    renewal: Renewal,
    doctor: Doctor,
    clock: Clock = SYSTEM_CLOCK,
) -> Iterator[FinishedChunk]:
    """Poll the job: its counts each time, and only what completed since the last time.

    A status that cannot be read is never a verdict: it is read again until the deadline.

    Yields:
        Every submitted chunk, once. Where waiting ended early, the reason is with it.
    """
    watched = _Watched(account, job, submissions, renewal)
    poll_seconds = FIRST_POLL_SECONDS
    still_polls = 0
    ending: FileError | None = None
    while True:
        moved = False
        with _asked_again():
            try:
                moved = watched.look()
                stuck = not moved and watched.seems_stuck(still_polls)
                ending = _reason_to_end(doctor) if stuck else None
                if stuck and ending is None:
                    watched.add_missing()
            except NotFoundError:
                ending = _reason_to_end(doctor)
        yield from watched.finished(doctor)
        if not watched.chunks and not submissions.open_count:
            return
        if ending is None and clock.now() > deadline_at + DEADLINE_GRACE:
            ending = FileError(category=Category.WALL_CLOCK, message="The run's deadline has passed")
        if ending is not None and not submissions.open_count:
            yield from watched.given_up(ending)
            return
        still_polls = 0 if moved else still_polls + 1
        poll_seconds = FIRST_POLL_SECONDS if moved else min(poll_seconds * SLOWING, MAX_POLL_SECONDS)
        clock.sleep(poll_seconds)


class _Watched:
    """What is known so far of the job's Batch tasks."""

    def __init__(self, account: BatchAccount, job: BatchJob, submissions: Submissions, renewal: Renewal) -> None:
        self._account = account
        self._renewal = renewal
        self._job = job
        self._submissions = submissions
        self._outcomes: dict[str, BatchTaskOutcome] = {}
        self._latest: datetime | None = None
        """When the latest Batch task completed that is known, and the latest that was known a listing ago."""
        self._latest_before: datetime | None = None
        self._reactivations: Counter[str] = Counter()
        self._polls = 0
        self._misses_some = False
        self._files: dict[str, int] = {}
        self.chunks: list[StagedChunk] = []
        self.counts = TaskCounts(active=0, running=0, completed=0)

    def look(self) -> bool:
        """Ask the service once; returns whether anything has moved since the last time."""
        arrived = self._submissions.arrived()
        self.chunks += arrived
        for pack in (pack for chunk in arrived for pack in chunk.staged):
            self._files[pack.task_id] = len(pack.files)
            if pack.task_id in self._outcomes:
                advance("completed", done=len(pack.files))
        self.chunks = self._renewal.renew(self.chunks)
        before, self.counts = self.counts, self._account.task_counts(self._job.job_id)
        known = len(self._outcomes)
        self._polls += 1
        is_due = bool(self.chunks) and self._polls % LIST_EVERY_POLLS == 0
        if self.counts.completed > known or is_due:
            self._list_completed(self._start_of_listing(is_due=is_due, has_moved=before != self.counts))
            self._misses_some = self.counts.completed > len(self._outcomes)
        return bool(arrived or len(self._outcomes) > known or before != self.counts)

    def seems_stuck(self, still_polls: int) -> bool:
        """Whether somebody should find out why nothing moves; what runs may take its time, but not for ever."""
        return self.counts.running == 0 or still_polls % LIST_EVERY_POLLS == LIST_EVERY_POLLS - 1

    def add_missing(self) -> None:
        """Add Batch tasks again that are not in the job any more: without them, waiting would never end."""
        if self.counts.active + self.counts.running + self.counts.completed < len(self._files):
            self._renewal.add_missing(self.chunks)

    def _start_of_listing(self, *, is_due: bool, has_moved: bool) -> datetime | None:
        """Say from when on to list; None is from the beginning.

        What completed while the last listing was read may not be in it, so the next one begins where that one did.
        Where the counts say that more is missing, it goes back further, and to the beginning when nothing else moves.
        """
        if self._latest is None or (self._misses_some and not has_moved):
            return None
        start = self._latest_before or self._latest
        return min(start, self._latest - LISTING_OVERLAP) if is_due or self._misses_some else start

    def _list_completed(self, since: datetime | None = None) -> None:
        latest = self._latest
        for completed_at, outcome in self._account.completed_tasks(self._job.job_id, since):
            if not self._runs_again(outcome):
                if outcome.task_id not in self._outcomes:
                    # What an earlier attempt submitted counts when its chunk has arrived.
                    advance("completed", done=self._files.get(outcome.task_id, 0))
                self._outcomes[outcome.task_id] = outcome
            latest = completed_at if latest is None else max(latest, completed_at)
        self._latest_before, self._latest = self._latest, latest

    def _runs_again(self, outcome: BatchTaskOutcome) -> bool:
        """Let a Batch task that failed for a passing reason run again, a bounded number of times."""
        task_id = outcome.task_id
        if outcome.failure_code not in PASSING_FAILURE_CODES or self._reactivations[task_id] >= MAX_REACTIVATIONS:
            return False
        if not self._account.reactivate_task(self._job.job_id, task_id):
            return False
        self._reactivations[task_id] += 1
        notify(f"A Batch task failed for a passing reason and runs again [{outcome.failure_code}].")
        return True

    def finished(self, doctor: Doctor) -> Iterator[FinishedChunk]:
        """Take out the chunks whose Batch tasks are all completed; of those that were ended, the job knows why."""
        for chunk in [chunk for chunk in self.chunks if all(pack.task_id in self._outcomes for pack in chunk.staged)]:
            self.chunks.remove(chunk)
            was_ended = any(self._outcomes[pack.task_id].failure_code == ENDED_CODE for pack in chunk.staged)
            yield self._finished(chunk, doctor.reason_of_jobs_end() if was_ended else None)

    def given_up(self, reason: FileError) -> Iterator[FinishedChunk]:
        """Take out the others, after a last look at what is completed; there may be nothing to look at any more."""
        with suppress(ServiceError):
            self._list_completed()
        while self.chunks:
            yield self._finished(self.chunks.pop(0), reason)

    def _finished(self, chunk: StagedChunk, reason: FileError | None) -> FinishedChunk:
        task_ids = [pack.task_id for pack in chunk.staged]
        outcomes = {task_id: self._outcomes[task_id] for task_id in task_ids if task_id in self._outcomes}
        return FinishedChunk(submitted=chunk, outcomes=outcomes, reason=reason)


@contextmanager
def _asked_again() -> Iterator[None]:
    """Let what could not be read for a passing reason be read again at the next poll."""
    try:
        yield
    except ServiceError as error:
        if not error.transient:
            raise
        notify(f"{error} Asking again.")


def _reason_to_end(doctor: Doctor) -> FileError | None:
    """Ask the doctor, and tell people what it says."""
    diagnosis = doctor.examine()
    if diagnosis is None:
        return None
    notify(diagnosis.message)
    return diagnosis.fatal
