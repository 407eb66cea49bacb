"""Counting in Python. The compiled counts have the same tests, as integration tests."""

from __future__ import annotations

import os
import string
from collections import Counter

import pytest
from counting_support import (
    BYTES,
    CASES,
    NOT_TEXT,
    OPTIONS,
    TEXTS,
    WHITE_SPACE,
    check_error_against_naive,
    count,
    count_all,
    naive_top,
)
from hypothesis import given
from hypothesis import strategies as st

from task_script.counting import count_words
from task_script.counts import PUNCTUATION, top_words
from task_script.text import NotTextError


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
@pytest.mark.parametrize(
    "options", [{"block_bytes": 1}, {"block_bytes": 7}, {}, {"memory_mb": 0, "block_bytes": 7}], ids=str
)
def test_counts_top_words(text, n, expected, options):
    assert count(text.encode(), num_words=n, **options)[0].top == expected


def test_ignore_case_folds_words():
    assert count_all("Stra\u00dfe STRASSE The the", ignore_case=True) == {"strasse": 2, "the": 2}


def test_folding_keeps_white_space_and_punctuation():
    separating = {*WHITE_SPACE, *string.punctuation}
    for char in map(chr, range(0x110000)):
        folded = char.casefold()
        assert folded == char if char in separating else not separating.intersection(folded), ascii(char)


def test_all_white_space_separates_words():
    assert len(WHITE_SPACE) == 29
    text = "a" + "".join(f"{space}a" for space in WHITE_SPACE)

    for block_bytes in (1, 2, 3, 1000):
        assert count_all(text, block_bytes=block_bytes) == {"a": 30}


def test_punctuation_is_ascii_punctuation():
    assert string.punctuation == PUNCTUATION


@given(st.one_of(TEXTS.map(str.encode), BYTES), OPTIONS)
def test_blocks_count_like_whole_file(data, options):
    check_error_against_naive(data, options)


@given(st.dictionaries(st.text(max_size=2), st.integers(1, 4)), st.integers(0, 12))
def test_top_words_equal_sorted_counts(counts, n):
    assert top_words(Counter(counts), n) == naive_top(counts, n)


@pytest.mark.parametrize(("data", "message"), NOT_TEXT)
def test_error_names_first_invalid_byte(data, message):
    with pytest.raises(NotTextError) as error:
        count(data, block_bytes=2)

    assert str(error.value) == message


def test_long_token_takes_linear_time():
    # If each of the 16,000 blocks joined the token again, this would copy 16 GB.
    token = "\u00e9" * (1 << 20)

    assert count_all(f"a\u2003{token}\u2003a", block_bytes=128) == {"a": 2, token: 1}


def test_counts_words_of_pipe():
    reading, writing = os.pipe()
    with open(writing, "wb") as stream:
        stream.write("\ufeffa b \ufeffa".encode())
    with open(reading, "rb", buffering=0) as stream:
        totals, _ = count_words(stream, num_words=3, ignore_case=False, memory_mb=256)

    assert totals.top == [("a", 1), ("b", 1), ("\ufeffa", 1)]
