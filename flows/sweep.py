"""The `sweep` flow, which deletes what dead runs left behind."""

# No `from __future__ import annotations`: Prefect sends a flow to another process without the names of this module, so
# that annotations in text could not be evaluated there.

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.model.parameters import DEFAULT_BLOCK, BlockName
from tasks.steps.sweep import SweepResult, sweep_dead_runs


@flow(name="sweep")
def sweep(
    older_than_hours: Annotated[float, Field(ge=0)] = 0,
    dry_run: bool = False,
    azure_block: BlockName = DEFAULT_BLOCK,  # noqa: ARG001 - `configured_azure` reads it from the flow run
) -> SweepResult:
    """Delete the pools, jobs and containers of runs that ended or are past their deadline.

    Args:
        older_than_hours: Only delete leftovers of runs that died at least this many hours ago.
        dry_run: Log what would be deleted, and delete nothing.
        azure_block: Name of the Prefect block of the type "topn Azure" with the accounts.
    """
    return sweep_dead_runs(older_than_hours, dry_run)
