"""The HTML page of a run: one file with light and dark colours that needs no network and no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tasks.model.verdict import FileReport
from tasks.report.charts import time_picture
from tasks.report.folders import Folder, open_folder
from tasks.report.manifest import PAGE
from tasks.report.markdown import (
    duration,
    key_figures,
    notes,
    waiting_sentence,
)
from tasks.report.model import RunReport
from tasks.text import printable, printable_lines, shorten
from tasks.workload.base import Cell
from tasks.workload.drawing import DARK_COLOURS

TEMPLATE = "report.html.jinja"

MAX_ROWS = 2000
MAX_DETAILS = 100


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
    environment = Environment(
        loader=PackageLoader("tasks.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    with_result = report.with_result
    picture = report.picture
    rows = [_row(file, report, folder, outputs) for file, _ in with_result[:MAX_ROWS]]
    return environment.get_template(TEMPLATE).render(
        report=report,
        started_at=report.steps[0].started_at if report.steps else None,
        figures=key_figures(report),
        notes=notes(report),
        failures=report.describe_failures(MAX_DETAILS),
        more_failed=report.count("failed") - MAX_DETAILS,
        time_picture=_safe_svg(time_picture(report)) if report.steps else None,
        waiting=waiting_sentence(report),
        picture=picture,
        picture_svg=_safe_svg(picture.svg) if picture else None,
        rows=rows,
        corpus_rows=[[_cell(name, cell) for name, cell in row.items()] for row in report.corpus_rows],
        columns=[(column["name"], column["kind"]) for column in rows[0]["columns"]] if rows else [],
        more_files=len(with_result) - MAX_ROWS,
        dark_colours=DARK_COLOURS,
        duration=duration,
        shorten=shorten,
    )


def _printable(value: object) -> object:
    """Make every text on the page printable; the environment then escapes it as HTML."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _safe_svg(svg: str) -> Markup:
    """Mark a picture as safe HTML."""
    return Markup(svg)  # noqa: S704 - matplotlib has escaped the text in it


def _row(file: FileReport, report: RunReport, folder: Folder, outputs: Folder) -> Mapping[str, Any]:
    suffix = next(iter(report.workload.suffixes), "")
    output = f"{file.file.output}{suffix}"
    relative = folder.relative(outputs, output)
    return {
        "name": shorten(printable(file.file.name)),
        "status": file.status,
        "columns": [_cell(name, cell) for name, cell in report.columns(file).items()],
        # Quoting the colon as well stops a name from being read as a URL scheme, such as `javascript:`.
        "link": outputs.url(output) if relative is None else quote(relative),
    }


def _cell(name: str, cell: Cell) -> Mapping[str, Any]:
    if isinstance(cell, int):
        return {"name": name, "kind": "number", "pairs": [(f"{cell:,}", "")]}
    return {"name": name, "kind": "text", "pairs": [(shorten(printable(cell)), "")] if isinstance(cell, str) else cell}
