"""The `topn log` command: list past runs, show one, or compare two."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flows.cli.display import new_table, print_rich_table
from flows.console import print_json_document, print_message, print_result, terminal_text
from flows.servers.connect import use_make_up_servers
from tasks.azure.settings import results_location, state_folder
from tasks.errors import ConfigurationError, ServiceError, UsageError
from tasks.model.pool import DEFAULT_SETUP
from tasks.model.urls import URL
from tasks.report.comparison import FAILED, Comparison, compare, pair_texts, value_text
from tasks.report.history import History, Listing
from tasks.report.manifest import Entry, Manifest
from tasks.report.markdown import cell_text, duration
from tasks.text import printable, shorten
from tasks.workload.result_files import FolderFiles, ResultFiles

MAX_RUNS = 2
DAY_SECONDS = 24 * 3600

# The lists are for people. The counts include all files, and `--json` lists them.
MAX_LISTED_FILES = 100
MAX_COMPARED_FILES = 20


def run_log(options: argparse.Namespace) -> int:
    """Print past runs, what one of them did, or how two differ.

    Raises:
        UsageError: A name matches no run, or several.
        ConfigurationError: The results store cannot be read.
    """
    if len(options.runs) > MAX_RUNS:
        raise UsageError(f"`topn log` compares two runs. Name one or two, not {len(options.runs)}.")
    try:
        history = History(_stored_files())
        runs = [history.find(start) for start in options.runs]
        listing = None if runs else history.newest(options.limit)
    except (ServiceError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"The results store {results_location()} cannot be read: {reason}.") from error
    if listing is not None:
        _print_runs(listing, options)
    elif len(runs) == 1:
        _print_run(runs[0], as_json=options.json)
    else:
        _print_comparison(runs[0], runs[1], as_json=options.json)
    return 0


def _stored_files() -> ResultFiles:
    location = results_location()
    if not URL.match(location):
        return FolderFiles(Path(location))
    use_make_up_servers(state_folder())
    from tasks.workload.results_store import results_store  # noqa: PLC0415 - imports Prefect and the SDKs, which is slow

    return results_store("", print_message).files


def _print_runs(listing: Listing, options: argparse.Namespace) -> None:
    for name, reason in listing.damaged.items():
        print_message(f"{name} in the results store cannot be read: {reason}.")
    total = len(listing.short_ids)
    if options.json:
        print_json_document({"total": total, "runs": [_run_document(manifest) for manifest in listing.runs]})
        return
    if not total:
        print_message(f"No run is stored in {results_location()} yet.")
        return
    columns = ("run", "started", "state", "counted", "unchanged", "failed", "time", "cost")
    _print_table(
        columns,
        (
            (
                listing.short_ids.get(str(manifest.run.get("id")), str(manifest.run.get("id"))),
                _started(manifest),
                manifest.status,
                *(_count(manifest, status) for status in ("done", "unchanged", FAILED)),
                _took(manifest),
                _cost(manifest),
            )
            for manifest in listing.runs
        ),
        numbers=("counted", "unchanged", "failed", "time"),
    )
    if total > options.limit:
        print_message(f"{total - options.limit:,} older runs are not listed. Set `--limit` to list more.")


def _print_run(manifest: Manifest, *, as_json: bool) -> None:
    if as_json:
        print_json_document(
            {**_run_document(manifest), "inputs": [_entry_document(entry) for entry in manifest.entries]}
        )
        return
    print_result(f"Run {_name(manifest)}: {manifest.status}, {_headline(manifest)}.")
    print_result(
        f"It started at {_started(manifest)} and took {_took(manifest)}. Cost of the nodes: {_cost(manifest)}."
    )
    if manifest.run.get("output_folder"):
        print_result(f"Outputs: {manifest.run['output_folder']}")
    for name, text in _part(manifest, "figures").items():
        print_result(f"{name}: {text}")
    if manifest.run.get("corpus"):
        print_result(f"All files together: {manifest.run['corpus']}")
    failed_first = sorted(manifest.entries, key=lambda entry: entry.status != FAILED)
    names = list(dict.fromkeys(name for entry in manifest.entries for name in entry.cells))
    has_errors = any(entry.error for entry in manifest.entries)
    print_result("")
    _print_table(
        ("file", *names, "status", *(["error"] if has_errors else [])),
        (
            (
                entry.name,
                *(cell_text(entry.cells[name]) if name in entry.cells else "-" for name in names),
                _status_word(manifest, entry),
                *([entry.error or ""] if has_errors else []),
            )
            for entry in failed_first[:MAX_LISTED_FILES]
        ),
        numbers=names,
    )
    if len(failed_first) > MAX_LISTED_FILES:
        print_message(f"{len(failed_first) - MAX_LISTED_FILES:,} more files are listed with `--json`.")
    print_result("")
    steps = _part(manifest, "steps")
    _print_table(("step", "time"), ((step, duration(seconds)) for step, seconds in steps.items()), numbers=("time",))
    print_result("")
    parameters = _part(manifest, "parameters").items()
    unset: tuple[Any, ...] = (None, [], False, DEFAULT_SETUP.model_dump(mode="json"))
    _print_table(
        ("parameter", "value"), ((name, value_text(value)) for name, value in parameters if value not in unset)
    )


def _print_comparison(before: Manifest, after: Manifest, *, as_json: bool) -> None:
    found = compare(before, after)
    if as_json:
        print_json_document(_comparison_document(before, after, found))
        return
    for label, manifest in (("Before", before), ("After", after)):
        print_result(f"{label}: run {_name(manifest)}, {manifest.status}, {_started(manifest)}, {_headline(manifest)}.")
    lists: tuple[tuple[str, Sequence[tuple[str, str]]], ...] = (
        ("new", [(entry.name, "") for entry in found.new]),
        ("changed", [(second.name, _changes(first, second)) for first, second in found.changed]),
        ("missing", [(entry.name, "") for entry in found.missing]),
        ("failed", [(entry.name, entry.error or "") for entry in found.failed]),
        ("no longer failed", [(entry.name, "") for entry in found.recovered]),
    )
    counts = ", ".join(f"{len(files):,} {kind}" for kind, files in lists)
    print_result(f"Files: {counts}, {found.same:,} with the same content.")
    for kind, files in lists:
        for name, remark in files[:MAX_COMPARED_FILES]:
            print_result(f"{kind}: {printable(name)}{f' ({shorten(printable(remark))})' if remark else ''}")
        if len(files) > MAX_COMPARED_FILES:
            print_result(f"{kind}: and {len(files) - MAX_COMPARED_FILES:,} more")
    corpora = [(label, manifest.run.get("corpus") or "-") for label, manifest in (("before", before), ("after", after))]
    for label, text in corpora if corpora[0][1] != corpora[1][1] else ():
        print_result(f"All files together, {label}: {text}")
    rows = [
        *((name, *pair_texts(values)) for name, values in found.run["parameters"].items()),
        *((name, *pair_texts(values)) for name, values in found.run["figures"].items()),
        *((f"time of {name}", *_times(values)) for name, values in found.run["steps"].items()),
        ("time of the run", *_times((_seconds(before), _seconds(after)))),
        ("cost of the nodes", _cost(before), _cost(after), _cost_change(before, after)),
    ]
    print_result("")
    _print_table(("", "before", "after", "change"), rows, numbers=("change",))


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    table = new_table()
    for name in columns:
        justify: Any = "right" if name in numbers else "left"
        table.add_column(terminal_text(printable(name)), justify=justify, no_wrap=name in numbers, overflow="fold")
    for row in rows:
        table.add_row(*(terminal_text(printable(cell)) for cell in row))
    if table.row_count:
        print_rich_table(table)


def _run_document(manifest: Manifest) -> dict[str, Any]:
    return {**manifest.run, "state": manifest.status, "seconds": _seconds(manifest)}


def _entry_document(entry: Entry) -> dict[str, Any]:
    document = asdict(entry)
    return {"file": document.pop("name"), **document}


def _comparison_document(before: Manifest, after: Manifest, found: Comparison) -> dict[str, Any]:
    return {
        "before": _run_document(before),
        "after": _run_document(after),
        "new": [entry.name for entry in found.new],
        "changed": [
            {"file": second.name, "before": first.cells, "after": second.cells} for first, second in found.changed
        ],
        "missing": [entry.name for entry in found.missing],
        "failed": [{"file": entry.name, "error": entry.error} for entry in found.failed],
        "recovered": [entry.name for entry in found.recovered],
        "same": found.same,
        **{part: {name: list(pair) for name, pair in values.items()} for part, values in found.run.items()},
    }


def _name(manifest: Manifest) -> str:
    return str(manifest.run.get("name") or manifest.run.get("id"))


def _part(manifest: Manifest, name: str) -> Mapping[str, Any]:
    return manifest.run.get(name) or {}


def _status_word(manifest: Manifest, entry: Entry) -> str:
    return str(manifest.run.get("done", "done")) if entry.status == "done" else entry.status


def _headline(manifest: Manifest) -> str:
    counts = _part(manifest, "files")
    words = {"done": manifest.run.get("done", "done")}
    return ", ".join(f"{count:,} {words.get(status, status)}" for status, count in counts.items()) or "no counts"


def _count(manifest: Manifest, status: str) -> str:
    counts = _part(manifest, "files")
    return f"{counts.get(status, 0):,}" if counts else "-"


def _time(manifest: Manifest, name: str) -> datetime | None:
    try:
        return datetime.fromisoformat(str(manifest.run.get(name)))
    except ValueError:
        return None


def _started(manifest: Manifest) -> str:
    started_at = _time(manifest, "started_at")
    if started_at is None:
        return "-"
    seconds = max(0.0, (datetime.now(timezone.utc) - started_at).total_seconds())
    age = duration(seconds) if seconds < DAY_SECONDS else f"{seconds / DAY_SECONDS:.0f} d"
    return f"{started_at.astimezone():%Y-%m-%d %H:%M} ({age} ago)"


def _seconds(manifest: Manifest) -> float | None:
    started_at, ended_at = _time(manifest, "started_at"), _time(manifest, "ended_at")
    return (ended_at - started_at).total_seconds() if started_at and ended_at else None


def _took(manifest: Manifest) -> str:
    return _duration(_seconds(manifest))


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else duration(max(0.0, seconds))


def _cost(manifest: Manifest) -> str:
    return str(manifest.run.get("cost") or "-")


def _cost_change(before: Manifest, after: Manifest) -> str:
    """Return the difference of the highest estimates, if both are known."""
    first, second = (manifest.run.get("usd") for manifest in (before, after))
    return f"{second[1] - first[1]:+,.4f} USD" if first and second else ""


def _changes(before: Entry, after: Entry) -> str:
    """Return how the row of a file has changed."""
    names = [name for name in after.cells if after.cells[name] != before.cells.get(name)]
    texts = []
    for name in names:
        first, second, change = pair_texts((before.cells.get(name), after.cells[name]))
        texts.append(f"{name} {first} → {second}{f', {change}' if change else ''}")
    return "; ".join(texts)


def _times(values: tuple[float | None, float | None]) -> tuple[str, str, str]:
    first, second = values
    change = "" if first is None or second is None or first == second else f"{second - first:+,.1f} s"
    return _duration(first), _duration(second), change
