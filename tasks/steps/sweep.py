"""Delete what dead runs left behind.

A run is dead if its process in this folder has ended, if its heartbeat is 15 minutes old, or if its deadline has passed.
A sweep needs no Prefect server. It only deletes resources that have both the name and the metadata of a run.

The pool of a dead run is deleted at once. Its job and containers can have results, which the next run of the same work
collects. They are deleted after that, or at their expiry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from prefect.logging import get_run_logger

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.values import Job
from tasks.clock import read_http_date, service_time
from tasks.errors import NotFoundError
from tasks.model.naming import CLEANUP_MARK, NAME_PREFIX, PARTIALS_CONTAINER, RUN_NAME, is_owned_by
from tasks.steps.cleanup import (
    Resources,
    delete,
    describe,
    find_resources,
    log_remaining,
    select,
    without_kept,
)
from tasks.steps.life import MAX_HEARTBEAT_AGE, LifeFile, forget_dead_runs, read_life_file
from tasks.steps.step import step


@dataclass(frozen=True, kw_only=True)
class DeadRun:
    """One attempt of a dead run.

    Attributes:
        name: Name of the attempt, and of its job and pool.
        jobs: Its jobs, including those that it keeps.
        resources: What it left behind, without what it keeps.
        may_have_results: Whether its job has results that nobody has collected.
    """

    name: str
    jobs: tuple[Job, ...]
    resources: Resources
    may_have_results: bool


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The result of a sweep.

    Attributes:
        found: The resources to delete. A dry run deletes none of them.
        remaining: Resources that could not be deleted or listed, with the reasons.
        waiting: Jobs and containers that stay until their expiry, because they may have results.
    """

    found: tuple[str, ...]
    remaining: Mapping[str, str]
    waiting: tuple[str, ...]


@step("sweep")
def sweep_dead_runs(older_than_hours: float, dry_run: bool) -> SweepResult:
    """Delete the resources of dead runs, and log each name."""
    swept = sweep(batch_account(), blob_account(), timedelta(hours=older_than_hours), dry_run=dry_run)
    log_sweep(swept, is_dry_run=dry_run)
    return swept


def log_sweep(swept: SweepResult, *, is_dry_run: bool = False) -> None:
    """Write what a sweep did to the log of the run."""
    logger = get_run_logger()
    for name in swept.found:
        if name not in swept.remaining:
            logger.info("%s: %s", "Leftover" if is_dry_run else "Deleted leftover", name)
    log_remaining(logger, swept.remaining)


def sweep(
    batch: BatchAccount,
    blobs: BlobAccount,
    older_than: timedelta = timedelta(0),
    *,
    dry_run: bool = False,
    collect: Callable[[DeadRun], bool] = lambda _: False,
) -> SweepResult:
    """Delete the resources of dead runs.

    Args:
        batch: The Batch account.
        blobs: The storage account.
        older_than: Only delete the resources of runs that died at least this long ago.
        dry_run: Only find the resources.
        collect: Collects the results of a dead run, and returns whether it has no others.
    """
    resources = find_resources(batch, blobs, NAME_PREFIX)
    # After the first request, the clock of the services is known.
    by = service_time() - older_than
    dead = [
        replace(run, may_have_results=run.may_have_results and not collect(run))
        for run in find_dead_runs(resources, by)
    ]
    waiting = [name for run in dead if run.may_have_results for name in replace(run.resources, pools=()).names]
    errors = dict(resources.errors)
    found: list[str] = []
    for run in dead:
        unneeded = replace(run.resources, jobs=(), containers={}) if run.may_have_results else run.resources
        found += unneeded.names
        if not dry_run:
            errors |= delete(batch, blobs, unneeded, mark=unneeded.jobs)
    if not dry_run and not resources.errors:
        found_runs = {attempt for name, metadata in resources.metadata if (attempt := attempt_of(name, metadata))}
        forget_dead_runs(except_for={flow_run_id_of(attempt) for attempt in found_runs})
    return SweepResult(found=tuple(found), remaining=describe(errors), waiting=tuple(waiting))


def sweep_partials(blobs: BlobAccount, older_than: timedelta, *, dry_run: bool = False) -> int:
    """Delete the partials and merges that were made at least this long ago, and return their number.

    Runs that need one of them count its files again.
    """
    try:
        listed = list(blobs.list_blobs(PARTIALS_CONTAINER))
    except NotFoundError:
        return 0
    # After the first request, the clock of the service is known.
    by = service_time("Storage") - older_than
    old = [blob.name for blob in listed if (written_at := read_http_date(blob.modified)) and written_at <= by]
    for name in () if dry_run else old:
        blobs.delete_blob(PARTIALS_CONTAINER, name)
    return len(old)


def find_dead_runs(resources: Resources, by: datetime) -> list[DeadRun]:
    """Return the attempts, among the given resources, that were already dead at the time `by`."""
    names = {attempt_of(name, metadata): None for name, metadata in resources.metadata}
    attempts = [(name, select(resources, lambda _, *of, name=name: attempt_of(*of) == name)) for name in names if name]
    return [run for name, own in attempts if (run := _dead_run(name, own, resources.errors, by)) is not None]


def _dead_run(name: str, own: Resources, errors: Mapping[str, Exception], by: datetime) -> DeadRun | None:
    expiries = [datetime.fromisoformat(metadata["expires_at"]) for _, metadata in own.metadata]
    ages = [container.age for container in own.containers.values()]
    file = read_life_file(flow_run_id_of(name))
    died_at = _died_at(file, max(expiries), min(ages, default=timedelta(0)))
    if died_at is None or died_at > by:
        return None
    has_ended = file is not None and file.has_ended
    # If the jobs could not be listed, one may exist.
    is_collectable = bool(errors) or any(CLEANUP_MARK not in job.metadata for job in own.jobs)
    return DeadRun(
        name=name,
        jobs=own.jobs,
        resources=without_kept(own),
        may_have_results=is_collectable and not has_ended and max(expiries) > by,
    )


def _died_at(file: LifeFile | None, expires_at: datetime, heartbeat_age: timedelta) -> datetime | None:
    """Return from when on a run counts as dead; None if it is alive."""
    if file is not None:
        return None if file.is_alive and not file.has_ended else file.written_at
    if heartbeat_age > MAX_HEARTBEAT_AGE:
        return service_time() - heartbeat_age + MAX_HEARTBEAT_AGE
    return expires_at


def attempt_of(name: str, metadata: Mapping[str, str]) -> str | None:
    """Return the attempt of a run that a resource belongs to; None if name or metadata are not those of a run."""
    match = RUN_NAME.fullmatch(name)
    if match is None or not is_owned_by(flow_run_id_of(match["attempt"]), metadata):
        return None
    try:
        has_expiry = datetime.fromisoformat(metadata.get("expires_at", "")).tzinfo is not None
    except ValueError:
        return None
    return match["attempt"] if has_expiry else None


def flow_run_id_of(attempt: str) -> str:
    """Return the id of the flow run in the name of an attempt."""
    return str(UUID(attempt.split("-")[1]))
