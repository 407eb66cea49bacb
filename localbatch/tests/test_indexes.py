"""The indexes of records, and the number of records that a tick reviews."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_bench import Bench

from localbatch.account.queues import SortedRecords, number_of
from localbatch.account.records import Report

KEYS = st.text("ab1", min_size=1, max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "read"]), KEYS), max_size=40), KEYS)
def test_sorted_records_stay_in_order(steps, after):
    listing, expected = SortedRecords(), {}
    for what, key in steps:
        if what == "add":
            listing[key] = expected[key] = what
        elif what == "remove":
            listing.pop(key, None)
            expected.pop(key, None)
        assert list(listing.after("")) == sorted(expected.items())
    assert list(listing.after(after)) == sorted((key, value) for key, value in expected.items() if key > after)


def test_emptied_records_can_be_filled_again():
    listing = SortedRecords()
    for _ in range(3):
        for key in "cab":
            listing[key] = key
        assert [key for key, _ in listing.after("")] == ["a", "b", "c"]
        for key in "abc":
            del listing[key]
    assert list(listing.after("")) == []


@pytest.mark.parametrize(
    ("task_id", "number"),
    [("4", 4), ("004", 4), ("-7", -7), ("5flamingos", None), ("", None), ("--4", None), ("٤", None)],
)
def test_ids_of_digits_are_numbers(task_id, number):
    assert number_of(task_id) == number


@pytest.fixture(scope="module")
def busy():
    """A pool of 1000 nodes at work on a job of 20,000 Batch tasks."""
    bench = Bench()
    bench.pool(1000)
    job = bench.job()
    for number in range(20_000):
        bench.task(job, f"t{number:05}")
    bench.tick()
    assert job.task_counts.running == 1000
    return bench


def test_tick_reviews_only_changed_records(busy, monkeypatch):
    looked = Counter()
    look = busy.scheduler._review
    monkeypatch.setattr(
        busy.scheduler, "_review", lambda record, now: (looked.update([type(record).__name__]), look(record, now))
    )
    busy.tick()
    assert not looked
    busy.store.reports.append(Report(run_id=next(iter(busy.store.runs)), exit_code=0))
    busy.tick()
    assert len(busy.started) == 1
    # The job and the node that it concerns, once or twice each.
    assert looked.total() <= 6
    assert set(looked) <= {"Job", "Node"}


def test_tasks_start_in_queue_order(busy):
    runs = [next(iter(busy.store.runs)) for _ in range(1)]
    first = busy.store.jobs["job"].waiting.head(below=1 << 30)
    busy.store.reports.extend(Report(run_id=run_id, exit_code=0) for run_id in runs)
    busy.tick()
    assert first.state == "running"
