"""Time as the steps see it, so that a test can move it."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """What waiting needs to know of time."""

    def now(self) -> datetime:
        """The instant, in UTC."""

    def sleep(self, seconds: float) -> None:
        """Come back after that long."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """The instant, in UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Come back after that long.

        In short sleeps, since one may go on through a signal that the system gave to another thread.
        """
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))


SYSTEM_CLOCK = SystemClock()
