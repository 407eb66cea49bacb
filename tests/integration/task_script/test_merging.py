"""Merging with the compiled library: the same results as in Python, byte for byte, and within memory."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from collections import Counter

import pytest
from counting_support import OPTIONS, TEXTS, count, naive_counts
from hypothesis import given
from hypothesis import strategies as st
from merging_support import NOT_PARTIALS, check_corpus, check_not_partial, lines_of, partial_of, run_of

from task_script.merging import CountError, RunError, merge_runs
from task_script.native.compiled import find_compiled_merge

# Lines that may be valid, in order, or neither.
LINES = st.lists(
    st.builds(
        bytes.__add__,
        st.one_of(st.text("ab\x01 \x1c\u00e9", max_size=9).map(str.encode), st.sampled_from([b"a" * 8, b"a" * 9])),
        st.one_of(
            st.integers(-1, 2**65).map(lambda number: b"\t%d\n" % number),
            st.sampled_from([b"\t1\n", b"\t01\n", b"\n", b"1\n", b"\t1\t\n", b"\t1"]),
        ),
    )
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome_of(merge, runs, block_bytes, num_words):
    """Return what a merge writes and returns, or its error."""
    written = []
    try:
        totals = merge(
            [run_of(lines, block_bytes, str(number)) for number, lines in enumerate(runs)], num_words, written.append
        )
    except CountError:
        return "too large"
    except RunError as error:
        return str(error)
    return b"".join(written), totals.words, totals.distinct, totals.top


@given(st.lists(LINES.map(lambda lines: b"".join(sorted(lines))), min_size=1, max_size=9), st.integers(1, 99))
def test_merge_of_any_lines_equals_python(runs, block_bytes):
    results = [outcome_of(merge, runs, block_bytes, 2) for merge in (merge_runs, find_compiled_merge())]
    if not isinstance(results[0], str) or not isinstance(results[1], str):
        assert results[0] == results[1]


@given(LINES.map(b"".join), st.integers(1, 99))
def test_error_of_one_run_equals_python(lines, block_bytes):
    results = [outcome_of(merge, [lines], block_bytes, 2) for merge in (merge_runs, find_compiled_merge())]

    assert results[0] == results[1]


@pytest.mark.parametrize("runs_count", [1, 2, 3, 5, 8, 100, 128])
def test_merge_of_many_runs_equals_python(runs_count):
    chance = random.Random(runs_count)
    runs = [Counter(f"word{chance.randrange(5000)}" for _ in range(1000)) for _ in range(runs_count)]
    merges = (merge_runs, find_compiled_merge())

    expected, compiled = (outcome_of(merge, map(lines_of, runs), 500, 10) for merge in merges)

    assert compiled == expected
    assert compiled[0] == lines_of(sum(runs, Counter()))


@given(TEXTS, OPTIONS, st.booleans())
def test_lines_of_file_are_all_counts(text, options, compiled):
    """With any memory limit, spilled or not."""
    written = []

    count(text.encode(), compiled=compiled, **options, write=written.append)

    assert b"".join(written) == lines_of(naive_counts(text.encode(), ignore_case=options["ignore_case"]))


@pytest.mark.parametrize("seed", range(100, 200))
def test_corpus_equals_independent_count(folder, seed):
    check_corpus(folder, seed, compiled=True)


@pytest.mark.parametrize(("content", "message"), NOT_PARTIALS)
def test_damaged_partial_is_rejected_by_name(folder, capsys, content, message):
    check_not_partial(folder, capsys, content, message, compiled=True)


def test_long_words_are_merged():
    runs = [{"a" * size: size, "b": 1} for size in (100_000, 200_000)]
    expected = lines_of(Counter(runs[0]) + Counter(runs[1]))

    for merge in (merge_runs, find_compiled_merge()):
        assert outcome_of(merge, map(lines_of, runs), 1000, 1)[0] == expected


@pytest.mark.parametrize("command", ["Python", "compiled"])
def test_merge_needs_little_memory(folder, package, command):
    """The program itself takes most of the memory that it may use."""
    counts = {f"{number:x}": number + 1 for number in range(100_000)}
    (folder / "a.gz").write_bytes(partial_of(counts))
    program = [str(package)] if command == "compiled" else ["-m", "task_script"]
    limit_bytes = 80 * 2**20

    for option in ("--merge", "--corpus"):
        subprocess.run(
            [sys.executable, *program, option, "out", *["a.gz"] * 30],
            check=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes)),
        )
        if option == "--merge":
            assert (folder / "out").read_bytes() == partial_of({word: 30 * count for word, count in counts.items()})
    assert json.loads((folder / "out").read_bytes())["distinct"] == len(counts)
