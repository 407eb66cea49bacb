"""A long property test: all ways of counting agree on any bytes."""

from __future__ import annotations

from compiled_support import counts_library, library_in_package  # noqa: F401 - fixtures
from counting_support import BYTES, OPTIONS, check_error_against_naive
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=500)
@given(BYTES, OPTIONS, st.booleans())
def test_all_ways_of_counting_agree(data, options, compiled):
    check_error_against_naive(data, options, compiled=compiled)
