"""The `@step` decorator, and errors that fail only some files of a step.

Every step of a run is a Prefect task with the same retries.

A step that creates a resource is idempotent and never cached, because the resource of a cached result could be gone.
A step that depends on such a resource is cached by the name of the run, which changes with each cleanup, and by the
contents of its chunk.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import opaque as prefect_opaque

from tasks.errors import ServiceError, TopnError
from tasks.model.files import InputFile
from tasks.model.verdict import Category, FileError
from tasks.progress import notify
from tasks.redaction import describe_error, redact
from tasks.report.run_log import is_not_about_steps, is_unexpected
from tasks.report.timing import record_end
from tasks.text import printable
from tasks.workload.base import Workload

STEP_RETRIES = 3

for name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(name).addFilter(is_unexpected)
logging.getLogger("prefect.task_runs").addFilter(is_not_about_steps)

# Each request to a service that does not answer is retried for minutes.
MAX_UNANSWERED = 3

P = ParamSpec("P")
T = TypeVar("T")


def step(name: str, *, cached: bool = False, retries: int = STEP_RETRIES) -> Callable[[Callable[P, T]], Task[P, T]]:
    """Return a decorator that turns a function into a Prefect task with retries after transient errors.

    Args:
        name: Template for the names of the task runs, with the parameters of the function.
        cached: Whether to cache the result by the name of the run and the contents of the chunk. The function must have
            the parameters `run` and `chunk`.
        retries: Maximum number of retries.
    """
    caching: dict[str, Any] = (
        {"cache_key_fn": key_of_run_and_chunk} if cached else {"cache_policy": NO_CACHE, "persist_result": False}
    )

    return task(
        task_run_name=name,
        retries=retries,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        retry_condition_fn=failed_for_transient_reason,
        on_completion=[record_end],
        on_failure=[record_end],
        **caching,
    )


def opaque(value: T) -> T:
    """Stop Prefect from searching `value` for futures, which takes 1 s per 10,000 files.

    Prefect still waits for a future, or for a mapped list of futures.
    """
    return cast(T, prefect_opaque(value))


def log(message: str, level: int = logging.INFO) -> None:
    """Write a line to the run's log."""
    with suppress(MissingContextError):
        get_run_logger().log(level, redact(message))


def warn(message: str) -> None:
    """Show a warning on the terminal, and once in the run's log, even if each poll finds the same problem."""
    notify(message)
    _log_once(str(flow_run.id), message)


@lru_cache
def _log_once(flow_run_id: str, message: str) -> None:
    del flow_run_id
    log(message, logging.WARNING)


def is_last_attempt() -> bool:
    """Return whether the running step is not retried again; also outside of a step."""
    context = TaskRunContext.get()
    return context is None or context.task_run.run_count > context.task.retries


def failed_for_transient_reason(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether a retry can help."""
    del task, task_run
    error = state.result(raise_on_failure=False)
    return isinstance(error, ServiceError) and error.transient


def key_of_run_and_chunk(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Return a cache key for the step, the name of the run and the contents of the chunk."""
    parts = (context.task.task_key, parameters["run"].name, parameters["chunk"].key)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class PartialFailures:
    """The errors of single files in one run of a step.

    A transient error ends the step while Prefect still retries it. In the last attempt, it fails only its files.

    Attributes:
        errors: The errors by content key.
    """

    def __init__(self, participle: str, category: Category) -> None:
        """Create an empty collection.

        Args:
            participle: What the step does to a file, for example "staged".
            category: The category of the errors.
        """
        self.errors: dict[str, FileError] = {}
        self._participle = participle
        self._category = category
        self._unanswered: list[FileError] = []

    def attempt(self, files: Iterable[InputFile], action: Callable[[], T]) -> T | None:
        """Run a part of the step; if it fails, record the error of its files and return None.

        Raises:
            ServiceError: The error is transient, and the step will be retried.
        """
        if len(self._unanswered) >= MAX_UNANSWERED:
            failure = self._unanswered[-1]
        else:
            try:
                return action()
            except Exception as error:
                is_transient = isinstance(error, ServiceError) and error.transient
                if is_transient and not is_last_attempt():
                    raise
                failure = file_error(error, self._participle, self._category)
                if is_transient:
                    self._unanswered.append(failure)
        self.errors.update({file.content_key: failure for file in files})
        return None


def file_error(error: BaseException, participle: str, category: Category) -> FileError:
    """Return the error of the files of a failed step, and write the traceback of an unexpected error to the run's log."""
    if isinstance(error, TopnError):
        reason = redact(str(error)).rstrip(".")
    elif isinstance(error, OSError) and error.strerror:
        reason = printable(error.strerror)
    else:
        log_unexpected(error)
        reason = f"unexpected {redact(printable(repr(error)))}, see the log of the run"
    return FileError(category=category, message=f"It could not be {participle}: {reason}")


def log_unexpected(error: BaseException, message: str = "An unexpected error failed some files.") -> None:
    """Write an unexpected error to the run's log, with its traceback. Errors with equal tracebacks are written once per run."""
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = logging.getLogger(__name__)
    with suppress(MissingContextError):
        logger = get_run_logger()
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        key = (str(flow_run.id), type(error), *places)
        if key in _logged_errors:
            return
        _logged_errors.add(key)
    logger.error(message, exc_info=error)


def call_hook(workload: Workload, hook: Callable[P, T], default: T, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a method of the workload. If it raises an error, report that and return the default."""
    try:
        return hook(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - no error of a workload may cost more than what the method returns
        message = f"`{hook.__name__}` of the workload {workload.name} raised {describe_error(error)}."
        notify(message)
        log_unexpected(error, message)
        return default


# Flow run, type and traceback of each error that this process has logged.
_logged_errors: set[tuple[object, ...]] = set()


def result_or_error(future: PrefectFuture[T]) -> T | BaseException:
    """Return the result of a step or its error; also of a step that never started, because the step before failed."""
    try:
        result: T | BaseException = future.result(raise_on_failure=False)
    except Exception as error:  # noqa: BLE001 - Prefect raises it instead of returning it
        return error
    return result
