"""The table of results in each format."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace

import pytest
from run_reports import HOSTILE, counted, failed, result_of, run_report

from tasks.errors import ConfigurationError, UsageError
from tasks.model.outputs import Outputs
from tasks.report.folders import LocalFolder
from tasks.report.table import BATCH_ROWS, FORMATS, check_table, write_table
from tasks.workload.base import Workload

TOP = (("the", 12), ("=SUM(A1)", 3), ("'quoted'", 2), ('ünï,"code', 1))
ROWS = [("a.txt", rank, word, count) for rank, (word, count) in enumerate(TOP, 1)] + [("-b.txt", 1, "x", 2**62)]


def write(path, report):
    LocalFolder(path.parent).write(path.name, lambda file: write_table(report, path.suffix, file))


@pytest.fixture(scope="module")
def pd():
    import pandas as pd  # noqa: PLC0415 - takes a second, which each process would need to collect the tests

    return pd


@pytest.fixture
def report():
    return run_report(
        counted(1, "a.txt", TOP), counted(2, "-b.txt", (("x", 2**62),)), counted(3, "empty", ()), failed(4)
    )


def test_csv_has_row_per_file_and_word(tmp_path, report):
    write(tmp_path / "t.csv", report)
    with (tmp_path / "t.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "rank", "word", "count"]
    safe = {"=SUM(A1)": "'=SUM(A1)", "-b.txt": "'-b.txt"}
    assert rows == [[safe.get(name, name), str(rank), safe.get(word, word), str(n)] for name, rank, word, n in ROWS]


def test_json_lines_have_values_as_they_are(tmp_path, report):
    write(tmp_path / "t.jsonl", report)
    documents = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [tuple(document.values()) for document in documents] == ROWS
    assert list(documents[0]) == ["file", "rank", "word", "count"]


def test_parquet_has_types_and_values(tmp_path, report, pd):
    write(tmp_path / "t.parquet", report)
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert list(table.itertuples(index=False, name=None)) == ROWS
    assert [table[name].dtype.kind for name in ("rank", "count")] == ["i", "i"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_table_without_rows_has_columns(tmp_path, suffix, pd):
    write(tmp_path / f"t{suffix}", run_report(failed(1)))
    if suffix == ".parquet":
        assert list(pd.read_parquet(tmp_path / "t.parquet").columns) == ["file", "rank", "word", "count"]
    else:
        assert (tmp_path / f"t{suffix}").read_text() == {".csv": "file,rank,word,count\n", ".jsonl": ""}[suffix]


@pytest.mark.parametrize("suffix", FORMATS)
def test_hostile_texts_survive_each_format(tmp_path, suffix, pd):
    words = tuple((text, 1) for text in HOSTILE)
    write(tmp_path / f"t{suffix}", run_report(counted(1, HOSTILE[4], words)))
    read = {
        ".csv": lambda path: pd.read_csv(path, keep_default_na=False),
        ".jsonl": lambda path: pd.read_json(path, lines=True),
        ".parquet": pd.read_parquet,
    }[suffix]
    table = read(tmp_path / f"t{suffix}")
    assert list(table["word"]) == list(HOSTILE)
    assert set(table["file"]) == {HOSTILE[4]}


def test_own_workload_has_row_per_file(tmp_path):
    workload = Workload(name="lines", command="true", outputs=("lines", "note"))
    file = counted(1, "a.txt")
    outputs = Outputs.of({"lines": b"3\nmore\n", "note": b"=1\n"})
    file = replace(file, verdict=replace(result_of(file.file.sha256, ()), outputs=outputs))
    report = replace(run_report(file), workload=workload)
    for suffix in FORMATS:
        write(tmp_path / f"t{suffix}", report)
    assert (tmp_path / "t.csv").read_text() == "file,lines,note\na.txt,3,'=1\n"
    assert json.loads((tmp_path / "t.jsonl").read_text()) == {"file": "a.txt", "lines": "3", "note": "=1"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_are_written_in_a_stream(tmp_path, suffix):
    report = run_report(counted(1))

    def rows(file, result):
        yield from ((file.name, rank, "word", 1) for rank in range(3 * BATCH_ROWS))
        [unfinished] = tmp_path.glob(".topn-*")
        assert unfinished.stat().st_size > BATCH_ROWS
        yield file.name, 0, "word", 1

    object.__setattr__(report.workload, "rows", rows)
    write(tmp_path / f"t{suffix}", report)
    assert [path.name for path in tmp_path.iterdir()] == [f"t{suffix}"]


def test_unknown_format_is_refused():
    for name in ("t", "t.xlsx", "csv", "t.CSV"):
        with pytest.raises(UsageError, match=r"needs the suffix \.csv, \.jsonl, \.parquet"):
            check_table(name)


def test_parquet_without_library_is_refused(monkeypatch):
    """The library is hidden as by an installation without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match="-m pip install pyarrow"):
        check_table("t.parquet")
    check_table("t.csv")
