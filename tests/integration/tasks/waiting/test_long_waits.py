"""Waits of hours and days, by the service's clock."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from tests_support import POLL_SECONDS, TWO_POLLS_OF_STILLNESS, MovableClock, wait_until

from tasks.model.verdict import StoredResult


@pytest.fixture
def azure_settings(azure_of_one_test, monkeypatch):
    """A Batch account of each test's own: it moves the clock."""
    return use(azure_of_one_test(), monkeypatch)


def use(azure, monkeypatch):
    for variable, value in azure.environment.items():
        monkeypatch.setenv(variable, value)
    return azure


@pytest.fixture
def azure_faults(azure_settings):
    return azure_settings.faults


def test_missing_capacity_is_told_within_two_polls_and_the_run_goes_on(
    batch, run, submitted, watch_chunk, counted, notes, azure_settings
):
    """Field report 10: an allocation that failed for want of machines is tried again, and kills nothing."""
    chunk, job, containers = submitted([{"fault": "allocation_fails", "code": "AllocationFailed"}])
    wait_until(lambda: batch.pool(run.name).resize_problems, "the resize to fail")
    told_after = []

    def meanwhile():
        time.sleep(POLL_SECONDS)
        if notes and not told_after:
            told_after.append(clock.sleeps)
            azure_settings.faults.clear()
            azure_settings.batch.advance(timedelta(minutes=6))

    clock = MovableClock(meanwhile)
    finished = watch_chunk(chunk, job, containers, clock)

    assert isinstance(counted(finished, job, containers), StoredResult)
    assert "[AllocationFailed]; Batch will retry" in notes[0]
    assert told_after[0] <= TWO_POLLS_OF_STILLNESS


def test_a_signature_is_renewed_before_it_ends_while_its_batch_task_waits(
    batch, blobs, run, workload, submitted, watch_chunk, counted, azure_settings
):
    """Field reports 19 and 20: nothing waits longer than its signatures, neither a Batch task nor a node's start task."""
    chunk, job, containers = submitted([{"fault": "allocation_fails"}])
    first_end = chunk.signed_until_at

    def pass_hours():
        time.sleep(POLL_SECONDS)
        if clock.now() < first_end + timedelta(hours=1):
            clock.advance(timedelta(hours=5))
            azure_settings.batch.advance(timedelta(hours=5))
        elif azure_settings.faults.listing():
            azure_settings.faults.clear()
            azure_settings.batch.advance(timedelta(minutes=6))

    clock = MovableClock(pass_hours)
    finished = watch_chunk(chunk, job, containers, clock)

    assert isinstance(counted(finished, job, containers), StoredResult)
    assert finished.submitted.signed_until_at > first_end + timedelta(hours=12)


class TestSpot:
    """A pool of spot nodes."""

    @pytest.fixture
    def azure_settings(self, azure_of_one_test, monkeypatch):
        """Nodes take as long as real ones, by a clock that the test moves."""
        return use(azure_of_one_test(pace="real"), monkeypatch)

    @pytest.fixture
    def pool_options(self, pool_options):
        return pool_options.model_copy(update={"spot_nodes": 1})

    def test_where_a_spot_node_was_taken_away_a_dedicated_one_does_the_rest(
        self, batch, run, submitted, watch_chunk, counted, azure_settings
    ):
        """Field report 7: a preempted node stays in the pool, and the work goes on elsewhere."""
        azure_settings.faults.add("endless_task", task="*")
        chunk, job, containers = submitted()
        taken_away = set()

        def minutes_pass():
            time.sleep(POLL_SECONDS)
            azure_settings.batch.advance(timedelta(seconds=30))
            for node in batch.nodes(run.name):
                if node.node_id.endswith("_p") and node.state == "running":
                    azure_settings.faults.add("preempt_node", node=node.node_id)
                    taken_away.add(node.node_id)
                elif node.node_id.endswith("_d") and node.state == "running":
                    azure_settings.faults.clear()

        finished = watch_chunk(chunk, job, containers, MovableClock(minutes_pass))

        assert isinstance(counted(finished, job, containers), StoredResult)
        [outcome] = finished.outcomes.values()
        assert len(taken_away) == 1
        assert outcome.node_id.endswith("_d")
        assert outcome.requeue_count >= 1
