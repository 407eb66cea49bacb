"""The agenda of a tick: the records that changed, and the records that are due. A tick looks at no others."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta

from localbatch.account.records import Job, JobSchedule, Pool, Run, Stated
from localbatch.account.states import Table
from localbatch.account.store import Store


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The durations of transitional states, in seconds."""

    allocating: float = 0.0
    creating: float = 0.0
    starting: float = 0.0
    rebooting: float = 0.0
    """Also of reimaging and deallocating."""
    leaving: float = 0.0
    deleting: float = 0.0
    job: float = 0.0
    """Disabling, terminating and deleting a job."""
    preempted: float = 1.0
    """Until a preempted node is created again."""
    first_sample: float = 0.0
    """From enabling autoscale until the first samples of metrics, such as $PendingTasks."""


# The durations of `real`: 10 s of creating and 35 s of starting were measured on the service, which disabled and terminated
# jobs without Batch tasks in less than a second; the others are estimates.
# Autoscale has no samples at first (https://github.com/Azure/batch-shipyard/issues/138).
PACES = {
    "instant": Pace(),
    "fast": Pace(
        allocating=0.1, creating=0.1, starting=0.1, rebooting=0.2, leaving=0.1, deleting=0.1, job=0.1, preempted=2.0
    ),
    "real": Pace(
        allocating=20.0,
        creating=10.0,
        starting=35.0,
        rebooting=60.0,
        leaving=20.0,
        deleting=20.0,
        job=1.0,
        preempted=120.0,
        first_sample=60.0,
    ),
}


class Agenda:
    """The instants at which records are due, and the methods that change the state of a record."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self.pace = pace
        self._store = store
        self._heap: list[tuple[datetime, int, Stated | Run]] = []
        self._planned: dict[int, datetime] = {}
        """By `id()` of the record. An entry of the heap with another instant is obsolete."""
        self._numbers = itertools.count()

    def pop_due(self, now: datetime) -> list[Stated | Run]:
        """Remove and return the records that changed or are due, each once."""
        store = self._store
        # dict preserves the order of changes, which makes ticks reproducible.
        taken: dict[int, Stated | Run] = dict(store.changed)
        store.changed = {}
        while self._heap and self._heap[0][0] <= now:
            at, _, record = heapq.heappop(self._heap)
            if self._planned.get(id(record)) == at:
                del self._planned[id(record)]
                taken[id(record)] = record
        return list(taken.values())

    def next_due(self) -> datetime | None:
        """Return the earliest instant at which a record is due."""
        while self._heap and self._planned.get(id(self._heap[0][2])) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def is_due(self, record: Stated | Run, at: datetime, now: datetime) -> bool:
        """Whether `at` has passed. If it has not, plan to review the record at that instant."""
        if at <= now:
            return True
        planned = self._planned.get(id(record))
        if planned is None or at < planned:
            self._planned[id(record)] = at
            heapq.heappush(self._heap, (at, next(self._numbers), record))
        return False

    def has_lasted(self, record: Stated, seconds: float, now: datetime, *, since: datetime | None = None) -> bool:
        """Whether a record has been in its state for some seconds. If not, plan to review it then."""
        return self.is_due(record, (since or record.state_at) + timedelta(seconds=seconds), now)

    def forget(self, record: Stated | Run) -> None:
        """Cancel the planned review of a record."""
        self._planned.pop(id(record), None)

    def move(self, record: Stated, table: Table, event: str, now: datetime) -> None:
        """Apply an event to a record, and review the record in the next tick.

        Raises:
            IllegalTransition: The state does not allow the event.
        """
        record.move(table, event, now)
        self._store.mark(record)

    def touch(self, record: Pool | Job | JobSchedule, now: datetime) -> None:
        """Set a new etag and modification time on a changed record."""
        record.etag, record.modified_at = self._store.new_etag(), now
        self._store.mark(record)
