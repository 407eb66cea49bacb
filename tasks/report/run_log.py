"""Filters for the lines that Prefect itself writes to the log of a run, so that the lines of the run stand out."""

from __future__ import annotations

import logging
from uuid import UUID

from tasks.errors import TopnError
from tasks.report.timing import finished_task_runs, record_end


def is_unexpected(record: logging.LogRecord) -> bool:
    """Return whether a record is not the traceback of an error of topn, which a state or a file has as its reason."""
    error = record.exc_info[1] if record.exc_info else getattr(record, "error", None)
    return not isinstance(error, TopnError)


def is_not_about_steps(record: logging.LogRecord) -> bool:
    """Return whether a record is neither the end of a step, which the list of task runs shows, nor about `record_end`."""
    message = record.getMessage()
    if message.startswith(("Running hook", "Hook ")):
        return repr(record_end.__name__) not in message
    task_run_id = getattr(record, "task_run_id", "")
    # Only the task runs of steps are recorded. Those of other flows in this process keep their lines.
    return not (message.startswith("Finished in state") and task_run_id and UUID(task_run_id) in finished_task_runs)
