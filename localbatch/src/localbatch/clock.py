"""The service's clock: the machine's, and a test may move it forward."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone


class Clock:
    """UTC that never goes back, but goes on with the machine's clock after a suspension. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest = datetime.now(timezone.utc)
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the instant."""
        with self._lock:
            self._latest = max(self._latest, datetime.now(timezone.utc) + self._ahead)
            return self._latest

    def advance(self, by: timedelta) -> None:
        """Move the clock forward, for good.

        Raises:
            ValueError: That would be back.
        """
        if by < timedelta():
            raise ValueError("A clock does not go back")
        with self._lock:
            self._ahead += by
