"""How every step is a Prefect task: retried when it failed for a passing reason, cached where that is safe.

A step that makes a resource is idempotent and never cached: its cached result could stand for something that is gone.
A step that rests on such a resource is cached under the run's name, which changes with each cleanup, and under the
contents it works on; two steps never share a key.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar, cast

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.logging import get_logger
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import opaque

from tasks.errors import ServiceError
from tasks.report.timing import _is_worth_reading, note_end

STEP_RETRIES = 3

T = TypeVar("T")


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


get_logger("prefect.task_runs").addFilter(_is_worth_reading)


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
