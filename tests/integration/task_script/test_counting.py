"""Counting with the compiled library: the same results as in Python."""

from __future__ import annotations

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
)
from hypothesis import given
from hypothesis import strategies as st

from task_script.text import NotTextError


@pytest.mark.parametrize(("text", "n", "expected"), CASES)
@pytest.mark.parametrize(
    "options", [{"block_bytes": 1}, {"block_bytes": 7}, {}, {"memory_mb": 0, "block_bytes": 7}], ids=str
)
def test_counts_top_words(text, n, expected, options):
    assert count(text.encode(), num_words=n, compiled=True, **options)[0].top == expected


def test_ignore_case_folds_words():
    counts = count_all("Stra\u00dfe STRASSE The the", ignore_case=True, compiled=True)

    assert counts == {"strasse": 2, "the": 2}


def test_all_white_space_separates_words():
    text = "a" + "".join(f"{space}a" for space in WHITE_SPACE)

    for block_bytes in (1, 2, 3, 1000):
        assert count_all(text, block_bytes=block_bytes, compiled=True) == {"a": 30}


@given(st.one_of(TEXTS.map(str.encode), BYTES), OPTIONS)
def test_blocks_count_like_whole_file(data, options):
    check_error_against_naive(data, options, compiled=True)


@pytest.mark.parametrize(("data", "message"), NOT_TEXT)
def test_error_names_first_invalid_byte(data, message):
    with pytest.raises(NotTextError) as error:
        count(data, block_bytes=2, compiled=True)

    assert str(error.value) == message


def test_long_token_takes_linear_time():
    # If each of the 16,000 blocks joined the token again, this would copy 16 GB.
    token = "\u00e9" * (1 << 20)

    assert count_all(f"a\u2003{token}\u2003a", block_bytes=128, compiled=True) == {"a": 2, token: 1}
