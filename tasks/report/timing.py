"""When each step of a run was at work in this process."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_logger

from tasks.report.model import StepTime


@dataclass(frozen=True, kw_only=True)
class EndedTaskRun:
    """When a task run was at work, and for which step."""

    step: str
    flow_run_id: UUID | None
    started_at: datetime
    ended_at: datetime


# Task runs that ended in this process; the command line waits until a server of its own has written them down.
ended_task_runs: dict[UUID, EndedTaskRun] = {}


def record_end(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """Remember a task run that ended; its step is called what the names of its task runs begin with."""
    ended_task_runs[task_run.id] = EndedTaskRun(
        step=str(task.task_run_name).partition("{")[0].strip(),
        flow_run_id=task_run.flow_run_id,
        started_at=task_run.start_time or state.timestamp,
        ended_at=state.timestamp,
    )


def _is_not_about_record_end(record: logging.LogRecord) -> bool:
    """Drop the two messages per task run in which Prefect reports that it calls `record_end`."""
    message = record.getMessage()
    return not (message.startswith(("Running hook", "Hook ")) and repr(record_end.__name__) in message)


get_logger("prefect.task_runs").addFilter(_is_not_about_record_end)


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
