"""Artifacts: what a run's page in the Prefect UI shows, while it goes and when it has ended.

Each thing has one key, so that the Artifacts page shows it night by night. An artifact that cannot be written is a
warning in the run's log and changes nothing else.
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
from tasks.report.markdown import failures, failures_summary, results_json, results_summary, summary
from tasks.report.model import RunReport
from tasks.text import cut, printable
from tasks.workload.base import Picture

PROGRESS_SECONDS = 3.0
REQUEST_SECONDS = 10.0
# A run's end waits this long for its last progress.
LAST_PROGRESS_SECONDS = 5.0

STEPS = ("staged", "submitted", "completed")


def name_at_start() -> str:
    """Name a flow run by what it is to do, until it has done it."""
    inputs = [printable(str(given)) for given in flow_run.parameters.get("inputs") or ()]
    return cut(f"working on {inputs[0] if len(inputs) == 1 else f'{len(inputs)} inputs'}", 80)


def publish(flow_run_id: UUID, report: RunReport) -> None:
    """Write the artifacts of a run that has ended, and name it by what it did."""
    with get_client(sync_client=True) as client:

        def create(what: str, kind: str, make: Callable[[], str], description: str) -> None:
            key = f"{report.workload.name}-{what}"
            _try(
                key,
                lambda: client.create_artifact(
                    ArtifactCreate(key=key, type=kind, data=make(), description=description, flow_run_id=flow_run_id)
                ),
            )

        pictures = _try("pictures", lambda: _pictures(report)) or ()
        create("summary", "markdown", lambda: summary(report, *pictures), report.headline)
        if len(report.failed) < len(report.files):
            create("results", "table", lambda: results_json(report), results_summary(report))
        if report.failed:
            create("failures", "markdown", lambda: failures(report), failures_summary(report))
        _try("name", lambda: client.update_flow_run(flow_run_id, name=report.headline))


def _pictures(report: RunReport) -> tuple[str, Picture | None] | None:
    """Draw the run; one with nothing new does not pay for it, since the last one's results are the same."""
    if report.usage is None:
        return None
    from tasks.report.charts import time_picture  # noqa: PLC0415 - brings matplotlib: slow

    return time_picture(report), report.workload.picture(report.results)


def _try(what: str, write: Callable[[], Any]) -> Any:
    try:
        return write()
    except Exception as error:  # noqa: BLE001 - whatever keeps an artifact from being written changes no verdict
        get_run_logger().warning("The run's %s could not be written: %s", what, error)


@contextmanager
def progress_artifact(flow_run_id: str, workload_name: str, files: int) -> Iterator[None]:
    """Keep an artifact at how far the run is meanwhile, by a thread of its own: no step waits for the Prefect server.

    Args:
        flow_run_id: The run.
        workload_name: What the artifact's key begins with.
        files: How many are to be staged, submitted and completed.
    """
    progress = _ProgressArtifact(UUID(flow_run_id), f"{workload_name}-progress", files)
    # The thread needs the settings and the logger of the run.
    thread = Thread(target=copy_context().run, args=(progress.keep,), daemon=True)
    with listen(progress.note):
        thread.start()
        try:
            yield
        finally:
            progress.ended.set()
    # Reached by whole runs alone: the cleanup of an interrupted one waits for no picture.
    thread.join(LAST_PROGRESS_SECONDS)


class _ProgressArtifact:
    """One artifact, updated every few seconds if anything has moved."""

    def __init__(self, flow_run_id: UUID, key: str, files: int) -> None:
        self._flow_run_id = flow_run_id
        self._key = key
        self._total = files
        self._done = dict.fromkeys(STEPS, 0)
        self._lock = Lock()
        self._artifact_id: UUID | None = None
        self._shown = ""
        self._has_warned = False
        self.ended = Event()

    def note(self, progress: Progress) -> None:
        """Take a step's progress in; called from several threads."""
        with self._lock:
            if progress.step in self._done:
                self._done[progress.step] += progress.done

    def keep(self) -> None:
        """Show the progress until the run has ended, and once more then."""
        # With settings of its own, the client is not the one that the run's other threads share and may close.
        with get_client(sync_client=True, httpx_settings={"timeout": REQUEST_SECONDS}) as client:
            self._show(client)
            # The report needs them, and they take a second to load, in which this thread has nothing to do.
            _try("pictures", lambda: importlib.import_module("tasks.report.charts"))
            while not self.ended.wait(PROGRESS_SECONDS):
                self._show(client)
            self._show(client)

    def _show(self, client: SyncPrefectClient) -> None:
        with self._lock:
            done = dict(self._done)
        percent = 100 * sum(done.values()) / (self._total * len(STEPS))
        # A Batch task that is completed may have failed.
        text = (
            f"{done['completed']:,} of {self._total:,} completed "
            f"({done['staged']:,} staged, {done['submitted']:,} submitted)"
        )
        if text == self._shown:
            return
        try:
            if self._artifact_id is None:
                artifact = ArtifactCreate(
                    key=self._key, type="progress", data=percent, description=text, flow_run_id=self._flow_run_id
                )
                self._artifact_id = client.create_artifact(artifact).id
            else:
                client.update_artifact(self._artifact_id, ArtifactUpdate(data=percent, description=text))
            self._shown = text
        except Exception as error:  # noqa: BLE001 - as in _try
            if not self._has_warned:
                get_run_logger().warning("The run's progress could not be written: %s", error)
            self._has_warned = True
