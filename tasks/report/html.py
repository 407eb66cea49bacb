"""The HTML page of a run: one file with light and dark colours that needs no network.

It works without scripts. The one that it has sorts and filters the files.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tasks.model.pool import DEFAULT_SETUP
from tasks.model.urls import URL
from tasks.model.verdict import FileReport
from tasks.redaction import redact
from tasks.report.charts import time_picture
from tasks.report.comparison import Comparison, pair_texts, value_text
from tasks.report.folders import Folder, open_folder
from tasks.report.manifest import PAGE
from tasks.report.markdown import cost, duration, key_figures, notes, waiting_sentence
from tasks.report.model import RunReport
from tasks.text import DEFAULT_MAX_LENGTH, printable, printable_lines, shorten
from tasks.workload.base import Cell

SCRIPT = "report.js"

TIME = "%A, %-d %B %Y, %H:%M UTC"

MAX_DETAILS = 25
MAX_NAMES = 100
MAX_INPUTS = 20

# Together with the details, less than 2 MB.
MAX_TABLE_BYTES = 1_700_000

# Length of cells, and whether names are links. The first table that is small enough is used.
TABLES = ((DEFAULT_MAX_LENGTH, True), (40, True), (40, False))


@dataclass(frozen=True, kw_only=True)
class FileTable:
    """The table of files.

    Attributes:
        columns: Name and kind of each column: "text", "number", or "kind" for what one can choose.
        rows: The rows, failed files first.
        kinds: What one can choose, and the number of files.
        omitted: Number of files without a row.
        has_links: Whether names are links to the outputs.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Markup]
    kinds: Mapping[str, int]
    omitted: int
    has_links: bool


def write_page(report: RunReport, folder: Folder) -> None:
    """Write the page of a run into a folder.

    Raises:
        OSError: The page cannot be written.
        ServiceError: The page cannot be written to Blob Storage.
    """
    folder.write(PAGE, render(report, folder).encode())


def render(report: RunReport, folder: Folder) -> str:
    """Render the page with links to the outputs that are relative to `folder`, if possible."""
    outputs = open_folder(report.output_folder)
    picture = report.picture
    table = _table(report, folder, outputs)
    return _render(
        "report.html.jinja",
        outputs,
        report.parameters,
        columns=table.columns,
        headline=report.headline,
        report=report,
        started=f"{report.steps[0].started_at:{TIME}}" if report.steps else "",
        figures=key_figures(report),
        notes=notes(report),
        failures=report.describe_failures(MAX_DETAILS),
        more_failed=report.count("failed") - MAX_DETAILS,
        time_picture=_safe(time_picture(report)) if report.steps else None,
        waiting=waiting_sentence(report),
        picture=picture,
        picture_svg=_safe(picture.svg) if picture else None,
        table=table,
        corpus_rows=[[_cell(name, cell) for name, cell in row.items()] for row in report.corpus_rows],
        comparison=report.comparison,
        previous_start=_previous_start(report.comparison),
        differences=_differences(report),
        max_names=MAX_NAMES,
        duration=duration,
    )


def render_failure(outputs: Folder, parameters: Mapping[str, Any], **details: str) -> str:
    """Render the page of a run that ended before its report.

    Args:
        outputs: The output folder.
        parameters: The parameters of the flow run.
        details: The other variables of the template.
    """
    return _render("failed.html.jinja", outputs, parameters, columns=(), **details)


def _render(template: str, outputs: Folder, parameters: Mapping[str, Any], **variables: object) -> str:
    environment = Environment(
        loader=PackageLoader("tasks.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    script = (files("tasks.report") / SCRIPT).read_text("utf-8")
    return environment.get_template(template).render(
        **variables,
        output_folder=str(outputs),
        host=outputs.host,
        inputs=_inputs(parameters),
        parameters=_parameters(parameters),
        script=_safe(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        max_inputs=MAX_INPUTS,
        is_url=URL.match,
        css_text=_css_text,
        shorten=shorten,
    )


def _printable(value: object) -> object:
    """Make every text on the page printable; the environment then escapes it as HTML."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _safe(text: str) -> Markup:
    """Mark our script, or a picture in which matplotlib has escaped the text, as safe HTML."""
    return Markup(text)  # noqa: S704 - see above


def _table(report: RunReport, folder: Folder, outputs: Folder) -> FileTable:
    ordered = sorted(report.files, key=lambda file: file.result is not None)
    cells = [report.columns(file) for file in ordered]
    first = next((row for row in cells if row), {})
    kinds = None if report.comparison is None else _kinds(report.comparison)
    rows: list[str] = []
    has_links = True
    for max_length, has_links in TABLES:
        names = [_name_html(file, report, folder, outputs, is_link=has_links) for file in ordered]
        rows = list(_rows_html(report, zip(ordered, names, cells, strict=True), list(first), kinds, max_length))
        if sum(len(row.encode()) for row in rows) <= MAX_TABLE_BYTES:
            break
    kept = _first_rows(rows)
    counts = Counter({word: report.count(status) for status, word in report.status_words.items()})
    counts.update(kind for file in ordered for kind in (kinds or {}).get(file.file.name, ()))
    return FileTable(
        columns=[
            ("file", "text"),
            ("status", "kind"),
            *([] if kinds is None else [("change", "kind")]),
            *((name, "number" if isinstance(cell, int) else "text") for name, cell in first.items()),
            *([] if first else [("reason", "text")]),
        ],
        rows=[_safe(row) for row in kept],
        kinds={kind: count for kind, count in counts.items() if count},
        omitted=len(rows) - len(kept),
        has_links=has_links,
    )


def _kinds(comparison: Comparison) -> dict[str, list[str]]:
    """Return how each file of this run differs from the previous one."""
    kinds: dict[str, list[str]] = {}
    for kind, entries in comparison.lists.items():
        for entry in entries:
            kinds.setdefault(entry.name, []).append(kind)
    return kinds


def _rows_html(
    report: RunReport,
    files: Iterator[tuple[FileReport, str, Mapping[str, Cell]]],
    columns: Sequence[str],
    kinds: Mapping[str, Sequence[str]] | None,
    max_length: int,
) -> Iterator[str]:
    """Yield the row of each file. HTML allows to omit the ends of rows and cells, which take a third of the space."""
    for file, name, row in files:
        parts = [name, _escape(report.status_words[file.status])]
        if kinds is not None:
            parts.append(", ".join(kinds.get(file.file.name, ())))
        if file.error is None:
            parts += (_cell_html(row.get(column, ""), max_length) for column in columns)
            yield f"<tr><td>{'<td>'.join(parts)}\n"
        else:
            message = printable(file.error.message).removeprefix(printable(file.file.name)).lstrip()
            reason = _isolate(shorten(message, max(80, max_length)))
            yield f"<tr class=failed><td>{'<td>'.join(parts)}<td colspan={len(columns) or 1}>{reason}\n"


def _first_rows(rows: Sequence[str]) -> list[str]:
    """Return as many rows as the table may have."""
    kept: list[str] = []
    size = 0
    for row in rows:
        size += len(row.encode())
        if size > MAX_TABLE_BYTES:
            break
        kept.append(row)
    return kept


def _name_html(file: FileReport, report: RunReport, folder: Folder, outputs: Folder, *, is_link: bool) -> str:
    name = _isolate(shorten(printable(file.file.name)))
    if file.result is None or not is_link:
        return name
    output = f"{file.file.output}{next(iter(report.workload.suffixes), '')}"
    relative = folder.relative(outputs, output)
    # Quoting the colon as well stops a name from being read as a URL scheme, such as `javascript:`.
    return f'<a href="{html.escape(outputs.url(output) if relative is None else quote(relative))}">{name}</a>'


def _cell_html(cell: Cell, max_length: int) -> str:
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, str):
        return _isolate(shorten(printable(cell), max_length))
    parts: list[str] = []
    length = 0
    for text, count in cell:
        length += len(text) + len(count) + 2
        if parts and length > max_length:
            parts.append("…")
            break
        parts.append(f"{_isolate(shorten(printable(text), max_length))} {_escape(printable(count))}".rstrip())
    return ", ".join(parts)


def _isolate(text: str) -> str:
    """Return a text as HTML that does not change the direction of the text around it."""
    return _escape(text) if text.isascii() else f"<bdi>{_escape(text)}</bdi>"


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _cell(name: str, cell: Cell) -> Mapping[str, Any]:
    if isinstance(cell, int):
        return {"name": name, "kind": "number", "pairs": [(f"{cell:,}", "")]}
    return {"name": name, "kind": "text", "pairs": [(shorten(printable(cell)), "")] if isinstance(cell, str) else cell}


def _css_text(text: str) -> str:
    """Return a text for the inside of a CSS string."""
    return "".join(letter if letter.isalnum() or letter == " " else f"\\{ord(letter):x} " for letter in printable(text))


def _previous_start(comparison: Comparison | None) -> str:
    try:
        started_at = datetime.fromisoformat(str(comparison.before.get("started_at"))) if comparison else None
    except ValueError:
        started_at = None
    return f"{started_at.astimezone(timezone.utc):{TIME}}" if started_at else ""


def _differences(report: RunReport) -> list[tuple[str, str, str, str]]:
    """Return the parameters and figures that differ from the previous run: name, value before, value now, change."""
    found = report.comparison
    if found is None:
        return []
    rows = [(name, *pair_texts(pair)) for part in ("figures", "parameters") for name, pair in found.run[part].items()]
    costs = (str(found.before.get("cost") or "-"), cost(report))
    return [*rows, *([("Cost of the nodes", *costs, "")] if costs[0] != costs[1] else [])]


def _inputs(parameters: Mapping[str, Any]) -> list[str]:
    given = parameters.get("inputs") or []
    return [redact(str(text)) for text in (given if isinstance(given, list) else [given])]


def _parameters(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the other parameters that have a value."""
    unset: tuple[Any, ...] = (None, [], {}, DEFAULT_SETUP.model_dump(mode="json"))
    shown = {"inputs", "output_folder"}
    return [
        (name, redact(value_text(value)))
        for name, value in parameters.items()
        if value not in unset and name not in shown
    ]
