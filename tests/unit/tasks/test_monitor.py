"""Watching Batch tasks: the wait ends in time and misses no Batch task."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from run_reports import input_file
from tests_support import MovableClock, Submitted

from tasks.azure.values import TaskCounts
from tasks.errors import ServiceError
from tasks.model.chunks import Chunk, Pack, StagedChunk
from tasks.model.run import BatchJob
from tasks.model.verdict import BatchTaskOutcome, Category
from tasks.steps.monitor import DEADLINE_GRACE, MAX_FAILED_POLLS, MAX_POLL_SECONDS, watch

JOB = BatchJob(job_id="j", pool_id="p", files_variable="D")


class Account:
    """A job with one Batch task that never ends."""

    def get_task_counts(self, job_id):
        return TaskCounts(active=0, running=1, completed=0)

    def list_completed_tasks(self, job_id, since):
        return iter(())


class FailingAccount(Account):
    """An account whose task counts fail the first `times` times."""

    def __init__(self, error, times):
        self._error = error
        self._times = times
        self.polls = 0

    def get_task_counts(self, job_id):
        self.polls += 1
        if self.polls <= self._times:
            raise self._error
        return TaskCounts(active=0, running=0, completed=1)

    def list_completed_tasks(self, job_id, since):
        [pack] = staged_chunk(1).staged
        yield datetime.now(timezone.utc), BatchTaskOutcome(task_id=pack.task_id, state="completed")


REFUSED = ServiceError("Batch could not count: No [X].", service="Batch", operation="count")


class LateListing:
    """An account whose first listing misses the Batch task that completed first.

    This happens when a Batch task completes while pages are read. The local Batch service cannot reproduce it.
    """

    def __init__(self, early, late):
        self._completed = [early, late]
        self._listings = 0

    def get_task_counts(self, job_id):
        return TaskCounts(active=0, running=0, completed=2)

    def list_completed_tasks(self, job_id, since):
        self._listings += 1
        visible = self._completed if self._listings > 1 else self._completed[1:]
        yield from [(at, outcome) for at, outcome in visible if since is None or at >= since]


class Renewal:
    """A renewal for signatures that never need it."""

    def renew(self, chunks):
        return chunks


class HealthyDoctor:
    """A doctor that finds no problem."""

    def examine(self):
        return None

    def job_end_reason(self):
        return None


def staged_chunk(file_count):
    packs = tuple(Pack.of([input_file(number)]) for number in range(file_count))
    return StagedChunk(chunk=Chunk(first=1, total=file_count, packs=packs), staged=packs, failures={})


def test_wait_ends_at_deadline():
    """Field report 28: the watcher checks its own clock, because threads cannot be interrupted."""

    def check_time():
        assert clock.now() < deadline_at + 2 * DEADLINE_GRACE

    clock = MovableClock(check_time)
    deadline_at = clock.now() + timedelta(minutes=10)

    [finished] = watch(Account(), JOB, Submitted(staged_chunk(1)), deadline_at, Renewal(), HealthyDoctor(), clock)

    assert finished.reason.category is Category.WALL_CLOCK
    assert finished.outcomes == {}
    waited = clock.now() - (deadline_at + DEADLINE_GRACE)
    assert timedelta() < waited <= timedelta(seconds=MAX_POLL_SECONDS)


@pytest.mark.parametrize("error", [REFUSED, KeyError("x")])
def test_few_failed_polls_change_nothing(error):
    account, clock = FailingAccount(error, MAX_FAILED_POLLS - 1), MovableClock()
    deadline_at = clock.now() + timedelta(hours=1)
    [finished] = watch(account, JOB, Submitted(staged_chunk(1)), deadline_at, Renewal(), HealthyDoctor(), clock)
    assert (finished.reason, len(finished.outcomes)) == (None, 1)


@pytest.mark.parametrize(("error", "words"), [(REFUSED, "No [X]"), (KeyError("x"), "unexpected KeyError('x')")])
def test_many_failed_polls_end_wait_with_reason(error, words):
    account, clock = FailingAccount(error, 1000), MovableClock()
    deadline_at = clock.now() + timedelta(hours=1)
    [finished] = watch(account, JOB, Submitted(staged_chunk(1)), deadline_at, Renewal(), HealthyDoctor(), clock)
    assert words in finished.reason.message
    assert account.polls == MAX_FAILED_POLLS


@pytest.mark.parametrize("seconds", [1, 3600])
def test_late_listed_batch_task_is_not_missed(seconds):
    staged = staged_chunk(2)
    now = datetime.now(timezone.utc)
    account = LateListing(
        *(
            (now + timedelta(seconds=place * seconds), BatchTaskOutcome(task_id=pack.task_id, state="completed"))
            for place, pack in enumerate(staged.staged)
        )
    )
    clock = MovableClock()
    [finished] = watch(account, JOB, Submitted(staged), now + timedelta(hours=9), Renewal(), HealthyDoctor(), clock)
    assert len(finished.outcomes) == 2
    assert clock.sleeps <= 3
