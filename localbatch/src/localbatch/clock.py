"""The clock of the service: that of the machine, which tests may move forward."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone


class Clock:
    """UTC that never goes back. It follows the clock of the machine after a suspension. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest = datetime.now(timezone.utc)
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the current time."""
        with self._lock:
            self._latest = max(self._latest, datetime.now(timezone.utc) + self._ahead)
            return self._latest

    def advance(self, by: timedelta) -> None:
        """Move the clock forward permanently.

        Raises:
            ValueError: `by` is negative.
        """
        if by < timedelta():
            raise ValueError("A clock cannot go back")
        with self._lock:
            self._ahead += by
