"""Instants, durations, ids and pages, as they stand in requests and answers."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

INFINITE = "P10675199DT2H48M5.4775807S"
"""The longest duration of .NET, which is how the service says that there is no limit."""

_TICKS = 10_000_000
"""Of 100 nanoseconds, in a second: the resolution of the service's durations."""
_MOST_TICKS = 2**63 - 1
_DURATION = re.compile(
    r"P(?=[\dT])(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?"
    r"(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,7})\d*)?S)?)?"
)
_UNIT_SECONDS = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)


def timestamp(at: datetime) -> str:
    """Write an instant as the service does, with seven digits of the second."""
    return f"{at.isoformat(timespec='microseconds')[:26]}0Z"


def http_date(at: datetime) -> str:
    """Write an instant for a header."""
    return format_datetime(at, usegmt=True)


def read_http_date(text: str) -> datetime:
    """Read an instant of a header.

    Raises:
        ValueError: It is none.
    """
    try:
        at = parsedate_to_datetime(text)
    except OverflowError as error:
        raise ValueError(text) from error
    if at.tzinfo is None:
        raise ValueError(text)
    return at


def read_ticks(text: str) -> int:
    """Read an ISO 8601 duration in units of 100 nanoseconds.

    Raises:
        ValueError: It is none.
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(text)
    *whole, fraction = match.groups(default="0")
    seconds = sum(int(count) * unit for count, unit in zip(whole, _UNIT_SECONDS, strict=True))
    return min(seconds * _TICKS + int(fraction.ljust(7, "0")), _MOST_TICKS)


def normal_duration(text: str) -> str:
    """Write an ISO 8601 duration as .NET does: in days at most, a year of 365 and a month of 30.

    Raises:
        ValueError: It is no duration.
    """
    seconds, ticks = divmod(read_ticks(text), _TICKS)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    fraction = f".{ticks:07}".rstrip("0") if ticks else ""
    time = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    time += f"{seconds}{fraction}S" if seconds or ticks else ""
    if not days and not time:
        return "PT0S"
    return "P" + (f"{days}D" if days else "") + (f"T{time}" if time else "")


def read_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration.

    Raises:
        ValueError: It is no duration.
    """
    return timedelta(microseconds=read_ticks(text) // 10)


def expiry(start: datetime, duration: str) -> datetime | None:
    """Return the instant at which a duration is over, or None if that is beyond the calendar."""
    try:
        return start + read_duration(duration)
    except OverflowError:
        return None


def new_node_id(*, dedicated: bool) -> str:
    """Return an id of the service's form."""
    return f"tvmps_{secrets.token_hex(32)}_{'d' if dedicated else 'p'}"
