"""The Azure usage of a run, computed from few requests."""

from __future__ import annotations

from datetime import timedelta

import pytest
from run_reports import at

from tasks.azure.values import NodeAllocation
from tasks.errors import ServiceError
from tasks.model.chunks import Chunk, FinishedChunk, StagedChunk
from tasks.model.run import BatchJob
from tasks.model.verdict import BatchTaskOutcome
from tasks.report.usage import MAX_CHANGES, UsageMeter, covered_seconds, running_since


class MovableClock:
    def __init__(self):
        self.instant = at(0)

    def now(self):
        return self.instant

    def sleep(self, seconds):
        self.instant += timedelta(seconds=seconds)


class Nodes:
    """A Batch account that only lists nodes, and counts the listings."""

    def __init__(self, *lives):
        self.lives = list(lives)
        self.listings = 0

    def list_node_allocations(self, pool_id):
        self.listings += 1
        if not self.lives:
            raise ServiceError("no answer", service="Batch", operation="list", transient=True)
        return self.lives


def life(node_id, allocated, *, dedicated=True, preempted=False):
    return NodeAllocation(node_id=node_id, allocated_at=at(allocated), is_dedicated=dedicated, is_preempted=preempted)


def finished(*outcomes):
    chunk = Chunk(first=1, total=1, packs=())
    submitted = StagedChunk(chunk=chunk, staged=(), failures={})
    return FinishedChunk(submitted=submitted, outcomes={outcome.task_id: outcome for outcome in outcomes})


def outcome(task_id, start, end, node_id="n1", retries=0, requeues=0):
    return BatchTaskOutcome(
        task_id=task_id,
        state="completed",
        started_at=at(start),
        ended_at=at(end),
        node_id=node_id,
        retry_count=retries,
        requeue_count=requeues,
    )


@pytest.fixture
def clock():
    return MovableClock()


@pytest.fixture
def meter(run, clock):
    def make(account, pool_id=None):
        job = BatchJob(job_id=run.name, pool_id=pool_id or run.name, files_variable="D")
        return UsageMeter(account, run, job, clock)

    return make


def test_node_time_spans_allocation_to_last_sighting(meter, clock):
    account = Nodes(life("n1", -30), life("n2", 10), life("spot", 20, dedicated=False))
    measured = meter(account)
    clock.instant = at(60)
    measured.add(finished(outcome("a", 40, 55), outcome("b", 45, 50, retries=1)))
    measured.list_nodes()
    account.lives = [life("n2", 10), life("spot", 20, dedicated=False, preempted=True)]
    measured.add(finished(outcome("c", 55, 58, node_id="n3", requeues=2)))
    clock.instant = at(100)
    usage = measured.usage()

    # n1 was last seen at 60 and n2 at 100. n3 was never listed and is known only from its Batch task.
    assert usage.node_seconds == 90 + 90 + 3
    assert usage.spot_node_seconds == 40
    assert (usage.nodes, usage.preemptions) == (4, 1)
    assert (usage.batch_tasks, usage.retries, usage.requeues) == (3, 1, 2)
    assert usage.task_seconds == 15 + 5 + 3


def test_each_preemption_and_all_node_time_counts(meter, clock):
    """A preempted node comes back with the same id and a new allocation time, seen while it was away or not."""
    account = Nodes(life("spot", 0, dedicated=False))
    measured = meter(account)
    for seconds, found in [
        (100, life("spot", 0, dedicated=False)),
        (200, life("spot", 0, dedicated=False, preempted=True)),
        (300, life("spot", 0, dedicated=False, preempted=True)),
        (400, life("spot", 350, dedicated=False)),
        (500, life("spot", 450, dedicated=False)),
        (600, life("spot", 450, dedicated=False, preempted=True)),
    ]:
        clock.instant = at(seconds)
        account.lives = [found]
        measured.list_nodes()
    usage = measured.usage()
    assert usage.preemptions == 3
    assert usage.spot_node_seconds == 100 + (400 - 350) + (500 - 450)


def test_idle_time_excludes_running_batch_tasks(meter, clock):
    measured = meter(Nodes(life("n1", 0)))
    measured.add(finished(outcome("a", -10, 5), outcome("b", 20, 40), outcome("c", 30, 50)))
    clock.instant = at(100)
    usage = measured.usage()
    assert (usage.waited_seconds, usage.idle_seconds) == (100, 100 - 5 - 30)
    assert usage.running == ((at(-10), 1), (at(5), 0), (at(20), 1), (at(30), 2), (at(40), 1), (at(50), 0))


def test_nodes_are_listed_once_per_minute(meter, clock):
    account = Nodes(life("n1", 0))
    measured = meter(account)
    for number in range(1000):
        clock.instant = at(number * 0.3)
        measured.list_nodes()
    measured.usage()
    assert account.listings == 5 + 1


def test_unlistable_nodes_are_known_by_batch_tasks(meter, clock):
    measured = meter(Nodes())
    measured.add(finished(outcome("a", 10, 30)))
    assert measured.usage().node_seconds == 20


def test_nodes_of_existing_pool_are_not_billed(meter):
    account = Nodes(life("n1", -100_000))
    measured = meter(account, pool_id="mine")
    measured.add(finished(outcome("a", 10, 30)))
    usage = measured.usage()
    assert (usage.node_seconds, usage.spot_node_seconds, account.listings) == (None, None, 0)


def test_covered_time_counts_overlaps_once():
    assert covered_seconds([(at(0), at(10)), (at(5), at(20)), (at(30), at(40))], at(2), at(35)) == 18 + 5
    assert covered_seconds([], at(0), at(10)) == 0


def test_many_changes_are_thinned_out():
    counts = running_since([(at(number), at(number + 100)) for number in range(20_000)])
    assert MAX_CHANGES / 2 < len(counts) <= MAX_CHANGES
    assert {count for _, count in counts[5:-5]} == {100}
    assert counts[-1] == (at(20_099), 0)
