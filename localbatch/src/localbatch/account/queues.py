"""Indexes and queues of records, so that frequent questions are cheap.

The code that changes records also updates these; they make no decisions.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar


class Identified(Protocol):
    """A record with an id."""

    id: str


class Waiting(Identified, Protocol):
    """A Batch task, as the queues see it: `key` ends in its key within its job."""

    key: tuple[str, str]
    slots: int
    is_exclusive: bool
    position: int
    unmet: int


_T = TypeVar("_T")
_Node = TypeVar("_Node", bound=Identified)
_Task = TypeVar("_Task", bound=Waiting)

# Stands for all slots of a node.
EXCLUSIVE = 1 << 20


class SortedRecords(dict[str, _T]):
    """Records by key, with iteration in the order of the keys from any key."""

    def __init__(self) -> None:
        super().__init__()
        self._order: list[str] = []
        self._new: list[str] = []

    def __setitem__(self, key: str, record: _T) -> None:
        if key not in self:
            self._new.append(key)
        super().__setitem__(key, record)

    def after(self, key: str) -> Iterator[tuple[str, _T]]:
        """Yield the keys and records after a key. Records that were removed meanwhile are left out."""
        if self._new or len(self._order) > 2 * len(self):
            # Sorting merges two sorted runs in linear time. A key that was removed and added again is there twice.
            self._order += sorted(self._new)
            self._order.sort()
            self._order = [k for k, before in zip(self._order, ["", *self._order], strict=False) if k != before]
            self._order = [k for k in self._order if k in self]
            self._new = []
        for index in range(bisect.bisect_right(self._order, key), len(self._order)):
            record = self.get(self._order[index])
            if record is not None:
                yield self._order[index], record


class TaskQueue(Generic[_Task]):
    """Batch tasks in the order in which they start, in one queue per number of slots they need."""

    def __init__(self) -> None:
        self._by_slots: defaultdict[int, OrderedDict[str, _Task]] = defaultdict(OrderedDict)
        self._first = self._last = 0

    def __len__(self) -> int:
        return sum(map(len, self._by_slots.values()))

    def __bool__(self) -> bool:
        return any(self._by_slots.values())

    def __contains__(self, task: _Task) -> bool:
        return task.key[1] in self._by_slots.get(_need(task), ())

    def push(self, task: _Task, *, first: bool = False) -> None:
        """Add a Batch task at the end or at the front."""
        if first:
            self._first -= 1
            task.position = self._first
        else:
            self._last += 1
            task.position = self._last
        queue = self._by_slots[_need(task)]
        queue[task.key[1]] = task
        if first:
            queue.move_to_end(task.key[1], last=False)

    def discard(self, task: _Task) -> None:
        """Remove a Batch task, if it is there."""
        self._by_slots[_need(task)].pop(task.key[1], None)

    def head(self, below: int) -> _Task | None:
        """Return the first Batch task that needs fewer slots than `below`."""
        # There are few different numbers of slots, so that this is fast for any number of Batch tasks.
        heads = [next(iter(queue.values())) for need, queue in self._by_slots.items() if queue and need < below]
        return min(heads, key=lambda task: task.position, default=None)


def _need(task: Waiting) -> int:
    return EXCLUSIVE if task.is_exclusive else task.slots


class FreeNodes(Generic[_Node]):
    """The nodes of a pool that have free slots, by the number of free slots."""

    def __init__(self) -> None:
        self._by_slots: defaultdict[int, dict[str, _Node]] = defaultdict(dict)
        self._places: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def update(self, node: _Node, free: int) -> bool:
        """Set the number of free slots of a node. Return whether it has more than before."""
        before = self._places.pop(node.id, 0)
        if before:
            del self._by_slots[before][node.id]
        if free > 0:
            self._places[node.id] = free
            self._by_slots[free][node.id] = node
        return free > before

    def candidates(self, need: int, *, fullest: bool) -> Iterator[_Node]:
        """Yield the nodes with enough free slots, the fullest or the emptiest first."""
        # `pack` fills nodes, `spread` (the default) prefers empty ones.
        for free in sorted(self._by_slots, reverse=not fullest):
            if free >= need:
                yield from self._by_slots[free].values()


class Dependencies(Generic[_Task]):
    """The dependencies among the Batch tasks of a job.

    A dependency on a range is a dependency on each number in it. The first Batch task whose id is that number satisfies it.
    """

    def __init__(self) -> None:
        self._satisfied: set[str] = set()
        self._satisfied_numbers: set[int] = set()
        self._waiting: defaultdict[str, list[_Task]] = defaultdict(list)
        self._waiting_ranges: list[tuple[int, int, _Task]] = []

    def add(self, task: _Task, depends: Mapping[str, Any]) -> None:
        """Set `unmet` of a new Batch task to the number of its dependencies; `depends` is its property dependsOn."""
        for key in {task_id.lower() for task_id in depends.get("taskIds") or ()} - self._satisfied:
            self._waiting[key].append(task)
            task.unmet += 1
        for each in depends.get("taskIdRanges") or ():
            start, end = int(each["start"]), int(each["end"])
            # A range of a million ids is one entry, with a count of those that are missing.
            met = sum(start <= number <= end for number in self._satisfied_numbers)
            if met < end - start + 1:
                self._waiting_ranges.append((start, end, task))
                task.unmet += end - start + 1 - met

    def satisfy(self, task: _Task) -> list[_Task]:
        """Satisfy the dependencies on a Batch task, and return the Batch tasks that have none left."""
        key = task.key[1]
        if key in self._satisfied:
            return []
        self._satisfied.add(key)
        touched = self._waiting.pop(key, [])
        number = number_of(task.id)
        if number is not None and number not in self._satisfied_numbers:
            self._satisfied_numbers.add(number)
            touched += [waiting for start, end, waiting in self._waiting_ranges if start <= number <= end]
        for waiting in touched:
            waiting.unmet -= 1
        ready = [waiting for waiting in touched if not waiting.unmet]
        if ready and self._waiting_ranges:
            self._waiting_ranges = [each for each in self._waiting_ranges if each[2].unmet]
        return ready


def number_of(task_id: str) -> int | None:
    """Return the number of an id in task id ranges, where 4, 04 and 004 are the same."""
    digits = task_id.removeprefix("-")
    return int(task_id) if digits.isascii() and digits.isdigit() else None
