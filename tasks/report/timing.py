"""The times of the steps that ran in this process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from tasks.model.chunks import MERGE
from tasks.report.model import StepTime


@dataclass(frozen=True, kw_only=True)
class FinishedTaskRun:
    """The step, start and end of a task run that has ended."""

    step: str
    flow_run_id: UUID | None
    started_at: datetime
    ended_at: datetime


# Task runs that ended in this process. The command line waits until its own Prefect server has stored them.
finished_task_runs: dict[UUID, FinishedTaskRun] = {}


def record_end(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """Record a task run that ended; the name of its step is the fixed first part of the task run name.

    The steps of merges have one name, because they run after the same steps of files.
    """
    is_merge = f" {MERGE}" in task_run.name
    finished_task_runs[task_run.id] = FinishedTaskRun(
        step=MERGE.strip() if is_merge else str(task.task_run_name).partition("{")[0].strip(),
        flow_run_id=task_run.flow_run_id,
        started_at=task_run.start_time or state.timestamp,
        ended_at=state.timestamp,
    )


def step_times(flow_run_id: UUID) -> tuple[StepTime, ...]:
    """Return the times of the steps of a flow run in this process, in order of their starts."""
    by_step: dict[str, list[FinishedTaskRun]] = {}
    for ended in list(finished_task_runs.values()):
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
