"""Faults that stay in force until the fault script changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from localbatch.account.specs import Json

_T = TypeVar("_T")


@dataclass(frozen=True)
class AllocationFailure:
    """The reason why a pool gets no nodes of one kind."""

    error: Json
    stalls: bool = False
    """Whether the resize continues without effect until its timeout."""


@dataclass(frozen=True)
class AutoscaleFailure:
    """The reason why the evaluations of a formula fail."""

    error: Json
    fire: Callable[[], bool]
    """Counts a failed evaluation; returns False if no more are to fail."""


@dataclass(frozen=True)
class StandingFaults:
    """The standing faults of a scheduler. The key "*" matches every pool or Batch task."""

    allocation_failures: Mapping[bool, dict[str, AllocationFailure]] = field(
        default_factory=lambda: {True: {}, False: {}}
    )
    """By whether nodes are dedicated, and by pool id."""
    autoscale_failures: dict[str, AutoscaleFailure] = field(default_factory=dict)
    """By pool id."""
    start_task_exit_codes: dict[str, int] = field(default_factory=dict)
    """Exit codes of start tasks, which then do not run. By pool id."""
    endless_tasks: set[str] = field(default_factory=set)
    """Ids of Batch tasks that never end by themselves."""
    failing_uploads: dict[str, str] = field(default_factory=dict)
    """Error codes of uploads, by id of the Batch task."""

    def clear(self) -> None:
        """Remove all faults."""
        faults: tuple[dict[str, Any] | set[str], ...] = (
            *self.allocation_failures.values(),
            self.autoscale_failures,
            self.start_task_exit_codes,
            self.endless_tasks,
            self.failing_uploads,
        )
        for each in faults:
            each.clear()


def error_of(code: str, message: str, values: Mapping[str, str]) -> Json:
    """Return an error of a resize or an autoscale run, as clients see it."""
    pairs = [{"name": name, "value": value} for name, value in values.items()]
    return {"code": code, "message": message} | ({"values": pairs} if pairs else {})


def matching(faults: dict[str, _T], name: str) -> _T | None:
    """Return the fault of a pool or Batch task."""
    return faults.get(name, faults.get("*"))
