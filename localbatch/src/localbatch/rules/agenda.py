"""What a tick has to look at: records that changed, and records that are due; nothing else costs it anything."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta

from localbatch.account import states
from localbatch.account.records import Job, Pool, Run, Stated
from localbatch.account.store import Store


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long transitional states last, in seconds."""

    allocating: float = 0.0
    creating: float = 0.0
    starting: float = 0.0
    rebooting: float = 0.0
    """And reimaging, and deallocating."""
    leaving: float = 0.0
    deleting: float = 0.0
    job: float = 0.0
    """Disabling, enabling, terminating and deleting a job."""
    preempted: float = 1.0
    """Until a node that was preempted is created again."""


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
        job=5.0,
        preempted=120.0,
    ),
}
"""Source of `real`: 10 s creating and 35 s starting were recorded on the service; the others are of that order."""


class Agenda:
    """The instants at which records are due, and the one way to move a record."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace
        self._heap: list[tuple[datetime, int, Stated | Run]] = []
        self._planned: dict[int, datetime] = {}
        """By identity of the record; an entry of the heap that does not stand here any more means nothing."""
        self._numbers = itertools.count()

    def _take_due(self, now: datetime) -> list[Stated | Run]:
        """Return what has changed or is due, each once."""
        store = self._store
        taken: dict[int, Stated | Run] = dict(store.changed)
        store.changed = {}
        while self._heap and self._heap[0][0] <= now:
            at, _, record = heapq.heappop(self._heap)
            if self._planned.get(id(record)) == at:
                del self._planned[id(record)]
                taken[id(record)] = record
        return list(taken.values())

    def _next_due(self) -> datetime | None:
        while self._heap and self._planned.get(id(self._heap[0][2])) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _is_due(self, record: Stated | Run, at: datetime, now: datetime) -> bool:
        """Whether an instant has come; if it has not, the record is looked at again then."""
        if at <= now:
            return True
        planned = self._planned.get(id(record))
        if planned is None or at < planned:
            self._planned[id(record)] = at
            heapq.heappush(self._heap, (at, next(self._numbers), record))
        return False

    def _forget(self, record: Stated | Run) -> None:
        self._planned.pop(id(record), None)

    def _has_lasted(self, record: Stated, seconds: float, now: datetime, *, since: datetime | None = None) -> bool:
        return self._is_due(record, (since or record.state_at) + timedelta(seconds=seconds), now)

    def _move(self, record: Stated, table: states.Table, event: str, now: datetime) -> None:
        record.move(table, event, now)
        self._store.mark(record)

    def touch(self, record: Pool | Job, now: datetime) -> None:
        """Give a changed record its new etag."""
        record.etag, record.modified_at = self._store.new_etag(), now
        self._store.mark(record)
