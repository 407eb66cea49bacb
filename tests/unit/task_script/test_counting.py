"""Counting words in Python, in one process: the compiled counts and those of several processes have the same tests."""

from __future__ import annotations

import os
import string
from collections import Counter

import pytest
from counting_support import (
    BYTES,
    CASES,
    REFUSALS,
    TEXTS,
    WAYS,
    WHITE_SPACE,
    check_error_against_naive,
    count,
    count_all,
    naive_top,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from task_script.counting import PUNCTUATION, CountingError, NotTextError, count_words, top_words
from task_script.options import Options


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
@pytest.mark.parametrize("way", [{"block_size": 1}, {"block_size": 7}, {}, {"memory_mb": 0, "block_size": 7}], ids=str)
def test_top_words(text, n, expected, way):
    assert count(text.encode(), Options(n, processes=1, **way))[0].top == expected


def test_ignoring_case_folds_words():
    assert count_all("Stra\u00dfe STRASSE The the", ignore_case=True) == {"strasse": 2, "the": 2}


def test_folding_makes_and_removes_no_white_space_and_no_punctuation():
    separating = {*WHITE_SPACE, *string.punctuation}
    for char in map(chr, range(0x110000)):
        folded = char.casefold()
        assert folded == char if char in separating else not separating.intersection(folded), ascii(char)


def test_every_white_space_character_separates():
    assert len(WHITE_SPACE) == 29
    text = "a" + "".join(f"{space}a" for space in WHITE_SPACE)

    for block_size in (1, 2, 3, 1000):
        assert count_all(text, block_size=block_size) == {"a": 30}


def test_the_punctuation_is_that_of_ascii():
    assert string.punctuation == PUNCTUATION


@settings(deadline=None)
@given(st.one_of(TEXTS.map(str.encode), BYTES), WAYS)
def test_any_bytes_are_counted_or_refused_as_whole(data, options):
    """As reading the whole file and decoding it at once."""
    check_error_against_naive(data, options)


@given(st.dictionaries(st.text(max_size=2), st.integers(1, 4)), st.integers(0, 12))
def test_top_words_are_the_first_of_all_sorted(counts, n):
    assert top_words(Counter(counts), n) == naive_top(counts, n)


@pytest.mark.parametrize(("data", "message"), REFUSALS)
def test_refusals_say_what_is_wrong(data, message):
    with pytest.raises(NotTextError) as refusal:
        count(data, Options(processes=1, block_size=2))

    assert str(refusal.value) == message


def test_a_long_token_takes_linear_time():
    # If each of the 16,000 blocks joined the token anew, this would copy 16 GB.
    token = "\u00e9" * (1 << 20)

    assert count_all(f"a\u2003{token}\u2003a", block_size=128) == {"a": 2, token: 1}


def test_a_pipe_is_read_once_whatever_the_processes():
    reading, writing = os.pipe()
    with open(writing, "wb") as stream:
        stream.write("\ufeffa b \ufeffa".encode())
    with open(reading, "rb", buffering=0) as stream:
        totals, _ = count_words(stream, Options(processes=4))

    assert totals.top == [("a", 1), ("b", 1), ("\ufeffa", 1)]


def test_no_more_processes_than_the_node_has_is_a_sentence(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)

    with pytest.raises(CountingError, match="no process can be started"):
        count(b"a b", Options(processes=2))
