"""Waits of hours and days on the clock of the service."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from tests_support import MAX_IDLE_POLLS, POLL_SECONDS, MovableClock, wait_until

from tasks.model.verdict import StoredResult


@pytest.fixture
def azure_settings(azure_of_one_test, monkeypatch):
    """A separate Batch account, whose clock the test advances."""
    return use(azure_of_one_test(), monkeypatch)


def use(azure, monkeypatch):
    for variable, value in azure.environment.items():
        monkeypatch.setenv(variable, value)
    return azure


@pytest.fixture
def azure_faults(azure_settings):
    return azure_settings.faults


def test_missing_capacity_is_reported_within_two_polls(
    batch, run, submitted, watch_chunk, counted, notes, azure_settings
):
    """Field report 10: the service retries an allocation that failed for lack of capacity, and the run continues."""
    chunk, job, containers = submitted([{"fault": "allocation_fails", "code": "AllocationFailed"}])
    wait_until(lambda: batch.get_pool(run.name).resize_problems, "the resize to fail")
    reported_after = []

    def recover_after_note():
        time.sleep(POLL_SECONDS)
        if notes and not reported_after:
            reported_after.append(clock.sleeps)
            azure_settings.faults.clear()
            azure_settings.batch.advance(timedelta(minutes=6))

    clock = MovableClock(recover_after_note)
    finished = watch_chunk(chunk, job, containers, clock)

    assert isinstance(counted(finished, job, containers), StoredResult)
    assert "[AllocationFailed]; Batch will retry" in notes[0]
    assert reported_after[0] <= MAX_IDLE_POLLS


def test_signature_of_waiting_batch_task_is_renewed(
    batch, blobs, run, workload, submitted, watch_chunk, counted, azure_settings
):
    """Field reports 19 and 20: no Batch task or start task outlives its signatures while it waits."""
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
        """A separate Batch account at real pace, whose clock the test advances."""
        return use(azure_of_one_test(pace="real"), monkeypatch)

    @pytest.fixture
    def pool_options(self, pool_options):
        return pool_options.model_copy(update={"spot_nodes": 1})

    def test_dedicated_node_replaces_preempted_spot_node(
        self, batch, run, submitted, watch_chunk, counted, azure_settings
    ):
        """Field report 7: the preempted node stays in the pool, and a dedicated node runs the Batch task."""
        azure_settings.faults.add("endless_task", task="*")
        chunk, job, containers = submitted()
        preempted = set()

        def advance_clock():
            time.sleep(POLL_SECONDS)
            nodes = batch.list_nodes(run.name)
            # The start task is a real process. On a busy machine, its signatures would expire before it has run.
            if not any(node.state == "waitingforstarttask" for node in nodes):
                azure_settings.batch.advance(timedelta(seconds=30))
            for node in nodes:
                if node.node_id.endswith("_p") and node.state == "running":
                    azure_settings.faults.add("preempt_node", node=node.node_id)
                    preempted.add(node.node_id)
                elif node.node_id.endswith("_d") and node.state == "running":
                    azure_settings.faults.clear()

        finished = watch_chunk(chunk, job, containers, MovableClock(advance_clock))

        assert isinstance(counted(finished, job, containers), StoredResult)
        [outcome] = finished.outcomes.values()
        assert len(preempted) == 1
        assert outcome.node_id.endswith("_d")
        assert outcome.requeue_count >= 1
