"""Wait for the Batch tasks of a run, and yield each chunk when all of its Batch tasks are completed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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
from tasks.model.naming import merge_key
from tasks.model.run import BatchJob, Containers, Run
from tasks.model.verdict import BatchTaskOutcome, Category, FileError
from tasks.progress import advance
from tasks.report.usage import UsageMeter
from tasks.steps.doctor import Doctor
from tasks.steps.step import file_error, log, result_or_error, step, warn
from tasks.steps.submit import Renewal
from tasks.text import quantity
from tasks.workload.base import Workload

# The poll interval grows while nothing changes, and is reset when something does.
MIN_POLL_SECONDS = 0.25
MAX_POLL_SECONDS = 5.0
POLL_BACKOFF_FACTOR = 1.5

# Task counts can lag behind the tasks, so completed tasks are listed regularly even if the counts do not change.
# Source: https://learn.microsoft.com/en-us/azure/batch/batch-get-resource-counts
LIST_EVERY_POLLS = 8

# A listing can show a Batch task later than another that completed after it, so some listings start this much earlier.
LISTING_OVERLAP = timedelta(seconds=5)

# Failures of the storage service or of the network, after which the same Batch task can succeed.
# Sources: https://learn.microsoft.com/en-us/azure/batch/batch-job-task-error-checking
# and, for uploads, https://github.com/Azure/Batch/issues/68, /128 and /171.
TRANSIENT_FAILURE_CODES = frozenset(
    {"FileUploadMiscError", "FileUploadTimedOut", "BlobDownloadMiscError", "BlobDownloadTimedOut"}
)
MAX_REACTIVATIONS = 2

# A poll that fails for a permanent reason this many times in a row ends the wait.
MAX_FAILED_POLLS = 5

# The failure code of a Batch task that a user or the end of its job terminated.
# Source: https://learn.microsoft.com/en-us/azure/batch/batch-job-task-error-checking
TERMINATED_CODE = "TaskEnded"

# Time for the service to terminate the job after the run's deadline.
DEADLINE_GRACE = timedelta(minutes=2)


class Submissions(Protocol):
    """Chunks that are being submitted to the job."""

    def arrived(self) -> list[StagedChunk]:
        """Return the chunks that were submitted since the last call."""

    @property
    def open_count(self) -> int:
        """The number of chunks that are neither submitted nor failed."""


class FutureSubmissions:
    """Submissions that are Prefect futures; the flow reports failed futures."""

    def __init__(self, futures: Sequence[PrefectFuture[StagedChunk]]) -> None:
        self._done: SimpleQueue[PrefectFuture[StagedChunk]] = SimpleQueue()
        self.open_count = len(futures)
        for future in futures:
            future.add_done_callback(self._done.put)

    def arrived(self) -> list[StagedChunk]:
        """Return the chunks that were submitted since the last call."""
        chunks: list[StagedChunk] = []
        while True:
            try:
                future = self._done.get_nowait()
            except Empty:
                return chunks
            self.open_count -= 1
            result = result_or_error(future)
            if isinstance(result, StagedChunk):
                chunks.append(result)


@step("wait for Batch tasks", retries=0)
def wait_for_batch_tasks(
    run: Run, job: BatchJob, submissions: Submissions, workload: Workload, containers: Containers, meter: UsageMeter
) -> Iterator[FinishedChunk]:
    """Yield each chunk when its Batch tasks are completed, or when waiting for them cannot help. Measure the usage."""
    account = batch_account()
    renewal = Renewal(account=account, blobs=blob_account(), run=run, job=job, workload=workload, containers=containers)
    doctor = Doctor(account, job, own_pool=job.pool_id == run.name)
    completed = 0
    for finished in watch(account, job, submissions, run.deadline_at, renewal, doctor, on_poll=meter.list_nodes):
        meter.add(finished)
        completed += len(finished.outcomes)
        yield finished
    log(f"Completed {quantity(completed, 'Batch task')}.")


def watch(
    account: BatchAccount,
    job: BatchJob,
    submissions: Submissions,
    deadline_at: datetime,
    renewal: Renewal,
    doctor: Doctor,
    clock: Clock = SYSTEM_CLOCK,
    on_poll: Callable[[], None] = lambda: None,
) -> Iterator[FinishedChunk]:
    """Poll the job until each submitted chunk is finished or waiting cannot help.

    Each poll reads the task counts, and lists only the Batch tasks that completed since the last listing. An error of a
    poll is not a verdict: the next poll tries again, until the deadline if the error is transient, otherwise a few times.

    Yields:
        Every submitted chunk, once. If waiting stopped early, the chunk has the reason.
    """
    watched = _WatchedJob(account, job, submissions, renewal)
    poll_seconds = MIN_POLL_SECONDS
    unchanged_polls = 0
    failed_polls = 0
    stop_reason: FileError | None = None
    while True:
        changed = False
        try:
            changed, stop_reason = _poll(watched, doctor, unchanged_polls)
            failed_polls = 0
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the run
            failed_polls += not (isinstance(error, ServiceError) and error.transient)
            failure = file_error(error, "watched", Category.NODE)
            warn(f"{str(error).rstrip('.') if isinstance(error, ServiceError) else failure.message}. Retrying.")
            stop_reason = failure if failed_polls >= MAX_FAILED_POLLS else None
        on_poll()
        yield from watched.pop_finished(doctor)
        if not watched.chunks and not submissions.open_count:
            return
        if stop_reason is None and clock.now() > deadline_at + DEADLINE_GRACE:
            stop_reason = FileError(category=Category.WALL_CLOCK, message="The run's deadline has passed")
        if stop_reason is not None and not submissions.open_count:
            yield from watched.pop_unfinished(stop_reason)
            return
        unchanged_polls = 0 if changed else unchanged_polls + 1
        poll_seconds = MIN_POLL_SECONDS if changed else min(poll_seconds * POLL_BACKOFF_FACTOR, MAX_POLL_SECONDS)
        clock.sleep(poll_seconds)


def _poll(watched: _WatchedJob, doctor: Doctor, unchanged_polls: int) -> tuple[bool, FileError | None]:
    """Update the known state of the job; return whether it changed, and why waiting cannot help."""
    try:
        changed = watched.poll()
        if changed or not watched.seems_stuck(unchanged_polls):
            return changed, None
        stop_reason = _examine(doctor)
        if stop_reason is None:
            watched.add_missing()
    except NotFoundError:
        return False, _examine(doctor)
    return False, stop_reason


class _WatchedJob:
    """The known state of the job's Batch tasks."""

    def __init__(self, account: BatchAccount, job: BatchJob, submissions: Submissions, renewal: Renewal) -> None:
        self._account = account
        self._renewal = renewal
        self._job = job
        self._submissions = submissions
        self._outcomes: dict[str, BatchTaskOutcome] = {}
        # The latest known completion, and the latest one known before the last listing.
        self._latest: datetime | None = None
        self._previous_latest: datetime | None = None
        self._reactivations: Counter[str] = Counter()
        self._polls = 0
        self._is_incomplete = False
        self._file_counts: dict[str, int] = {}
        self.chunks: list[StagedChunk] = []
        self.counts = TaskCounts(active=0, running=0, completed=0)

    def poll(self) -> bool:
        """Update the state from the service; returns whether anything changed."""
        arrived = self._submissions.arrived()
        self.chunks += arrived
        for pack in (pack for chunk in arrived for pack in chunk.staged):
            self._file_counts[pack.task_id] = len(pack.files)
            if pack.task_id in self._outcomes:
                self._advance(pack.task_id)
        self.chunks = self._renewal.renew(self.chunks)
        previous_counts, self.counts = self.counts, self._account.get_task_counts(self._job.job_id)
        counts_changed = previous_counts != self.counts
        known = len(self._outcomes)
        self._polls += 1
        is_due = bool(self.chunks) and self._polls % LIST_EVERY_POLLS == 0
        if self.counts.completed > known or is_due:
            self._list_completed(self._start_of_listing(is_due=is_due, counts_changed=counts_changed))
            self._is_incomplete = self.counts.completed > len(self._outcomes)
        return bool(arrived or len(self._outcomes) > known or counts_changed)

    def seems_stuck(self, unchanged_polls: int) -> bool:
        """Whether to examine the job: always if no Batch task is running, otherwise at regular intervals."""
        return self.counts.running == 0 or unchanged_polls % LIST_EVERY_POLLS == LIST_EVERY_POLLS - 1

    def add_missing(self) -> None:
        """Add Batch tasks that are no longer in the job again; without them, the wait would never end."""
        if self.counts.active + self.counts.running + self.counts.completed < len(self._file_counts):
            self._renewal.add_missing(self.chunks)

    def _start_of_listing(self, *, is_due: bool, counts_changed: bool) -> datetime | None:
        """Return the earliest completion time to list; None lists all completed Batch tasks.

        A listing can miss Batch tasks that complete while it is read, so the next one starts at the same time. If the
        counts show that some are still missing, it starts earlier, and lists all when the counts did not change.
        """
        if self._latest is None or (self._is_incomplete and not counts_changed):
            return None
        start = self._previous_latest or self._latest
        return min(start, self._latest - LISTING_OVERLAP) if is_due or self._is_incomplete else start

    def _list_completed(self, since: datetime | None = None) -> None:
        latest = self._latest
        for completed_at, outcome in self._account.list_completed_tasks(self._job.job_id, since):
            if not self._runs_again(outcome):
                if outcome.task_id not in self._outcomes:
                    # A Batch task of an earlier attempt is counted when its chunk arrives.
                    self._advance(outcome.task_id)
                self._outcomes[outcome.task_id] = outcome
            latest = completed_at if latest is None else max(latest, completed_at)
        self._previous_latest, self._latest = self._latest, latest

    def _advance(self, task_id: str) -> None:
        step = "completed" if merge_key(task_id) is None else "merged"
        advance(step, done=self._file_counts.get(task_id, 0))

    def _runs_again(self, outcome: BatchTaskOutcome) -> bool:
        """Reactivate a Batch task if it failed for a transient reason; returns whether it runs again."""
        task_id = outcome.task_id
        if outcome.failure_code not in TRANSIENT_FAILURE_CODES or self._reactivations[task_id] >= MAX_REACTIVATIONS:
            return False
        if not self._account.reactivate_task(self._job.job_id, task_id):
            return False
        self._reactivations[task_id] += 1
        warn(f"A Batch task failed for a transient reason and will run again [{outcome.failure_code}].")
        return True

    def pop_finished(self, doctor: Doctor) -> Iterator[FinishedChunk]:
        """Remove and yield the chunks whose Batch tasks are all completed."""
        for chunk in [chunk for chunk in self.chunks if all(pack.task_id in self._outcomes for pack in chunk.staged)]:
            self.chunks.remove(chunk)
            was_terminated = any(self._outcomes[pack.task_id].failure_code == TERMINATED_CODE for pack in chunk.staged)
            yield self._finished(chunk, doctor.job_end_reason() if was_terminated else None)

    def pop_unfinished(self, reason: FileError) -> Iterator[FinishedChunk]:
        """Remove and yield all other chunks, after listing the completed Batch tasks once more if the job exists."""
        with suppress(ServiceError):
            self._list_completed()
        while self.chunks:
            yield self._finished(self.chunks.pop(0), reason)

    def _finished(self, chunk: StagedChunk, reason: FileError | None) -> FinishedChunk:
        task_ids = [pack.task_id for pack in chunk.staged]
        outcomes = {task_id: self._outcomes[task_id] for task_id in task_ids if task_id in self._outcomes}
        return FinishedChunk(submitted=chunk, outcomes=outcomes, reason=reason)


def _examine(doctor: Doctor) -> FileError | None:
    """Examine the job, notify the user of a problem, and return the error if it is fatal."""
    diagnosis = doctor.examine()
    if diagnosis is None:
        return None
    warn(diagnosis.message)
    return diagnosis.fatal
