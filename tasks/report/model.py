"""The report of a run: its files, the times of its steps, and its usage of Azure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from tasks.errors import TopnError
from tasks.model.corpus import merge_input
from tasks.model.verdict import FileError, FileReport, StoredResult
from tasks.redaction import describe_error
from tasks.report.comparison import Comparison
from tasks.report.failure import Failure, describe
from tasks.text import printable, quantity
from tasks.workload.base import Cell, Corpus, Picture, Results, Row, Workload

# The step in which the run waits for its Batch tasks.
WAITING_STEP = "wait for Batch tasks"

T = TypeVar("T")


def _ignore(error: BaseException, message: str) -> None:
    del error, message


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """The time of a step, from the start of its first task run to the end of its last task run."""

    step: str
    task_runs: int
    started_at: datetime
    ended_at: datetime

    @property
    def seconds(self) -> float:
        """Duration of the step by the wall clock."""
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a run used on Azure, as far as the service reports it.

    Attributes:
        batch_tasks: Number of completed Batch tasks.
        retries: Number of retries after a program failed.
        requeues: Number of times a Batch task was started again on another node.
        running: Number of running Batch tasks from each time on, with at most a few hundred changes; empty if none ran.
        task_seconds: Sum of the running times, counting only the last attempt of each Batch task.
        waited_seconds: How long the run waited for Batch tasks.
        idle_seconds: The part of `waited_seconds` in which no Batch task ran. The service reports only last attempts.
        nodes: Number of nodes that the run saw or that ran a Batch task.
        preemptions: Number of times that the run saw one of them preempted.
        node_seconds: Sum of the times from the allocation of a dedicated node to when the run last saw it; None for a
            pool that the run did not create.
        spot_node_seconds: The same sum for spot nodes.
    """

    batch_tasks: int
    retries: int
    requeues: int
    running: tuple[tuple[datetime, int], ...]
    task_seconds: float
    waited_seconds: float
    idle_seconds: float
    nodes: int
    preemptions: int
    node_seconds: float | None
    spot_node_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Price:
    """The price of a dedicated node.

    Attributes:
        usd_per_node_hour: Price in US dollars, or None if it is unknown.
        source: Where the price comes from, or the VM size if the price is unknown.
        is_paid: Whether the run used Azure, and not a local Azure.
    """

    usd_per_node_hour: float | None
    source: str
    is_paid: bool


@dataclass(frozen=True, kw_only=True, repr=False)
class RunReport:
    """The report of a whole run.

    Attributes:
        run_name: Name of the run.
        workload: The workload of the run.
        files: Reports of all files, in input order.
        corpus: What is known of all files together, or why it is not; None without a merge or a result.
        steps: Times of the steps before the report, in order of their starts.
        usage: Usage of Azure; None if no file was new.
        price: Price of the nodes; None if no file was new.
        output_folder: Absolute path or URL of the output folder.
        host: Name of the machine with the output folder, or "".
        parameters: Parameters of the flow run.
        run_url: URL of the run in Prefect's UI, or "".
        page: Path or URL of the HTML page, or "".
        comparison: How the run differs from the previous one with the same output folder; None without one.
        unwritten: Outputs that could not be written, and why.
        log_unexpected: Called with the first error of each hook of the workload, and a sentence about it.
        problems: These sentences, by hook.
    """

    run_name: str
    workload: Workload
    files: tuple[FileReport, ...]
    corpus: Corpus | FileError | None = None
    steps: tuple[StepTime, ...] = ()
    usage: Usage | None = None
    price: Price | None = None
    output_folder: str = ""
    host: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run_url: str = ""
    page: str = ""
    comparison: Comparison | None = None
    unwritten: tuple[str, ...] = ()
    log_unexpected: Callable[[BaseException, str], object] = field(default=_ignore, repr=False, compare=False)
    problems: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.headline}>"

    @property
    def status_words(self) -> dict[str, str]:
        """The word for each status in messages, such as "counted" for "done"."""
        return {"done": self.workload.done, "unchanged": "unchanged", "failed": "failed"}

    def count(self, status: str) -> int:
        """Return the number of files with a status."""
        return sum(file.status == status for file in self.files)

    @property
    def with_result(self) -> list[tuple[FileReport, StoredResult]]:
        """The files that have a result, and their results."""
        return [(file, file.result) for file in self.files if file.result is not None]

    def columns(self, file: FileReport) -> dict[str, Cell]:
        """Return the row of a file in the results pages; an empty one if it failed, or if the workload cannot return it."""
        result = file.result
        if result is None:
            return {}
        return self._attempt("columns", lambda: self.workload.columns(file.file, result), {}, file.file.name)

    @property
    def figures(self) -> list[tuple[str, str]]:
        """Name and value of the workload's key figures."""
        return self._attempt("figures", lambda: self.workload.figures(self._results), [])

    @property
    def picture(self) -> Picture | None:
        """The picture of the results, if there is one."""
        return self._attempt("picture", lambda: self.workload.picture(self._results, self.corpus_or_none), None)

    @property
    def _results(self) -> Results:
        return [(file.file, result) for file, result in self.with_result]

    def _attempt(self, hook: str, call: Callable[[], T], default: T, name: str = "") -> T:
        """Call a hook of the workload. If it raises an error, return the default."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - no error of a workload may cost the rest of a report
            if hook not in self.problems:
                of_file = f" of {printable(name)}" if name else ""
                self.problems[hook] = (
                    f"`{hook}`{of_file} is missing, because the workload {self.workload.name} raised "
                    f"{describe_error(error)}."
                )
                self.log_unexpected(error, self.problems[hook])
            return default

    @property
    def rows(self) -> list[dict[str, str | int | float]]:
        """The rows of the table of results, for all files with a result; each is a dictionary with the same keys."""
        return [dict(zip(self.workload.table_columns, row, strict=True)) for row in self.table_rows()]

    def table_rows(self) -> Iterator[Row]:
        """Yield the rows of the table of results as tuples."""
        for file, result in self.with_result:
            yield from self.workload.rows(file.file, result)

    def describe_failures(self, limit: int | None = None) -> list[Failure]:
        """Describe the corpus, if it could not be merged, and the files that failed, or the first `limit` of these."""
        corpus = [] if self.corpus_failure is None else [self.corpus_failure]
        failures = ((file, file.verdict) for file in (*corpus, *self.files) if isinstance(file.verdict, FileError))
        return [describe(file, error) for file, error in islice(failures, limit)]

    @property
    def corpus_or_none(self) -> Corpus | None:
        """The corpus, if there is one."""
        return self.corpus if isinstance(self.corpus, Corpus) else None

    @property
    def corpus_line(self) -> str:
        """The corpus in one line, "" if there is none."""
        corpus = self.corpus_or_none
        return "" if corpus is None else self._attempt("corpus_line", lambda: self.workload.corpus_line(corpus), "")

    @property
    def corpus_rows(self) -> list[dict[str, Cell]]:
        """The rows of a table about the corpus."""
        corpus = self.corpus_or_none
        return [] if corpus is None else self._attempt("corpus_rows", lambda: self.workload.corpus_rows(corpus), [])

    @property
    def corpus_failure(self) -> FileReport | None:
        """The corpus, if it could not be merged."""
        return FileReport(file=merge_input(""), verdict=self.corpus) if isinstance(self.corpus, FileError) else None

    @property
    def is_failed(self) -> bool:
        """Whether the result of a file or the corpus is missing."""
        return bool(self.failed) or self.corpus_failure is not None

    @property
    def failed(self) -> tuple[FileReport, ...]:
        """The files that failed."""
        return tuple(file for file in self.files if file.error is not None)

    @property
    def failure(self) -> str:
        """What failed, in a few words."""
        if not self.failed:
            return "The corpus could not be merged"
        return f"{len(self.failed):,} of {quantity(len(self.files), 'file')} failed"

    @property
    def headline(self) -> str:
        """Summary of the run in one line: "5 files: 2 counted, 3 unchanged"."""
        counts = {word: self.count(status) for status, word in self.status_words.items()}
        parts = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        return f"{quantity(len(self.files), 'file')}: {parts}"


class FilesFailedError(TopnError):
    """The run has ended, and some files have no result.

    Attributes:
        report: The report of the run, with the results of the other files.
    """

    def __init__(self, message: str, report: RunReport) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the report when the error travels through a stored Prefect state."""
        return (FilesFailedError, (str(self), self.report))
