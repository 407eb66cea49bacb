"""The table of results: one row per file and word, or what another workload defines, in a format for other programs."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tasks.errors import ConfigurationError, UsageError
from tasks.report.model import RunReport
from tasks.text import printable
from tasks.workload.base import Row

TABLE = "results.csv"

# Rows that are in memory at the same time.
BATCH_ROWS = 10_000

# Spreadsheets evaluate text that begins with one of these. An apostrophe makes it text.
# Source: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS = ("=", "+", "-", "@")


def check_table(table: str) -> None:
    """Check that a table can be written in the format of its suffix.

    Raises:
        UsageError: The suffix is unknown.
        ConfigurationError: The library for the format is not installed.
    """
    suffix = Path(table).suffix
    if suffix not in FORMATS:
        raise UsageError(f"The table `{printable(table)}` needs the suffix {', '.join(FORMATS)}.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ConfigurationError(
            f"Parquet tables need pyarrow. Install it with `{shlex.quote(sys.executable)} -m pip install pyarrow`."
        )


def write_table(report: RunReport, suffix: str, file: BinaryIO) -> None:
    """Write the rows of all files with a result to an open file, in the format of the suffix."""
    FORMATS[suffix](file, report.workload.table_columns, report.table_rows())


def _write_csv(file: BinaryIO, columns: Mapping[str, type], rows: Iterator[Row]) -> None:
    file.write(_csv([tuple(columns)]))
    while batch := list(islice(rows, BATCH_ROWS)):
        file.write(_csv([tuple(_as_text(cell) for cell in row) for row in batch]))


def _csv(rows: Iterable[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _as_text(cell: str | float) -> str | int | float:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def _write_json_lines(file: BinaryIO, columns: Mapping[str, type], rows: Iterator[Row]) -> None:
    documents = (dict(zip(columns, row, strict=True)) for row in rows)
    file.writelines(json.dumps(document, ensure_ascii=False).encode() + b"\n" for document in documents)


def _write_parquet(file: BinaryIO, columns: Mapping[str, type], rows: Iterator[Row]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - optional
    from pyarrow import parquet  # noqa: PLC0415 - optional

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])

    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            arrays = [pa.array(cells, kind) for cells, kind in zip(zip(*batch, strict=True), schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


FORMATS: dict[str, Callable[[BinaryIO, Mapping[str, type], Iterator[Row]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
