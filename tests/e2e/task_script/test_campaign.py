"""A long campaign: any bytes are counted, or refused, the same in every way of counting."""

from __future__ import annotations

import pytest
from compiled_support import compiled_is_found, counts_object  # noqa: F401 - fixtures
from counting_support import BYTES, WAYS, WAYS_OF_PROCESSES, check_error_against_naive
from hypothesis import given, settings
from hypothesis import strategies as st

# From 3.12 on, Python warns of forking beside threads; the task script has none, but these tests may.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@settings(max_examples=500, deadline=None)
@given(BYTES, st.one_of(WAYS, WAYS, WAYS, WAYS_OF_PROCESSES), st.booleans())
def test_every_way_of_counting_agrees(data, options, compiled):
    check_error_against_naive(data, options, compiled=compiled)
