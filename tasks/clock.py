"""The clock of the steps, which tests replace. It follows the clock of the services.

Deadlines, expiries and signatures are compared with the services' clock, which this machine's clock can differ from.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Protocol

# Half of the difference that tokens and signatures tolerate.
MAX_CLOCK_DIFFERENCE = timedelta(minutes=5)

# Differences up to this are delays of the network, or seconds that a date leaves out.
MAX_DELAY = timedelta(seconds=30)

# How far the clock of each service is ahead of this machine's.
_ahead: dict[str, timedelta] = {}


class Clock(Protocol):
    """Interface of a clock: the current time, and a way to wait."""

    def now(self) -> datetime:
        """Return the current time in UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""


def read_http_date(text: str | None) -> datetime | None:
    """Parse the `Date` of an answer; return None if it is not valid."""
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)


def learn_service_time(service: str, date: datetime) -> None:
    """Compare this machine's clock with the `Date` of an answer of a service."""
    ahead = date - datetime.now(timezone.utc)
    if abs(ahead) <= MAX_DELAY:
        _ahead.pop(service, None)
    elif abs(ahead - _ahead.get(service, timedelta())) > MAX_DELAY:
        _ahead[service] = ahead


def service_time(service: str = "Batch", at: datetime | None = None) -> datetime:
    """Return the current time in UTC by the clock of a service, as far as its answers tell it.

    Args:
        service: "Batch" or "Storage".
        at: Another time than now, by this machine's clock.
    """
    return (at or datetime.now(timezone.utc)) + _ahead.get(service, timedelta())


def clock_warning() -> str | None:
    """Return a sentence if this machine's clock differs too much from that of a service."""
    differing = (
        describe_difference(ahead, service) for service, ahead in _ahead.items() if abs(ahead) > MAX_CLOCK_DIFFERENCE
    )
    return next(differing, None)


def describe_difference(ahead: timedelta, service: str) -> str:
    """Return a sentence about a service's clock that is ahead of this machine's."""
    minutes = round(abs(ahead) / timedelta(minutes=1))
    how = "behind" if ahead > timedelta() else "ahead of"
    return (
        f"This machine's clock is {minutes} minutes {how} that of {service}. "
        "Synchronize it (NTP): tokens and signatures depend on it."
    )


class SystemClock:
    """The system's clock, corrected by its difference from that of Batch, which enforces deadlines."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return service_time()

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds.

        It sleeps for at most 1 s at a time. A longer sleep would delay a signal handler: Python runs it in the main
        thread, which does not wake up if the system delivers the signal to another thread.
        """
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            time.sleep(min(remaining, 1.0))


SYSTEM_CLOCK = SystemClock()
