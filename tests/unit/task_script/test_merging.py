"""Merging in Python. The compiled merge has the same tests, as integration tests."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest
from counting_support import naive_top
from hypothesis import given
from hypothesis import strategies as st
from merging_support import (
    GOOD,
    NOT_PARTIALS,
    check_corpus,
    check_not_partial,
    implementation,
    lines_in,
    lines_of,
    partial_of,
    run_of,
)

from task_script.large_files import RunFile
from task_script.merging import MAX_COUNT, MAX_RUNS, CountError, RunError, merge_runs
from task_script.top_words import main

# Short words, so that many are equal or start alike.
RUNS = st.lists(
    st.dictionaries(st.text("ab\x01\u00e9\U0001f600", min_size=1, max_size=10), st.integers(1, 9)), min_size=1
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@given(RUNS, st.integers(1, 40), st.integers(0, 5))
def test_merge_equals_sum_of_counts(runs, block_bytes, num_words):
    written = []
    expected = sum(map(Counter, runs), Counter())

    totals = merge_runs([run_of(lines_of(run), block_bytes) for run in runs], num_words, written.append)

    assert b"".join(written) == lines_of(expected)
    assert (totals.words, totals.distinct) == (sum(expected.values()), len(expected))
    assert totals.top == naive_top(expected, num_words)


@pytest.mark.parametrize("seed", range(100))
def test_corpus_equals_independent_count(folder, seed):
    check_corpus(folder, seed, compiled=False)


@pytest.mark.parametrize(("content", "message"), NOT_PARTIALS)
def test_damaged_partial_is_rejected_by_name(folder, capsys, content, message):
    check_not_partial(folder, capsys, content, message, compiled=False)


def test_missing_partial_is_rejected_by_name(folder, capsys):
    (folder / "good.gz").write_bytes(GOOD)

    assert main(["--merge", "out", "good.gz", "missing.gz"]) == 1
    assert capsys.readouterr().err == "input error: missing.gz cannot be read: No such file or directory\n"
    assert not (folder / "out").exists()


def test_too_large_sum_is_rejected(folder, capsys):
    (folder / "half.gz").write_bytes(partial_of({"a": 2**62}))
    (folder / "rest.gz").write_bytes(partial_of({"a": 2**62 - 1}))
    (folder / "one.gz").write_bytes(partial_of({"b": 1}))

    for compiled in (False, True):
        with implementation(compiled=compiled):
            assert main(["--merge", "max.gz", "half.gz", "rest.gz"]) == 0
            assert lines_in(folder / "max.gz") == lines_of({"a": MAX_COUNT})
            for more in ("max.gz", "one.gz"):
                assert main(["--corpus", "out", "max.gz", more]) == 1
                assert capsys.readouterr().err == f"input error: a count is more than {MAX_COUNT}\n"


def test_many_runs_are_merged_in_passes():
    runs = [{f"word{number % 7}": number + 1, "z": 1} for number in range(3 * MAX_RUNS + 5)]
    written = []

    with closing(RunFile(merge_runs)) as store:
        totals = store.merge_all([run_of(lines_of(run), 100) for run in runs], 2, written.append)

    expected = sum(map(Counter, runs), Counter())
    assert (b"".join(written), totals.top) == (lines_of(expected), naive_top(expected, 2))


def test_merge_stops_at_invalid_run():
    good, bad = run_of(b"a\t1\n", 9), run_of(b"a\t1\nb\t1", 9, "bad")
    with pytest.raises(RunError) as error:
        merge_runs([good, bad], 0, None)
    assert error.value.name == "bad"
    with pytest.raises(CountError):
        merge_runs([run_of(b"a\t%d\n" % MAX_COUNT, 9), run_of(b"a\t1\n", 9)], 0, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--partial", "p.gz", "a.txt", "b.txt"], "--partial needs one FILE or --pack"),
        (["--partial", "p.gz", "--merge", "m.gz", "a.gz"], "--partial needs one FILE or --pack"),
        (["--partial", "", "a.txt"], "is not the name of a file"),
        (["--partial", "below/p.gz", "a.txt"], "leave out the folder"),
        (["--partial", "a.txt", "a.txt"], "would be overwritten"),
        (["--partial", "a_OUTPUT.json", "a.txt"], "would be overwritten"),
        (["--merge", "m.gz", "--corpus", "c.json", "a.gz"], "--merge and --corpus exclude each other"),
        (["--merge", "m.gz"], "name at least one FILE"),
        (["--pack", "input.", "a.txt"], "with --pack, name no FILE"),
    ],
)
def test_wrong_usage_is_explained(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_rejected_file_has_no_partial(folder, capsys):
    (folder / "a.txt").write_bytes(b"a\xff")

    assert main(["a.txt", "--partial", "p.gz"]) == 1
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert capsys.readouterr().err.startswith("input error: a.txt is not UTF-8 text")


def test_partial_is_beside_outputs(folder):
    (folder / "a.txt").write_text("b a b")

    assert main(["a.txt", "--partial", "p.gz", "--output-dir", "out"]) == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a_OUTPUT.json", "a_OUTPUT.txt", "p.gz"]
    assert lines_in(folder / "out" / "p.gz") == b"a\t1\nb\t2\n"
