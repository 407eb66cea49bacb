"""Measure what a run uses on Azure: Batch tasks, nodes and their time.

The number of requests does not depend on the number of files. Monitoring lists the completed Batch tasks anyway, and
the response contains their times. Nodes are listed at most once a minute while the run waits, and once at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from tasks.azure.accounts import batch_account
from tasks.azure.batch import BatchAccount
from tasks.azure.block import configured_azure
from tasks.azure.values import NodeAllocation
from tasks.clock import SYSTEM_CLOCK, Clock
from tasks.errors import ServiceError
from tasks.model.chunks import FinishedChunk
from tasks.model.run import BatchJob, Run
from tasks.report.model import Price, Usage
from tasks.report.price import price_of

LISTING_INTERVAL = timedelta(minutes=1)

# The width of the chart cannot show more changes.
MAX_CHANGES = 300

Interval = tuple[datetime, datetime]


@dataclass
class _Node:
    """What is known about a node: its times before the last preemption, and since then."""

    allocated_at: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    is_dedicated: bool = True
    is_preempted: bool = False
    preemptions: int = 0
    earlier_seconds: float = 0.0

    def add_span(self, since: datetime, until: datetime) -> None:
        self.since = min(self.since or since, since)
        self.until = max(self.until or until, until)

    def add_listing(self, found: NodeAllocation, listed_at: datetime) -> None:
        """Add what a listing says. A preempted node can come back, with the same id."""
        self.is_dedicated = found.is_dedicated
        was_replaced = bool(self.allocated_at and found.allocated_at and found.allocated_at > self.allocated_at)
        if found.is_preempted or was_replaced:
            self.preemptions += not self.is_preempted
            self.earlier_seconds, self.since, self.until = self.seconds, None, None
        if not found.is_preempted:
            # The allocation time of a node that came back can be that before the preemption.
            has_new_time = was_replaced or not self.preemptions
            self.add_span((found.allocated_at if has_new_time else None) or listed_at, listed_at)
        self.allocated_at = found.allocated_at or self.allocated_at
        self.is_preempted = found.is_preempted

    @property
    def seconds(self) -> float:
        last = max(0.0, (self.until - self.since).total_seconds()) if self.since and self.until else 0.0
        return self.earlier_seconds + last


class UsageMeter:
    """Measures what a run uses while it waits for its Batch tasks."""

    def __init__(self, account: BatchAccount, run: Run, job: BatchJob, clock: Clock = SYSTEM_CLOCK) -> None:
        self._account = account
        self._pool_id = job.pool_id
        self._own_pool = job.pool_id == run.name
        self._clock = clock
        self._started_at = clock.now()
        self._listed_at: datetime | None = None
        self._nodes: dict[str, _Node] = {}
        self._intervals: list[Interval] = []
        self._batch_tasks = self._retries = self._requeues = 0

    def add(self, finished: FinishedChunk) -> None:
        """Add the outcomes of a chunk's Batch tasks."""
        for outcome in finished.outcomes.values():
            self._batch_tasks += 1
            self._retries += outcome.retry_count
            self._requeues += outcome.requeue_count
            if outcome.started_at is None or outcome.ended_at is None:
                continue
            self._intervals.append((outcome.started_at, outcome.ended_at))
            if outcome.node_id:
                self._nodes.setdefault(outcome.node_id, _Node()).add_span(outcome.started_at, outcome.ended_at)

    def usage(self) -> Usage:
        """List the nodes once more, and return the usage so far."""
        self.list_nodes(timedelta(0))
        ended_at = self._clock.now()
        waited_seconds = (ended_at - self._started_at).total_seconds()
        nodes = self._nodes.values()
        return Usage(
            batch_tasks=self._batch_tasks,
            retries=self._retries,
            requeues=self._requeues,
            running=running_since(self._intervals),
            task_seconds=sum((end - start).total_seconds() for start, end in self._intervals),
            waited_seconds=waited_seconds,
            idle_seconds=max(0.0, waited_seconds - covered_seconds(self._intervals, self._started_at, ended_at)),
            nodes=len(nodes),
            preemptions=sum(node.preemptions for node in nodes),
            node_seconds=sum(node.seconds for node in nodes if node.is_dedicated) if self._own_pool else None,
            spot_node_seconds=sum(node.seconds for node in nodes if not node.is_dedicated) if self._own_pool else None,
        )

    def list_nodes(self, interval: timedelta = LISTING_INTERVAL) -> None:
        """List the nodes of the run's own pool, at most once per interval. Errors of the service are ignored."""
        now = self._clock.now()
        if not self._own_pool or (self._listed_at is not None and now - self._listed_at < interval):
            return
        self._listed_at = now
        try:
            lives = self._account.list_node_allocations(self._pool_id)
        except ServiceError:
            return
        for life in lives:
            node = self._nodes.setdefault(life.node_id, _Node())
            node.add_listing(life, self._listed_at)


def usage_meter(run: Run, job: BatchJob) -> UsageMeter:
    """Start to measure what a run uses on the configured Batch account."""
    return UsageMeter(batch_account(), run, job)


def node_price(vm_size: str, usd_per_node_hour: float | None) -> Price:
    """Return the price of a dedicated node: `usd_per_node_hour`, or the list price of the VM size if it is known."""
    return price_of(vm_size, usd_per_node_hour, configured_azure())


def covered_seconds(intervals: Iterable[Interval], since: datetime, until: datetime) -> float:
    """Return how many seconds between `since` and `until` at least one interval covers."""
    covered = timedelta(0)
    covered_until = since
    for start, end in sorted(intervals):
        first, last = max(start, covered_until), min(end, until)
        if last > first:
            covered += last - first
            covered_until = last
    return covered.total_seconds()


def running_since(intervals: Sequence[Interval]) -> tuple[tuple[datetime, int], ...]:
    """Return how many intervals are open from each time on; keep at most `MAX_CHANGES`, evenly spaced."""
    changes = sorted([(start, 1) for start, _ in intervals] + [(end, -1) for _, end in intervals])
    running = 0
    counts: list[tuple[datetime, int]] = []
    for instant, steps in groupby(changes, key=lambda change: change[0]):
        running += sum(step for _, step in steps)
        counts.append((instant, running))
    if len(counts) <= MAX_CHANGES:
        return tuple(counts)
    first, last = counts[0][0], counts[-1][0]
    spacing = (last - first) / (MAX_CHANGES - 1)
    kept: dict[int, tuple[datetime, int]] = {}
    for instant, count in counts:
        # The last change in a stretch is the count at its end.
        kept[int((instant - first) / spacing)] = (instant, count)
    return tuple(kept.values())
