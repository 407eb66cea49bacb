"""The formats of timestamps, durations and ids in requests and responses."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

# The longest duration of .NET, which the service uses for "no limit".
INFINITE = "P10675199DT2H48M5.4775807S"

# Durations have a resolution of 100 nanoseconds, the ticks of .NET.
_TICKS_PER_SECOND = 10_000_000
_MAX_TICKS = 2**63 - 1
_DURATION = re.compile(
    r"P(?=[\dT])(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?"
    r"(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,7})\d*)?S)?)?"
)
_UNIT_SECONDS = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)


def timestamp(at: datetime) -> str:
    """Format an instant like the service, with seven digits of the second."""
    return f"{at.isoformat(timespec='microseconds')[:26]}0Z"


def read_timestamp(text: str) -> datetime:
    """Parse an instant that `timestamp` formatted."""
    return datetime.fromisoformat(f"{text[:26]}+00:00")


def http_date(at: datetime) -> str:
    """Format an instant for a header."""
    return format_datetime(at, usegmt=True)


def read_http_date(text: str) -> datetime:
    """Parse an instant in a header.

    Raises:
        ValueError: The text is not a date with a time zone.
    """
    try:
        at = parsedate_to_datetime(text)
    except OverflowError as error:
        raise ValueError(text) from error
    if at.tzinfo is None:
        raise ValueError(text)
    return at


def read_ticks(text: str) -> int:
    """Parse an ISO 8601 duration into units of 100 nanoseconds.

    Raises:
        ValueError: The text is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(text)
    *whole, fraction = match.groups(default="0")
    seconds = sum(int(count) * unit for count, unit in zip(whole, _UNIT_SECONDS, strict=True))
    return min(seconds * _TICKS_PER_SECOND + int(fraction.ljust(7, "0")), _MAX_TICKS)


def normal_duration(text: str) -> str:
    """Convert an ISO 8601 duration into the format of .NET. Years become 365 days, months 30.

    Raises:
        ValueError: The text is not a duration.
    """
    seconds, ticks = divmod(read_ticks(text), _TICKS_PER_SECOND)
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
    """Parse an ISO 8601 duration.

    Raises:
        ValueError: The text is not a duration.
    """
    return timedelta(microseconds=read_ticks(text) // 10)


def expiry(start: datetime, duration: str) -> datetime | None:
    """Return the end of a duration, or None if it is after the year 9999."""
    try:
        return start + read_duration(duration)
    except OverflowError:
        return None


def new_node_id(*, dedicated: bool) -> str:
    """Return the id of a new node, in the format of the service."""
    return f"tvmps_{secrets.token_hex(32)}_{'d' if dedicated else 'p'}"
