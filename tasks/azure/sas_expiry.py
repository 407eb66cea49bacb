"""When the signed URLs of nodes expire, and when they must be renewed."""

from __future__ import annotations

from datetime import datetime, timedelta

from tasks.model.run import Run

# Batch tasks that the job's wall clock terminates still upload their outputs, which needs a valid signature.
UPLOAD_MARGIN = timedelta(minutes=15)

# A leaked URL is usable for at most one day, however long the run lasts.
MAX_LIFETIME = timedelta(hours=24)

# A Batch task has at least this much time before its signatures expire, whenever it starts.
MIN_REMAINING_LIFETIME = MAX_LIFETIME / 2


def last_use_at(run: Run) -> datetime:
    """Return the last instant at which a run needs a valid signature."""
    return run.deadline_at + UPLOAD_MARGIN


def expiry(run: Run, now: datetime) -> datetime:
    """Return the expiry of a signature that is created at `now`."""
    return min(now + MAX_LIFETIME, last_use_at(run))


def needs_renewal(run: Run, expires_at: datetime, now: datetime) -> bool:
    """Check whether a signature that is not used yet expires soon, and before it is last needed."""
    return expires_at < last_use_at(run) and expires_at - now < MIN_REMAINING_LIFETIME
