"""The clock of the steps, which tests replace."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """Interface of a clock: the current time, and a way to wait."""

    def now(self) -> datetime:
        """Return the current time in UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""


class SystemClock:
    """The system's clock."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds.

        It sleeps for at most 1 s at a time. A longer sleep would delay a signal handler: Python runs it in the main
        thread, which does not wake up if the system delivers the signal to another thread.
        """
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            time.sleep(min(remaining, 1.0))


SYSTEM_CLOCK = SystemClock()
