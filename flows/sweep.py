"""The flow that deletes what dead runs left behind, every hour."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.steps.sweep import Swept, sweep_dead_runs


@flow(name="sweep")
def sweep(older_than_hours: Annotated[float, Field(ge=0)] = 0, dry_run: bool = False) -> Swept:
    """Delete pools, jobs and containers of runs that are past their deadline, or have ended.

    Args:
        older_than_hours: Leave alone what died less than this many hours ago.
        dry_run: Only log what is left behind.
    """
    return sweep_dead_runs(older_than_hours, dry_run)
