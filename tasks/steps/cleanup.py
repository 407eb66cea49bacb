"""Delete the resources of a flow run, in whatever state the run ended.

A cleanup finds all resources by the id of the flow run, so a new process can do it, and it can be interrupted and
repeated. It needs neither Prefect nor the state folder. Batch and Storage are cleaned up independently: an error of one
does not stop the other. It never raises an error of a service, but returns what remains.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.azure.block import block_of_run
from tasks.azure.settings import use_block
from tasks.azure.values import Container, Job, Pool
from tasks.clock import SYSTEM_CLOCK
from tasks.errors import ConfigurationError, ServiceError
from tasks.model.cleanup import HOW_TO_REMOVE, Cleanup
from tasks.model.naming import CLEANUP_ARTIFACT, is_owned_by, run_prefix
from tasks.model.run import Keep
from tasks.progress import cleanup_ended, cleanup_started
from tasks.redaction import redact
from tasks.report.artifacts import publish_end
from tasks.report.events import emit_incomplete_cleanup
from tasks.report.markdown import escape_markdown
from tasks.steps.life import mark_ended
from tasks.text import printable

# Azure finishes deletions by itself after the request. The local Azure finishes within this time.
MAX_WAIT_SECONDS = 10.0

# Each request has its own retries. After a transient error, the cleanup is repeated until this time has passed.
MAX_RETRY_SECONDS = 60.0
RETRY_SECONDS = 2.0

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of runs in both services.

    Attributes:
        containers: The containers, by name.
        errors: Errors of the listings that failed, by what they list.
    """

    jobs: tuple[Job, ...] = ()
    pools: tuple[Pool, ...] = ()
    containers: Mapping[str, Container] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)

    @property
    def metadata(self) -> list[tuple[str, Mapping[str, str]]]:
        """The name, without its kind, and the metadata of each resource."""
        return [
            *((job.job_id, job.metadata) for job in self.jobs),
            *((pool.pool_id, pool.metadata) for pool in self.pools),
            *((name, container.metadata) for name, container in self.containers.items()),
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, each with its kind, such as "job topn-…"."""
        return (
            *(f"job {job.job_id}" for job in self.jobs),
            *(f"pool {pool.pool_id}" for pool in self.pools),
            *(f"container {name}" for name in self.containers),
        )


def clean_up(flow: Flow[..., object], flow_run: FlowRun, state: State[object]) -> None:
    """Delete the resources of a flow run, except kept ones; the hook for every final state.

    What remains is reported to the progress listeners, in the log, in the state message, in an artifact and in an event. A
    run that ended before its report gets a summary that says why.
    """
    cleanup_started()
    log = flow_run_logger(flow_run, flow)
    try:
        with use_block(block_of_run(flow, flow_run.parameters)):
            cleanup = clean_up_run(flow_run.id)
    except ConfigurationError as error:
        # Without settings, the run created nothing. If the settings changed during the run, a sweep deletes the rest.
        log.warning("Nothing was cleaned up: %s", error)
        cleanup = Cleanup()
    else:
        cleanup_ended(cleanup.remaining)
    if cleanup.deleted:
        log.info("Deleted %s.", ", ".join(cleanup.deleted))
    log_remaining(log, cleanup.remaining)
    _report_to_prefect(flow, flow_run.id, state, cleanup)
    if cleanup.remaining:
        emit_incomplete_cleanup(flow_run, cleanup)


def clean_up_run(flow_run_id: UUID, keep: Keep | None = None) -> Cleanup:
    """Delete the resources of a flow run, in all its generations.

    Args:
        flow_run_id: Id of the flow run.
        keep: What to keep. By default, what the run marked as kept in the metadata.

    Raises:
        ConfigurationError: The settings are missing or invalid.
    """
    batch, blobs = batch_account(), blob_account()
    deleted: set[str] = set()
    started = time.monotonic()
    while True:
        found = of_run(find_resources(batch, blobs, run_prefix(str(flow_run_id))), str(flow_run_id))
        mark_ended(str(flow_run_id))
        unkept = without_kept(found, keep)
        errors = {**found.errors, **delete(batch, blobs, unkept, mark=found.jobs)}
        deleted |= {name for name in unkept.names if name not in errors}
        is_transient = any(isinstance(error, ServiceError) and error.transient for error in errors.values())
        if not is_transient or time.monotonic() - started > MAX_RETRY_SECONDS:
            return Cleanup(deleted=tuple(sorted(deleted)), remaining=describe(errors))
        SYSTEM_CLOCK.sleep(RETRY_SECONDS)


def find_resources(batch: BatchAccount, blobs: BlobAccount, prefix: str) -> Resources:
    """Find the jobs, pools and containers whose names start with `prefix`, except those that are being deleted."""
    errors: dict[str, Exception] = {}
    jobs = _attempt(errors, f"jobs {prefix}…", partial(batch.list_jobs, prefix))
    pools = _attempt(errors, f"pools {prefix}…", partial(batch.list_pools, prefix))
    containers = _attempt(errors, f"containers {prefix}…", partial(blobs.list_containers, prefix))
    return Resources(
        jobs=tuple(job for job in jobs or () if job.state != "deleting"),
        pools=tuple(pool for pool in pools or () if pool.state != "deleting"),
        containers=containers or {},
        errors=errors,
    )


def of_run(resources: Resources, flow_run_id: str) -> Resources:
    """Return the resources that belong to a flow run. A name alone is no proof."""
    return select(resources, lambda _kind, _name, metadata: is_owned_by(flow_run_id, metadata))


def without_kept(resources: Resources, keep: Keep | None = None) -> Resources:
    """Return the resources that are not kept: neither by `keep`, nor, without it, by their metadata."""

    def is_unkept(kind: str, _name: str, metadata: Mapping[str, str]) -> bool:
        return not metadata.get("kept") if keep is None else not getattr(keep, kind)

    return select(resources, is_unkept)


def delete(
    batch: BatchAccount, blobs: BlobAccount, resources: Resources, *, mark: Collection[Job] = ()
) -> dict[str, Exception]:
    """Delete jobs, pools and containers, after marking the jobs in `mark`; return the errors by name.

    A later attempt of the flow run does not adopt a marked job, even if its deletion fails.
    """
    unmarked: dict[str, Exception] = {}
    for job in mark:
        _attempt(unmarked, job.job_id, partial(batch.mark_job, job))
    for job_id, error in unmarked.items():
        logger.info("Could not mark job %s: %s", job_id, error)
    errors: dict[str, Exception] = {}
    errors |= batch.delete_jobs_and_pools(
        [job.job_id for job in resources.jobs], [pool.pool_id for pool in resources.pools], MAX_WAIT_SECONDS
    )
    for name in resources.containers:
        _attempt(errors, f"container {name}", partial(blobs.delete_container, name))
    return errors


def log_remaining(log: logging.Logger | logging.LoggerAdapter[logging.Logger], remaining: Mapping[str, str]) -> None:
    """Write what could not be deleted to the log of a run."""
    for name, reason in remaining.items():
        log.error("Could not delete %s: %s", name, reason)


def describe(errors: Mapping[str, Exception]) -> dict[str, str]:
    """Return the reasons of errors, for users."""
    return {name: printable(redact(str(error) or type(error).__name__)) for name, error in errors.items()}


def select(resources: Resources, is_selected: Callable[[str, str, Mapping[str, str]], bool]) -> Resources:
    """Return the resources for whose kind (as in `Keep`), name and metadata `is_selected` is true."""
    return Resources(
        jobs=tuple(job for job in resources.jobs if is_selected("job", job.job_id, job.metadata)),
        pools=tuple(pool for pool in resources.pools if is_selected("pool", pool.pool_id, pool.metadata)),
        containers={
            name: container
            for name, container in resources.containers.items()
            if is_selected("containers", name, container.metadata)
        },
        errors=resources.errors,
    )


def _attempt(errors: dict[str, Exception], name: str, operation: Callable[[], T]) -> T | None:
    """Return the result of an operation. After an error, record it under `name` and return None."""
    try:
        return operation()
    except ServiceError as error:
        errors[name] = error
    except Exception as error:
        logger.exception("An unexpected error in the cleanup of %s.", name)
        errors[name] = error
    return None


def _report_to_prefect(flow: Flow[..., object], flow_run_id: UUID, state: State[object], cleanup: Cleanup) -> None:
    """Write the artifact of the cleanup and that of a run without a report, and add what remains to the run's state."""
    try:
        with get_client(sync_client=True) as client:
            publish_end(client, flow.name, flow_run_id, state)
            if cleanup.deleted or cleanup.remaining:
                client.create_artifact(
                    ArtifactCreate(
                        key=CLEANUP_ARTIFACT,
                        type="markdown",
                        description=f"{len(cleanup.deleted)} deleted, {len(cleanup.remaining)} left behind.",
                        data=render_cleanup(cleanup),
                        flow_run_id=flow_run_id,
                    )
                )
            if cleanup.remaining:
                # The engine writes this state to the log as the last line.
                state.message = f"{state.message or state.name} {cleanup.problem}"
                client.set_flow_run_state(flow_run_id, state, force=True)
    except Exception:  # The user of a terminal sees what remains, even if the Prefect server does not answer.
        logger.exception("The cleanup could not be reported to the Prefect server.")


def render_cleanup(cleanup: Cleanup) -> str:
    """Render the result of a cleanup as Markdown."""
    lines = ["Deleted:", "", *(f"- {escape_markdown(name)}" for name in cleanup.deleted)]
    if cleanup.remaining:
        lines += ["", "Could not be deleted:", ""]
        lines += [f"- {escape_markdown(f'{name}: {reason}')}" for name, reason in cleanup.remaining.items()]
        lines += ["", HOW_TO_REMOVE]
    return "\n".join(lines)
