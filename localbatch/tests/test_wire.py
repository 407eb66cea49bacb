import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localbatch import wire
from localbatch.api import paging, properties
from localbatch.errors import ServiceError


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("PT15M00S", "PT15M"),
        ("P1DT01H00M01S", "P1DT1H1S"),
        ("PT00.5S", "PT0.5S"),
        ("P3Y6M4DT12H30M5S", "P1279DT12H30M5S"),
        ("PT36H", "P1DT12H"),
        ("P1W", "P7D"),
        ("PT0S", "PT0S"),
        (wire.INFINITE, wire.INFINITE),
        ("P99999999D", wire.INFINITE),
    ],
)
def test_durations_have_the_format_of_dotnet(given, normal):
    assert wire.normal_duration(given) == normal


@pytest.mark.parametrize("text", ["P", "PT", "", "15M", "PT5", "P1H", "-PT5M", "PT1.S"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(text) or "^$"):
        wire.normal_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_normal_durations_keep_their_length(milliseconds):
    text = f"PT{milliseconds // 1000}.{milliseconds % 1000:03}S"
    assert wire.read_duration(wire.normal_duration(text)) == timedelta(milliseconds=milliseconds)


def test_infinite_duration_never_expires():
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert wire.expiry(now, wire.INFINITE) is None
    assert wire.expiry(now, "P2D") == now + timedelta(days=2)


def test_timestamps_have_seven_digits():
    at = datetime(2024, 10, 24, 1, 15, 18, 995508, tzinfo=timezone.utc)
    assert wire.timestamp(at) == "2024-10-24T01:15:18.9955080Z"


def test_pages_have_no_gaps_or_repetitions():
    records = {f"k{number:02}": number for number in range(25)}
    pages, token = [], None
    while True:
        found, token = paging.page(records, lambda number: number % 2 == 0, 5, token)
        pages.append(found)
        if not token:
            break
        assert not set("+&") & set(token)
    assert pages == [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18], [20, 22, 24]]


def test_full_last_page_has_no_token():
    assert paging.page({"a": 1, "b": 2}, lambda _: True, 2, None) == ([1, 2], None)


def test_invalid_page_token_is_refused():
    with pytest.raises(ServiceError) as caught:
        paging.page({}, lambda _: True, 5, "nonsense")
    assert caught.value.code == "InvalidQueryParameterValue"


def test_integers_may_stand_in_quotes():
    assert properties.read_body({"targetDedicatedNodes": "7"}, "resize") == {"targetDedicatedNodes": 7}
    for value in ("x", True, 1.5, []):
        with pytest.raises(ServiceError):
            properties.read_body({"targetDedicatedNodes": value}, "resize")
