"""Delete the resources of a flow run, in whatever state the run ended.

A cleanup finds all resources by the id of the flow run, so a new process can do it. It can be interrupted and repeated.
When a deletion fails, it continues with the others and records the failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.errors import ConfigurationError, ServiceError
from tasks.model.naming import CLEANUP_ARTIFACT, is_owned_by, run_prefix
from tasks.model.run import Keep
from tasks.progress import cleaning_up
from tasks.report.markdown import escape_markdown

# Azure finishes deletions by itself after the request. The local Azure finishes within this time.
MAX_WAIT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """Names of the resources of flow runs that still exist."""

    jobs: tuple[str, ...]
    pools: tuple[str, ...]
    containers: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, each with its kind, such as "job topn-…"."""
        return (
            *(f"job {name}" for name in self.jobs),
            *(f"pool {name}" for name in self.pools),
            *(f"container {name}" for name in self.containers),
        )


def clean_up(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Delete the resources of a flow run, except those that its parameters keep; the hook for every final state."""
    del state
    cleaning_up()
    logger = flow_run_logger(flow_run, flow)
    kept = {name: bool(flow_run.parameters.get(f"keep_{name}", False)) for name in ("containers", "job", "pool")}
    try:
        failures = clean_up_run(flow_run.id, Keep(**kept))
    except ConfigurationError as error:
        # Without settings, the run created nothing. If the settings changed during the run, a sweep deletes the rest.
        logger.warning("Nothing was cleaned up: %s", error)
        return
    for name, reason in failures.items():
        logger.error("Could not delete %s: %s", name, reason)


def clean_up_run(flow_run_id: UUID, keep: Keep) -> dict[str, str]:
    """Delete the resources of a flow run, after recording the cleanup as an artifact.

    Returns:
        Errors of failed deletions, by name.
    """
    batch, blobs = batch_account(), blob_account()
    leftovers = find_leftovers(batch, blobs, flow_run_id, keep)
    if not leftovers.names:
        return {}
    record = _record(flow_run_id, leftovers)
    failures = delete(batch, blobs, leftovers)
    _complete_record(record, leftovers, failures)
    return failures


def find_leftovers(batch: BatchAccount, blobs: BlobAccount, flow_run_id: UUID, keep: Keep) -> Leftovers:
    """Find the resources with the name and the metadata of a flow run, in all its generations."""
    own = str(flow_run_id)
    found = leftovers_below(batch, blobs, run_prefix(own), lambda _, metadata: is_owned_by(own, metadata))
    return Leftovers(
        jobs=() if keep.job else found.jobs,
        pools=() if keep.pool else found.pools,
        containers=() if keep.containers else found.containers,
    )


def leftovers_below(
    batch: BatchAccount, blobs: BlobAccount, prefix: str, is_leftover: Callable[[str, Mapping[str, str]], bool]
) -> Leftovers:
    """Find the resources whose names start with `prefix` and for which `is_leftover` is true.

    Jobs and pools that are being deleted are left out.
    """
    return Leftovers(
        jobs=tuple(
            job.job_id
            for job in batch.jobs(prefix)
            if job.state != "deleting" and is_leftover(job.job_id, job.metadata)
        ),
        pools=tuple(
            pool.pool_id
            for pool in batch.pools(prefix)
            if pool.state != "deleting" and is_leftover(pool.pool_id, pool.metadata)
        ),
        containers=tuple(name for name, metadata in blobs.containers(prefix).items() if is_leftover(name, metadata)),
    )


def delete(batch: BatchAccount, blobs: BlobAccount, leftovers: Leftovers) -> dict[str, str]:
    """Delete jobs, pools and containers, and return the errors of failed deletions by name."""
    failures = {
        name: str(error)
        for name, error in batch.delete_jobs_and_pools(leftovers.jobs, leftovers.pools, MAX_WAIT_SECONDS).items()
    }
    for name in leftovers.containers:
        try:
            blobs.delete_container(name)
        except ServiceError as error:
            failures[f"container {name}"] = str(error)
    return failures


def _record(flow_run_id: UUID, leftovers: Leftovers) -> UUID:
    """Record the cleanup in an artifact; a later attempt of the flow run counts these records and uses new names."""
    with get_client(sync_client=True) as client:
        artifact = client.create_artifact(
            ArtifactCreate(
                key=CLEANUP_ARTIFACT,
                type="markdown",
                description="What the cleanup of this run deletes.",
                data="\n".join(["Deleting:", "", *(f"- {escape_markdown(name)}" for name in leftovers.names)]),
                flow_run_id=flow_run_id,
            )
        )
    return artifact.id


def _complete_record(artifact_id: UUID, leftovers: Leftovers, failures: Mapping[str, str]) -> None:
    try:
        with get_client(sync_client=True) as client:
            client.update_artifact(artifact_id, ArtifactUpdate(data=render_record(leftovers, failures)))
    except Exception:  # The deletions are done: an incomplete record must not fail the cleanup.
        logging.getLogger(__name__).exception("Could not complete the record of the cleanup.")


def render_record(leftovers: Leftovers, failures: Mapping[str, str]) -> str:
    """Render the result of a cleanup as Markdown."""
    lines = ["Deleted:", "", *(f"- {escape_markdown(name)}" for name in leftovers.names if name not in failures)]
    if failures:
        lines += ["", "Could not be deleted:", ""]
        lines += [f"- {escape_markdown(f'{name}: {reason}')}" for name, reason in failures.items()]
    return "\n".join(lines)
