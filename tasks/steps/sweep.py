"""Delete the resources of dead runs, of all flow runs.

A run is dead if its deadline has passed, or if its flow run has ended on the Prefect server in use here. Runs of other
servers count as alive until their deadlines. A sweep only deletes resources that have both the name and the metadata of
a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from uuid import UUID

from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.errors import ServiceError
from tasks.model.naming import NAME_PREFIX, RUN_NAME, is_owned_by
from tasks.steps.cleanup import Leftovers, delete, leftovers_below
from tasks.steps.start import address_of
from tasks.steps.step import step


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The resources that a sweep found, and the errors of failed deletions by name."""

    leftovers: Leftovers
    failures: Mapping[str, str]


@step("sweep")
def sweep_dead_runs(older_than_hours: float, dry_run: bool) -> SweepResult:
    """Delete the resources of dead runs, and log each name."""
    return _sweep_and_log(timedelta(hours=older_than_hours), dry_run=dry_run)


@step("sweep", retries=0)
def sweep_before_run() -> None:
    """Delete the resources of dead runs before a new run; an error does not stop the run."""
    try:
        _sweep_and_log(timedelta(0), dry_run=False)
    except ServiceError as error:
        get_run_logger().warning("The sweep failed: %s", error)


def _sweep_and_log(older_than: timedelta, *, dry_run: bool) -> SweepResult:
    now = datetime.now(timezone.utc)
    swept = sweep(batch_account(), blob_account(), ended_at_on_own_server, now - older_than, dry_run=dry_run)
    logger = get_run_logger()
    for name in swept.leftovers.names:
        logger.info("%s: %s", "Leftover" if dry_run else "Deleted leftover", name)
    for name, reason in swept.failures.items():
        logger.error("Could not delete %s: %s", name, reason)
    return swept


def sweep(
    batch: BatchAccount,
    blobs: BlobAccount,
    ended_at: Callable[[UUID, str], datetime | None],
    by: datetime,
    *,
    dry_run: bool = False,
) -> SweepResult:
    """Delete the jobs, pools and containers of runs that were already dead at the time `by`.

    Args:
        batch: The Batch account.
        blobs: The storage account.
        ended_at: Returns when a flow run ended, from its id and the address of its Prefect server; None if it has not
            ended or is not known.
        by: Now, or an earlier time to keep the resources of runs that died since.
        dry_run: Only find the resources.
    """
    end_times: dict[tuple[UUID, str], datetime | None] = {}

    def is_dead(name: str, metadata: Mapping[str, str]) -> bool:
        flow_run_id = _owner(name, metadata)
        expires_at = _instant(metadata.get("expires_at", ""))
        if flow_run_id is None or expires_at is None or metadata.get("kept"):
            return False
        if expires_at <= by:
            return True
        run = (flow_run_id, metadata.get("prefect_api", ""))
        if run not in end_times:
            end_times[run] = ended_at(*run)
        end = end_times[run]
        return end is not None and end <= by

    leftovers = leftovers_below(batch, blobs, NAME_PREFIX, is_dead)
    return SweepResult(leftovers=leftovers, failures={} if dry_run else delete(batch, blobs, leftovers))


def ended_at_on_own_server(flow_run_id: UUID, prefect_api: str) -> datetime | None:
    """Return when a flow run ended; None if it has not ended or is not on the Prefect server in use here.

    Other servers are never contacted. Their addresses come from metadata that others can write, and a request would
    send this server's credentials there.
    """
    with get_client(sync_client=True) as client:
        if address_of(client) != prefect_api:
            return None
        try:
            flow_run = client.read_flow_run(flow_run_id)
        except ObjectNotFound:
            return None
    return flow_run.state.timestamp if flow_run.state is not None and flow_run.state.is_final() else None


def _owner(name: str, metadata: Mapping[str, str]) -> UUID | None:
    """Return the id of the flow run in the name of a resource if the metadata has the same one; otherwise None."""
    match = RUN_NAME.fullmatch(name)
    if match is None:
        return None
    flow_run_id = UUID(match.group(1))
    return flow_run_id if is_owned_by(str(flow_run_id), metadata) else None


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else None
