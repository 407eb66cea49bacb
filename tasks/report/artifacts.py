"""Artifacts that the page of a run in the Prefect UI shows, during the run and after it.

Every run uses the same artifact keys, so the Artifacts page shows the history of each key. An artifact that cannot be
written causes a warning in the log of the run, and the run continues.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks.progress import Progress, listen
from tasks.report.markdown import (
    answers,
    early_summary,
    escape_markdown,
    failures,
    failures_summary,
    results,
    results_summary,
    summary,
)
from tasks.report.model import RunReport
from tasks.text import printable, shorten
from tasks.workload.base import Picture

PROGRESS_SECONDS = 3.0
REQUEST_TIMEOUT_SECONDS = 10.0
# How long the end of a run waits for the last update of the progress.
MAX_LAST_PROGRESS_SECONDS = 5.0

STEPS = ("staged", "submitted", "completed", "merged")

MAX_NAME_CHARACTERS = 100

# Names that the run forms of Prefect's two UIs fill in, such as "xi2-orionis-b" and "Tasty-Zebu".
GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega"
ADJECTIVES = (
    "Awesome Rustic Small Gorgeous Fantastic Sleek Intelligent Unbranded Refined Licensed Generic Practical Ergonomic "
    "Handcrafted Tasty Handmade Incredible"
)
FORM_NAME = re.compile(
    rf"({GREEK.replace(' ', '|')})[0-9]*(-[a-z]+)+|({ADJECTIVES.replace(' ', '|')})-[A-Z][\w ]{{0,5}}"
)
SLUG_WORDS = 2

# Names that a run has at its start and after its end.
HEADLINE = re.compile("[0-9,]+ files?: ")
OWN_NAME = re.compile(f"working on |(failed|crashed|cancelled)(: |$)|{HEADLINE.pattern}")

# What Prefect adds to the message of a state, and says of a run that somebody has cancelled.
PREFECT_WORDS = re.compile(r"Flow run (encountered an exception: |was cancelled(\.| successfully\.))")

NO_FAILURES = "No file failed."


# The workload of each run of this process; None once its report is published.
_workloads: dict[UUID, str | None] = {}


def name_at_start() -> str:
    """Return the name that the user has given a flow run, or one until it ends, such as "working on a.txt"."""
    name = str(flow_run.name)
    if not is_made_up(name):
        return name
    inputs = [printable(str(path)) for path in flow_run.parameters.get("inputs") or ()]
    return shorten(f"working on {inputs[0] if len(inputs) == 1 else f'{len(inputs)} inputs'}", 80)


def is_made_up(name: str) -> bool:
    """Check whether the name of a flow run comes from Prefect or from an earlier attempt of the run.

    Prefect does not say whether a user has given a name. One that looks made up is replaced.
    """
    words = name.split("-")
    is_slug = len(words) == SLUG_WORDS and _prefect_words().issuperset(words)
    return is_slug or FORM_NAME.fullmatch(name) is not None or OWN_NAME.match(name) is not None


@cache
def _prefect_words() -> frozenset[str]:
    """Return the words of the names that Prefect makes up, such as "brave-otter", from the library with which it does."""
    config: Mapping[str, Mapping[str, Any]] = importlib.import_module("coolname.data").config
    return frozenset(word for part in config.values() for word in part.get("words", ()))


def start_report(workload_name: str) -> None:
    """Record the workload of the flow run, which names its artifacts, even if it ends before its report."""
    _workloads[UUID(str(flow_run.id))] = workload_name


def publish(flow_run_id: UUID, report: RunReport, problem: str = "") -> None:
    """Write the artifacts of a run that has ended, and name it after what it did, unless the user has named it.

    The page of a run shows its name first, so the name has the first reason of a failure: of a file, or `problem`.
    """
    with get_client(sync_client=True) as client:

        def create(suffix: str, render: Callable[[], str], description: str) -> None:
            key = f"{report.workload.name}-{suffix}"
            _try(key, lambda: client.create_artifact(_markdown(flow_run_id, key, render(), description)))

        pictures = _try("pictures", lambda: _pictures(report)) or ()
        create("summary", lambda: summary(report, *pictures), answers(report))
        create("results", lambda: results(report), results_summary(report))
        if report.is_failed:
            create("failures", lambda: failures(report), failures_summary(report))
        elif _try("failures", lambda: _shows_failures(client, f"{report.workload.name}-failures")):
            create("failures", lambda: f"# {NO_FAILURES}", NO_FAILURES)
        if is_made_up(str(flow_run.name)):
            reasons = [*(failure.reason for failure in report.describe_failures(1)), problem]
            name = f"{report.headline}: {reasons[0]}" if reasons[0] else report.headline
            _try("name", lambda: client.update_flow_run(flow_run_id, name=_cut(name)))
        _workloads[flow_run_id] = None


def _shows_failures(client: SyncPrefectClient, key: str) -> bool:
    """Check whether the Artifacts page shows failures of an earlier run under a key."""
    latest = client.read_latest_artifacts(
        artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    )
    return any(artifact.description != NO_FAILURES for artifact in latest)


def publish_end(client: SyncPrefectClient, flow_name: str, flow_run_id: UUID, state: State[object]) -> None:
    """Write the summary of a run that ended before its report, and name it after the reason.

    Args:
        client: A client of the Prefect server.
        flow_name: Name of its flow.
        flow_run_id: Its id.
        state: Its final state.
    """
    # A worker runs this in a new process if that of the flow has died.
    workload_name = _workloads.pop(flow_run_id, flow_name)
    if state.is_completed() or workload_name is None:
        return
    name = client.read_flow_run(flow_run_id).name
    if HEADLINE.match(name):
        return
    # A worker calls the hook while the run is being cancelled.
    outcome = "cancelled" if state.is_cancelling() else str(state.type.value).lower()
    reason = printable(PREFECT_WORDS.sub("", state.message or "", count=1).strip())
    headline = f"{outcome}: {reason}" if reason else outcome
    key = re.sub("[^a-z0-9]+", "-", f"{workload_name}-summary".lower())
    text = early_summary(outcome, reason)
    client.create_artifact(_markdown(flow_run_id, key, text, escape_markdown(headline)))
    if is_made_up(name):
        client.update_flow_run(flow_run_id, name=_cut(headline))


def _import_charts() -> None:
    importlib.import_module("tasks.report.charts")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARACTERS else f"{text[: MAX_NAME_CHARACTERS - 1]}…"


def _markdown(flow_run_id: UUID, key: str, text: str, description: str) -> ArtifactCreate:
    return ArtifactCreate(key=key, type="markdown", data=text, description=description, flow_run_id=flow_run_id)


def _pictures(report: RunReport) -> tuple[str, Picture | None] | None:
    """Draw the charts of a run, unless all of its results come from earlier runs."""
    if report.usage is None:
        return None
    from tasks.report.charts import time_picture  # noqa: PLC0415 - imports matplotlib, which is slow

    return time_picture(report), report.picture


def _try(what: str, write: Callable[[], Any]) -> Any:
    try:
        return write()
    except Exception as error:  # noqa: BLE001 - no error in an artifact may fail the run
        get_run_logger().warning("The run's %s could not be written: %s", what, error)


@contextmanager
def progress_artifact(flow_run_id: str, workload_name: str, files: int, merges: int) -> Iterator[None]:
    """Update the progress artifact while the block runs, in a thread, so that no step waits for the Prefect server.

    Args:
        flow_run_id: ID of the flow run.
        workload_name: First part of the key of the artifact.
        files: Number of files to stage, submit and complete.
        merges: Number of merges, as far as it is known.
    """
    progress = _ProgressArtifact(UUID(flow_run_id), f"{workload_name}-progress", files, merges)
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

    def __init__(self, flow_run_id: UUID, key: str, files: int, merges: int) -> None:
        self._flow_run_id = flow_run_id
        self._key = key
        self._total = files
        self._done = dict.fromkeys(STEPS, 0)
        self._merges = merges
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
            if progress.step == "merged" and progress.total is not None:
                self._merges = progress.total

    def run(self) -> None:
        """Write the progress until the run has ended, and once more after that."""
        # Without settings, `get_client` would return the client of the run, which other threads share and may close.
        with get_client(sync_client=True, httpx_settings={"timeout": REQUEST_TIMEOUT_SECONDS}) as client:
            self._write(client)
            # Importing matplotlib takes a second, so import it here, before the report needs it.
            _try("pictures", _import_charts)
            while not self.ended.wait(PROGRESS_SECONDS):
                self._write(client)
            self._write(client)

    def _write(self, client: SyncPrefectClient) -> None:
        with self._lock:
            done, merges = dict(self._done), self._merges
        # To Batch, "completed" includes failed tasks. A run without new files only merges.
        completed, total = (done["completed"], self._total) if self._total else (done["merged"], merges)
        percent = 100 * completed / total
        text = f"{done['merged']:,} of {merges:,} merges completed"
        if self._total:
            text = (
                f"{done['completed']:,} of {total:,} completed "
                f"({done['staged']:,} staged, {done['submitted']:,} submitted)" + (f", {text}" if merges else "")
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
