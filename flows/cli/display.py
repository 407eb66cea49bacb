"""The output of `topn run`: progress, then the results as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from flows.console import live_console, print_json_document, print_message, print_result, terminal_text
from tasks.model.verdict import FileError, FileReport, StoredResult
from tasks.progress import CLEANUP, Progress, listen
from tasks.report.failure import Failure
from tasks.report.markdown import cell_text, cost_figure, with_remark
from tasks.report.model import RunReport
from tasks.text import printable
from tasks.workload.word_counts import as_json, corpus_as_json

# Without a terminal, print at most this many lines per step.
MAX_LINES = 4

# Print details and logs for this many failures, and only the reason for the others.
MAX_DETAILED_FAILURES = 20


@contextmanager
def show_progress() -> Iterator[None]:
    """Show the progress of the run while the block executes: bars on a terminal, otherwise plain lines."""
    with live_console() as console:
        if not console.is_terminal:
            with listen(_LineListener()):
                yield
            return
        columns = (TextColumn("{task.description:<11}"), BarColumn(), _CountColumn(), TimeElapsedColumn())
        with RichProgress(*columns, console=console, transient=True) as bars, listen(_BarListener(bars)):
            yield


class _CountColumn(MofNCompleteColumn):
    """A column with completed and total counts, empty while the total is unknown."""

    def render(self, task: Task) -> Text:
        """Render the column of one bar."""
        return Text() if task.total is None else super().render(task)


class _BarListener:
    """A listener that shows one bar per step, a pulsing bar for the cleanup, and notes above the bars."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._ids: dict[str, TaskID] = {}
        self._last_note = ""
        # Reentrant: a signal handler reports progress in the main thread, which may already hold the lock.
        self._lock = RLock()

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if progress.step == CLEANUP and CLEANUP not in self._ids:
                self._ids[CLEANUP] = self._bars.add_task("cleaning up", total=None)
            elif progress.total is not None and progress.step not in self._ids:
                self._ids[progress.step] = self._bars.add_task(
                    progress.step, total=progress.total, completed=progress.done
                )
            elif progress.total is not None:
                self._bars.reset(self._ids[progress.step], total=progress.total, completed=progress.done)
            elif progress.step in self._ids:
                self._bars.update(self._ids[progress.step], advance=progress.done, total=progress.total)
            if progress.note and progress.note != self._last_note:
                print_message(progress.note)
                self._last_note = progress.note


class _LineListener:
    """A listener that prints up to `MAX_LINES` lines per step, and one line per note."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._last_note = ""
        self._lock = RLock()

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            step = progress.step
            if progress.total is not None:
                # If Prefect retries the flow, the step starts again.
                self._totals[step], self._done[step] = progress.total, 0
            total = self._totals.get(step, 0)
            before = self._done.get(step, 0)
            now = self._done[step] = before + progress.done
            if total and (now == total or now * MAX_LINES // total > before * MAX_LINES // total) and now != before:
                print_message(f"{step} {now} of {total}")
            if progress.note and progress.note != self._last_note:
                print_message(progress.note)
                self._last_note = progress.note


def print_table(report: RunReport, output_folder: str) -> None:
    """Print a table of all files, then the failures with their reasons, then the output folder."""
    table = new_table()
    table.add_column("file", overflow="fold")
    rows = [report.columns(file) for file in report.files]
    columns = next((row for row in rows if row), {})
    for name, cell in columns.items():
        is_number = isinstance(cell, int)
        heading = terminal_text(name)
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    table.add_column("status", no_wrap=True)
    for file, row in zip(report.files, rows, strict=True):
        cells = [cell_text(row[name]) if name in row else "" for name in columns]
        status = terminal_text(report.status_words[file.status], "" if file.result else "red")
        table.add_row(terminal_text(printable(file.file.name)), *(terminal_text(cell or "-") for cell in cells), status)
    print_rich_table(table)
    failures = report.describe_failures()
    for failure in failures[:MAX_DETAILED_FAILURES]:
        _print_failure(failure)
    for failure in failures[MAX_DETAILED_FAILURES:]:
        _print_reason(failure)
    if corpus_line := report.corpus_line:
        print_result(f"\nAll files together: {corpus_line}")
    for problem in report.problems.values():
        print_message(problem)
    print_result(f"\n{_summary(report)}")
    name, text, remark = cost_figure(report)
    print_result(f"{name}: {with_remark(text, remark)}")
    if report.count("failed") < len(report.files):
        print_result(f"Outputs are in {printable(output_folder)}/")


def new_table() -> Table:
    """Return an empty table."""
    return Table(show_edge=False, pad_edge=False)


def print_rich_table(table: Table) -> None:
    """Print a table to stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Files and pipes have no width. Rich's default of 80 columns would wrap the table.
        console.width = max(console.width, 160)
    console.print(table)


def print_json(report: RunReport) -> None:
    """Print the run as one JSON object."""
    failed = report.count("failed")
    print_document(
        report.run_name,
        [_file_document(report, file) for file in report.files],
        counted=report.count("done"),
        unchanged=report.count("unchanged"),
        failed=failed,
        corpus=_corpus_document(report),
    )


def print_failed_json(run_name: str, names: Sequence[str], message: str) -> None:
    """Print a run that failed before it counted any file, as one JSON object."""
    error = {"category": "node", "message": message, "exit_code": None, "stderr": ""}
    files = [{"file": name, "status": "failed", "error": error} for name in names]
    print_document(run_name, files, counted=0, unchanged=0, failed=len(files))


def print_document(
    run_name: str,
    files: list[dict[str, Any]],
    *,
    counted: int,
    unchanged: int,
    failed: int,
    corpus: dict[str, Any] | None = None,
) -> None:
    """Print the JSON object that describes a run."""
    document = {
        "run": run_name,
        "state": "failed" if failed or "error" in (corpus or {}) else "completed",
        "counted": counted,
        "unchanged": unchanged,
        "failed": failed,
        "corpus": corpus,
        "files": files,
    }
    print_json_document(document)


def _print_failure(failure: Failure) -> None:
    """Print the reason, details, logs and local command of a failure."""
    facts = "; ".join(f"{label} {text}" for label, text in failure.facts)
    lines = [f"  {facts}"] if facts else []
    lines += [f"  {name}: {line}" for name, text in failure.logs for line in text.splitlines()]
    if failure.repeat_command:
        lines.append(f"  reproduce it locally: {failure.repeat_command}")
    print_result("")
    _print_reason(failure)
    for line in lines:
        print_result(line)


def _print_reason(failure: Failure) -> None:
    print_result(f"failed: {failure.reason} [{failure.category}]")


def _summary(report: RunReport) -> str:
    parts = [f"{report.count(status)} {word}" for status, word in report.status_words.items()]
    return f"{len(report.files)} files: {', '.join(parts)}. Run {report.run_name}."


def _corpus_document(report: RunReport) -> dict[str, Any] | None:
    if isinstance(report.corpus, FileError):
        return {"error": _error_document(report.corpus)}
    return None if report.corpus is None else corpus_as_json(report.corpus)


def _error_document(error: FileError) -> dict[str, Any]:
    return {
        "category": error.category.value,
        "message": error.message,
        "exit_code": error.exit_code,
        "stderr": error.stderr,
    }


def _file_document(report: RunReport, file: FileReport) -> dict[str, Any]:
    if isinstance(file.verdict, StoredResult):
        return {**as_json(file.file, file.verdict), "status": report.status_words[file.status]}
    return {"file": file.file.name, "status": "failed", "error": _error_document(file.verdict)}
