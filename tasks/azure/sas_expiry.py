"""How long the signed URLs that nodes get are good: never shorter than what uses them, never longer than the run."""

from __future__ import annotations

from datetime import datetime, timedelta

from tasks.model.run import Run

# Uploads of Batch tasks that end with the job's wall clock still need their signature.
AFTER_DEADLINE = timedelta(minutes=15)

# A URL that leaks is good for a day at most, however long the run may last.
LIFE = timedelta(hours=24)

# A Batch task that starts at any time has at least this long before its signatures end.
MIN_LEFT = LIFE / 2


def last_needed_at(run: Run) -> datetime:
    """Until when any signature of a run can be needed."""
    return run.deadline_at + AFTER_DEADLINE


def expiry(run: Run, now: datetime) -> datetime:
    """When a signature that is made now ends."""
    return min(now + LIFE, last_needed_at(run))


def must_be_renewed(run: Run, expires_at: datetime, now: datetime) -> bool:
    """Whether something that has not started yet needs a new signature: the old one ends soon, and before the run."""
    return expires_at < last_needed_at(run) and expires_at - now < MIN_LEFT
