"""Counting by what is compiled, and in several processes: the same as counting in Python in one."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from counting_support import (
    BYTES,
    CASES,
    REFUSALS,
    TEXTS,
    WAYS,
    WAYS_OF_PROCESSES,
    WHITE_SPACE,
    check_error_against_naive,
    count,
    count_all,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import wait_until

from task_script.counting import CountingError, Counts, Fingerprint, NotTextError, _idle_processors
from task_script.large_files import count_in_processes
from task_script.options import Options

# From 3.12 on, Python warns of forking beside threads; the task script has none, but these tests may.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

KINDS = pytest.mark.parametrize("compiled", [False, True], ids=["Python", "compiled"])

# Compiled, in one process; and either kind in several.
COMPILED_OR_PROCESSES = pytest.mark.parametrize(("compiled", "processes"), [(True, 1), (False, 3), (True, 3)])


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
@pytest.mark.parametrize(
    ("way", "compiled"),
    [
        *(({"processes": 1, **way}, True) for way in ({"block_size": 1}, {"block_size": 7}, {})),
        ({"processes": 1, "memory_mb": 0, "block_size": 7}, True),
        ({"processes": 2}, False),
        ({"processes": 2}, True),
    ],
    ids=str,
)
def test_top_words(text, n, expected, way, compiled):
    assert count(text.encode(), Options(n, **way), compiled=compiled)[0].top == expected


@KINDS
def test_more_processes_than_words_count_the_same(compiled):
    assert count(b"the cat the dog", Options(1, processes=9), compiled=compiled)[0].top == [("the", 2)]


def test_ignoring_case_folds_words():
    counts = count_all("Stra\u00dfe STRASSE The the", ignore_case=True, compiled=True)

    assert counts == {"strasse": 2, "the": 2}


@KINDS
def test_every_white_space_character_separates(compiled):
    text = "a" + "".join(f"{space}a" for space in WHITE_SPACE)

    for block_size in (1, 2, 3, 1000):
        assert count_all(text, block_size=block_size, compiled=compiled) == {"a": 30}
    assert count(text.encode(), Options(1, processes=4), compiled=compiled)[0].top == [("a", 30)]


@settings(deadline=None)
@given(st.one_of(TEXTS.map(str.encode), BYTES), WAYS)
def test_any_bytes_are_counted_or_refused_as_whole(data, options):
    """The compiled counts; as reading the whole file and decoding it at once."""
    check_error_against_naive(data, options, compiled=True)


@settings(max_examples=20, deadline=None)
@given(st.one_of(TEXTS.map(str.encode), BYTES), WAYS_OF_PROCESSES, st.booleans())
def test_processes_count_or_refuse_as_one_does(data, options, compiled):
    check_error_against_naive(data, options, compiled=compiled)


@pytest.mark.parametrize(("data", "message"), REFUSALS)
@COMPILED_OR_PROCESSES
def test_refusals_say_what_is_wrong(data, message, processes, compiled):
    with pytest.raises(NotTextError) as refusal:
        count(data, Options(processes=processes, block_size=2), compiled=compiled)

    assert str(refusal.value) == message


def test_a_long_token_takes_linear_time():
    # If each of the 16,000 blocks joined the token anew, this would copy 16 GB.
    token = "\u00e9" * (1 << 20)

    assert count_all(f"a\u2003{token}\u2003a", block_size=128, compiled=True) == {"a": 2, token: 1}


@KINDS
def test_a_file_without_safe_cuts_is_one_range(compiled):
    text = "\u00e9\u2003" * 50_000

    totals, _ = count(text.encode(), Options(processes=3), compiled=compiled)

    assert totals.top == [("\u00e9", 50_000)]


def test_a_file_that_is_cut_short_meanwhile_is_not_counted():
    with open(os.memfd_create("text"), "r+b") as stream:
        stream.write(b"a b c ")
        stream.flush()
        with pytest.raises(CountingError, match="cut short"):
            count_in_processes(stream.fileno(), 7, 2, Options(), Fingerprint(), Counts())


def test_busy_processors_are_left_to_those_who_keep_them_busy():
    assert _idle_processors() < len(os.sched_getaffinity(0)) + 1
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
            stat = Path(f"/proc/{busy.pid}/stat")
            wait_until(lambda stat=stat: stat.read_text().rpartition(")")[2].split()[0] == "R", "a busy process")

        assert _idle_processors() <= 1
