"""What `topn run` shows: bars on a terminal and plain lines elsewhere, then a table for people or JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from flows.console import say
from tasks.model.verdict import FileError, FileReport
from tasks.progress import CLEANUP, Progress, listening
from tasks.report.markdown import cell_text
from tasks.report.model import RunReport
from tasks.text import shown
from tasks.workload.word_counts import as_json

# Plain lines tell of every quarter of a step.
PLAIN_STEPS = 4

# All failed files are named with the reason; of so many, all that is known.
MOST_EXPLAINED = 20


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show the progress of the run in this process meanwhile."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        with listening(_PlainLines()):
            yield
        return
    columns = (TextColumn("{task.description:<11}"), BarColumn(), _Count(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars, listening(_BarLines(bars, console)):
        yield


class _Count(MofNCompleteColumn):
    """How many of how many, where that is known."""

    def render(self, task: Task) -> Text:
        """Give the text of one bar."""
        return Text() if task.total is None else super().render(task)


class _BarLines:
    """A bar for each step, and one that only moves for the cleanup; notes stay above the bars."""

    def __init__(self, bars: Bars, console: Console) -> None:
        self._bars = bars
        self._console = console
        self._ids: dict[str, TaskID] = {}
        self._last_note = ""
        self._lock = RLock()  # A signal may arrive, and be told, while its thread holds it.

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if progress.step == CLEANUP and CLEANUP not in self._ids:
                self._ids[CLEANUP] = self._bars.add_task("cleaning up", total=None)
            elif progress.total is not None and progress.step not in self._ids:
                self._ids[progress.step] = self._bars.add_task(
                    progress.step, total=progress.total, completed=progress.done
                )
            elif progress.step in self._ids:
                self._bars.update(self._ids[progress.step], advance=progress.done, total=progress.total)
            if progress.note and progress.note != self._last_note:
                self._console.print(escape(progress.note))
                self._last_note = progress.note


class _PlainLines:
    """A line for every quarter of a step, and one for each note."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._last_note = ""
        self._lock = RLock()

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            step = progress.step
            if progress.total is not None:
                self._totals[step] = progress.total
            total = self._totals.get(step, 0)
            before = self._done.get(step, 0)
            now = self._done[step] = before + progress.done
            if total and (now == total or now * PLAIN_STEPS // total > before * PLAIN_STEPS // total) and now != before:
                say(f"{step} {now} of {total}")
            if progress.note and progress.note != self._last_note:
                say(progress.note)
                self._last_note = progress.note


def print_table(report: RunReport, output_folder: str) -> None:
    """Print each file's words, then what failed and why, then where the outputs are."""
    console = Console(highlight=False)
    table = Table(title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("file", overflow="fold")
    rows = [report.workload.columns(file.result) if file.result else {} for file in report.files]
    columns = next((row for row in rows if row), {})
    for name, cell in columns.items():
        is_number = isinstance(cell, int)
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    table.add_column("status", no_wrap=True)
    for file, row in zip(report.files, rows, strict=True):
        cells = [escape(cell_text(row[name])) or "-" if name in row else "-" for name in columns]
        status = report.status_words[file.status] if file.result else "[red]failed[/red]"
        table.add_row(escape(shown(file.file.name)), *cells, status)
    if not console.is_terminal:
        # Files and pipes have no width; a line that is cut there helps nobody.
        console.width = max(console.width, 160)
    console.print(table)
    for number, file in enumerate(report.failed):
        if file.error is not None:
            if number < MOST_EXPLAINED:
                console.print()
            why = _explained(file.error) if number < MOST_EXPLAINED else _reason(file.error)
            console.print(f"{escape(shown(file.file.name))} failed: {escape(why)}", soft_wrap=True)
    console.print(f"\n{_summary(report)}", soft_wrap=True)
    if report.count("failed") < len(report.files):
        console.print(f"Outputs are in {escape(shown(output_folder))}/", soft_wrap=True)


def print_json(report: RunReport) -> None:
    """Print the run as one JSON object."""
    failed = report.count("failed")
    print_document(
        report.run_name,
        [_file_document(report, file) for file in report.files],
        counted=report.count("done"),
        unchanged=report.count("unchanged"),
        failed=failed,
    )


def print_failed_json(run_name: str, names: Sequence[str], message: str) -> None:
    """Print a run that ended before any file did."""
    error = {"category": "node", "message": message, "exit_code": None, "stderr": ""}
    files = [{"file": name, "status": "failed", "error": error} for name in names]
    print_document(run_name, files, counted=0, unchanged=0, failed=len(files))


def print_document(run_name: str, files: list[dict[str, Any]], *, counted: int, unchanged: int, failed: int) -> None:
    """Print the object that programs read."""
    document = {
        "run": run_name,
        "state": "failed" if failed else "completed",
        "counted": counted,
        "unchanged": unchanged,
        "failed": failed,
        "files": files,
    }
    json.dump(document, sys.stdout)
    sys.stdout.write("\n")


def _explained(error: FileError) -> str:
    """Tell all that is known of a failure: the reason, then where, what it said, and how to repeat it."""
    lines = [_reason(error)]
    if error.node_id:
        times = "once" if error.attempts == 1 else f"{error.attempts} times"
        lines.append(f"  started {times}, last on node {shown(error.node_id)}; exit code {error.exit_code}")
    for name, said in (("stdout", error.stdout), ("stderr", error.stderr)):
        lines += [f"  {name}: {shown(line)}" for line in said.splitlines()]
    if error.repeat_command:
        lines.append(f"  repeat it here: {shown(error.repeat_command)}")
    return "\n".join(lines)


def _reason(error: FileError) -> str:
    return f"{shown(error.message)} [{error.category.value}]"


def _summary(report: RunReport) -> str:
    parts = [f"{report.count(status)} {word}" for status, word in report.status_words.items()]
    return f"{len(report.files)} files: {', '.join(parts)}. Run {report.run_name}."


def _file_document(report: RunReport, file: FileReport) -> dict[str, Any]:
    if file.result is not None:
        return {**as_json(file.file, file.result), "status": report.status_words[file.status]}
    error = file.error
    if error is None:
        return {"file": file.file.name, "status": "failed", "error": None}
    return {
        "file": file.file.name,
        "status": "failed",
        "error": {
            "category": error.category.value,
            "message": error.message,
            "exit_code": error.exit_code,
            "stderr": error.stderr,
        },
    }
