"""How every step is a Prefect task: retried when it failed for a passing reason, cached where that is safe.

A step that makes a resource is idempotent and never cached: its cached result could stand for something that is gone.
A step that rests on such a resource is cached under the run's name, which changes with each cleanup, and under the
contents it works on; two steps never share a key.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.logging import get_logger
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import opaque

from tasks.errors import ServiceError
from tasks.run_report import StepTime

STEP_RETRIES = 3

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EndedTaskRun:
    """When a task run was at work, and for which step."""

    step: str
    flow_run_id: UUID | None
    started_at: datetime
    ended_at: datetime


# Task runs that ended in this process; the command line waits until a server of its own has written them down.
ended_task_runs: dict[UUID, EndedTaskRun] = {}


def unsearched(value: T) -> T:
    """Pass a value to a step without Prefect's looking for futures in it, which takes a second for 10,000 files.

    A future, or a list of them that is mapped, is waited for all the same.
    """
    return cast(T, opaque(value))


def failed_for_a_passing_reason(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Decide whether a Prefect retry can help."""
    del task, task_run
    error = state.result(raise_on_failure=False)
    return isinstance(error, ServiceError) and error.transient


def note_end(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """Remember a task run that ended; its step is called what the names of its task runs begin with."""
    ended_task_runs[task_run.id] = EndedTaskRun(
        step=str(task.task_run_name).partition("{")[0].strip(),
        flow_run_id=task_run.flow_run_id,
        started_at=task_run.start_time or state.timestamp,
        ended_at=state.timestamp,
    )


def _is_worth_reading(record: logging.LogRecord) -> bool:
    """Leave out that Prefect calls `note_end`, which it says twice for each task run."""
    message = record.getMessage()
    return not (message.startswith(("Running hook", "Hook ")) and repr(note_end.__name__) in message)


get_logger("prefect.task_runs").addFilter(_is_worth_reading)


def step_times(flow_run_id: UUID) -> tuple[StepTime, ...]:
    """Say when each step of a flow run was at work in this process, in the order of their starts."""
    by_step: dict[str, list[EndedTaskRun]] = {}
    for ended in list(ended_task_runs.values()):
        if ended.flow_run_id == flow_run_id:
            by_step.setdefault(ended.step, []).append(ended)
    times = [
        StepTime(
            step=step,
            task_runs=len(ended),
            started_at=min(run.started_at for run in ended),
            ended_at=max(run.ended_at for run in ended),
        )
        for step, ended in by_step.items()
    ]
    return tuple(sorted(times, key=lambda time: time.started_at))


def key_of_run_and_chunk(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Key a step's result by the step, the run's name and the contents of the chunk."""
    parts = (context.task.task_key, parameters["run"].name, parameters["chunk"].key)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_RETRIED: dict[str, Any] = {
    "retries": STEP_RETRIES,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": failed_for_a_passing_reason,
    "on_completion": [note_end],
    "on_failure": [note_end],
}

STEP = _RETRIED | {"cache_policy": NO_CACHE, "persist_result": False}
CACHED_STEP = _RETRIED | {"cache_key_fn": key_of_run_and_chunk}
