"""Errors that fail some files of a step, and not the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from prefect.exceptions import MissingContextError
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from tasks.errors import ServiceError, TopnError
from tasks.model.files import InputFile
from tasks.model.verdict import Category, FileError
from tasks.redaction import redact
from tasks.steps.step import is_last_attempt
from tasks.text import printable

# Each request to a service that does not answer is retried for minutes.
MAX_UNANSWERED = 3

T = TypeVar("T")


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


def log_unexpected(error: BaseException) -> None:
    """Write an error that no code expects to the run's log, with its traceback."""
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = logging.getLogger(__name__)
    with suppress(MissingContextError):
        logger = get_run_logger()
    logger.error("An unexpected error failed some files.", exc_info=error)


def result_or_error(future: PrefectFuture[T]) -> T | BaseException:
    """Return the result of a step or its error; also of a step that never started, because the step before failed."""
    try:
        result: T | BaseException = future.result(raise_on_failure=False)
    except Exception as error:  # noqa: BLE001 - Prefect raises it instead of returning it
        return error
    return result
