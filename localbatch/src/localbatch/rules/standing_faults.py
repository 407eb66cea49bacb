"""Faults that stay in force until the fault script changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class AllocationFailure:
    """The reason why a pool gets no nodes."""

    code: str
    message: str
    stalls: bool = False
    """Whether the resize continues without effect until its timeout."""


@dataclass(frozen=True)
class StandingFaults:
    """The standing faults of a scheduler. The key "*" matches every pool or Batch task."""

    allocation_failures: dict[str, AllocationFailure] = field(default_factory=dict)
    """By pool id."""
    start_task_exit_codes: dict[str, int] = field(default_factory=dict)
    """Exit codes of start tasks, which then do not run. By pool id."""
    endless_tasks: set[str] = field(default_factory=set)
    """Ids of Batch tasks that never end by themselves."""
    failing_uploads: dict[str, str] = field(default_factory=dict)
    """Error codes of uploads, by id of the Batch task."""

    def clear(self) -> None:
        """Remove all faults."""
        for each in (self.allocation_failures, self.start_task_exit_codes, self.endless_tasks, self.failing_uploads):
            each.clear()


def matching(faults: dict[str, _T], name: str) -> _T | None:
    """Return the fault of a pool or Batch task."""
    return faults.get(name, faults.get("*"))
