"""What a run did, for people: its files, where its time went, and what it took from Azure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.errors import TopnError
from tasks.model.verdict import FileError, FileReport, StoredResult
from tasks.report.failure import Failure, describe
from tasks.workload.base import Workload

# The step in which the run waits for its Batch tasks.
WAITING_STEP = "wait for Batch tasks"


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """When a step of the run was at work, from its first task run's start to its last one's end."""

    step: str
    task_runs: int
    started_at: datetime
    ended_at: datetime

    @property
    def seconds(self) -> float:
        """How long, by the wall clock."""
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a run took from Azure, as far as the service says.

    Attributes:
        batch_tasks: Batch tasks that completed.
        retries: How often a Batch task was started again after its program failed.
        requeues: How often one was started again since it had lost its node.
        running: How many ran since when, in at most a few hundred changes; empty where none ran.
        task_seconds: The running times of all added up: the last attempt of each.
        watched_seconds: How long Batch tasks were waited for.
        idle_seconds: How long, of that, none of them ran; the service tells of last attempts only.
        nodes: Nodes that were seen, or that ran a Batch task.
        preempted_nodes: Those of them that were seen preempted.
        node_seconds: From the allocation of each dedicated node to when it was last known to be there, added up; None
            where the pool is not the run's own.
        spot_node_seconds: The same of spot nodes.
    """

    batch_tasks: int
    retries: int
    requeues: int
    running: tuple[tuple[datetime, int], ...]
    task_seconds: float
    watched_seconds: float
    idle_seconds: float
    nodes: int
    preempted_nodes: int
    node_seconds: float | None
    spot_node_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a dedicated node costs.

    Attributes:
        usd_per_node_hour: That, or None where no price is known.
        source: Where the price is from, for people.
        is_paid: Whether the run used Azure's cloud at all.
    """

    usd_per_node_hour: float | None
    source: str
    is_paid: bool


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The whole run, files in input order.

    Attributes:
        workload: What was done.
        steps: When each step was at work, in the order of their starts; without the report itself.
        usage: What it took from Azure; None where nothing was new.
        price: What nodes cost.
        output_folder: Where the outputs are, absolute.
        host: On which machine.
    """

    run_name: str
    workload: Workload
    files: tuple[FileReport, ...]
    steps: tuple[StepTime, ...] = ()
    usage: Usage | None = None
    price: Price | None = None
    output_folder: str = ""
    host: str = ""

    @property
    def status_words(self) -> dict[str, str]:
        """What people call each status."""
        return {"done": self.workload.done, "unchanged": "unchanged", "failed": "failed"}

    def count(self, status: str) -> int:
        """How many files ended so."""
        return sum(file.status == status for file in self.files)

    @property
    def with_result(self) -> list[tuple[FileReport, StoredResult]]:
        """The files that have a result, each with it."""
        return [(file, file.result) for file in self.files if file.result is not None]

    @property
    def results(self) -> list[StoredResult]:
        """The results of the files that have one."""
        return [result for _, result in self.with_result]

    @property
    def failures(self) -> list[Failure]:
        """Descriptions of the files that failed."""
        return [describe(file, file.verdict) for file in self.files if isinstance(file.verdict, FileError)]

    @property
    def failed(self) -> tuple[FileReport, ...]:
        """The files that failed."""
        return tuple(file for file in self.files if file.error is not None)

    @property
    def headline(self) -> str:
        """What the run did, in one line: "5 files: 2 counted, 3 unchanged"."""
        counts = {word: self.count(status) for status, word in self.status_words.items()}
        parts = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        return f"{len(self.files):,} {'file' if len(self.files) == 1 else 'files'}: {parts}"


class FilesFailedError(TopnError):
    """The run ended, and some files have no result.

    Attributes:
        report: The whole run, with the results of the other files.
    """

    def __init__(self, message: str, report: RunReport) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the report when the error travels through a stored Prefect state."""
        return (FilesFailedError, (str(self), self.report))
