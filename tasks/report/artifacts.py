"""Artifacts that the page of a run in the Prefect UI shows, during the run and after it.

Every run uses the same artifact keys, so the Artifacts page shows the history of each key. An artifact that cannot be
written causes a warning in the log of the run, and the run continues.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks.progress import Progress, listen
from tasks.report.markdown import failures, failures_summary, results, results_summary, summary
from tasks.report.model import RunReport
from tasks.text import printable, shorten
from tasks.workload.base import Picture

PROGRESS_SECONDS = 3.0
REQUEST_TIMEOUT_SECONDS = 10.0
# How long the end of a run waits for the last update of the progress.
MAX_LAST_PROGRESS_SECONDS = 5.0

STEPS = ("staged", "submitted", "completed")


def name_at_start() -> str:
    """Return the name of a flow run until it ends, such as "working on a.txt"."""
    inputs = [printable(str(path)) for path in flow_run.parameters.get("inputs") or ()]
    return shorten(f"working on {inputs[0] if len(inputs) == 1 else f'{len(inputs)} inputs'}", 80)


def publish(flow_run_id: UUID, report: RunReport) -> None:
    """Write the artifacts of a run that has ended, and use its headline as its name."""
    with get_client(sync_client=True) as client:

        def create(suffix: str, render: Callable[[], str], description: str) -> None:
            key = f"{report.workload.name}-{suffix}"
            _try(
                key,
                lambda: client.create_artifact(
                    ArtifactCreate(
                        key=key, type="markdown", data=render(), description=description, flow_run_id=flow_run_id
                    )
                ),
            )

        pictures = _try("pictures", lambda: _pictures(report)) or ()
        create("summary", lambda: summary(report, *pictures), report.headline)
        if len(report.failed) < len(report.files):
            create("results", lambda: results(report), results_summary(report))
        if report.is_failed:
            create("failures", lambda: failures(report), failures_summary(report))
        _try("name", lambda: client.update_flow_run(flow_run_id, name=report.headline))


def _pictures(report: RunReport) -> tuple[str, Picture | None] | None:
    """Draw the charts of a run, unless all of its results come from earlier runs."""
    if report.usage is None:
        return None
    from tasks.report.charts import time_picture  # noqa: PLC0415 - imports matplotlib, which is slow

    return time_picture(report), report.workload.picture(report.results, report.corpus_or_none)


def _try(what: str, write: Callable[[], Any]) -> Any:
    try:
        return write()
    except Exception as error:  # noqa: BLE001 - no error in an artifact may fail the run
        get_run_logger().warning("The run's %s could not be written: %s", what, error)


@contextmanager
def progress_artifact(flow_run_id: str, workload_name: str, files: int) -> Iterator[None]:
    """Update the progress artifact while the block runs, in a thread, so that no step waits for the Prefect server.

    Args:
        flow_run_id: ID of the flow run.
        workload_name: First part of the key of the artifact.
        files: Number of files to stage, submit and complete.
    """
    progress = _ProgressArtifact(UUID(flow_run_id), f"{workload_name}-progress", files)
    # The settings and the logger of the run are context variables, which a new thread does not inherit.
    thread = Thread(target=copy_context().run, args=(progress.run,), daemon=True)
    with listen(progress.add):
        thread.start()
        try:
            yield
        finally:
            progress.ended.set()
    # An exception skips this line, so the cleanup after an interrupted run does not wait for the progress.
    thread.join(MAX_LAST_PROGRESS_SECONDS)


class _ProgressArtifact:
    """The progress artifact of one run, updated every few seconds if the progress has changed."""

    def __init__(self, flow_run_id: UUID, key: str, files: int) -> None:
        self._flow_run_id = flow_run_id
        self._key = key
        self._total = files
        self._done = dict.fromkeys(STEPS, 0)
        self._lock = Lock()
        self._artifact_id: UUID | None = None
        self._last_text = ""
        self._has_warned = False
        self.ended = Event()

    def add(self, progress: Progress) -> None:
        """Add the progress of a step; called from several threads."""
        with self._lock:
            if progress.step in self._done:
                self._done[progress.step] += progress.done

    def run(self) -> None:
        """Write the progress until the run has ended, and once more after that."""
        # Without settings, `get_client` would return the client of the run, which other threads share and may close.
        with get_client(sync_client=True, httpx_settings={"timeout": REQUEST_TIMEOUT_SECONDS}) as client:
            self._write(client)
            # Importing matplotlib takes a second, so import it here, before the report needs it.
            _try("pictures", lambda: importlib.import_module("tasks.report.charts"))
            while not self.ended.wait(PROGRESS_SECONDS):
                self._write(client)
            self._write(client)

    def _write(self, client: SyncPrefectClient) -> None:
        with self._lock:
            done = dict(self._done)
        percent = 100 * sum(done.values()) / (self._total * len(STEPS))
        # To Batch, "completed" includes failed tasks.
        text = (
            f"{done['completed']:,} of {self._total:,} completed "
            f"({done['staged']:,} staged, {done['submitted']:,} submitted)"
        )
        if text == self._last_text:
            return
        try:
            if self._artifact_id is None:
                artifact = ArtifactCreate(
                    key=self._key, type="progress", data=percent, description=text, flow_run_id=self._flow_run_id
                )
                self._artifact_id = client.create_artifact(artifact).id
            else:
                client.update_artifact(self._artifact_id, ArtifactUpdate(data=percent, description=text))
            self._last_text = text
        except Exception as error:  # noqa: BLE001 - as in `_try`
            if not self._has_warned:
                get_run_logger().warning("The run's progress could not be written: %s", error)
            self._has_warned = True
