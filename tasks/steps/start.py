"""Start a run: choose its name and its deadline, or adopt those of an earlier attempt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from tasks.azure.accounts import batch_account, blob_account
from tasks.azure.batch import BatchAccount
from tasks.azure.blob import BlobAccount
from tasks.errors import ForeignResourceError
from tasks.model.naming import CLEANUP_ARTIFACT, run_prefix
from tasks.model.run import Keep, Run
from tasks.progress import run_started
from tasks.steps.step import step

# An earlier attempt that has less time than this before its deadline is not continued.
MIN_REMAINING_TIME = timedelta(minutes=1)


@step("start")
def start_run(timeout_minutes: float, keep: Keep) -> Run:
    """Return the run, named by its flow run and the number of cleanups so far.

    A repeated flow run adopts the resources and the deadline of the earlier attempt. If that deadline has passed or the
    job has ended, the run uses the next name instead, as after a cleanup.
    """
    flow_run_id = str(flow_run.id)
    run_started(flow_run_id)
    with get_client(sync_client=True) as client:
        api = address_of(client)
    run = Run(
        flow_run_id=flow_run_id,
        generation=len(cleanups_of(UUID(flow_run_id))),
        deadline_at=datetime.now(timezone.utc) + timedelta(minutes=timeout_minutes),
        prefect_api=api,
        keep=keep,
    )
    return adopt_or_skip(batch_account(), blob_account(), run)


def address_of(client: SyncPrefectClient) -> str:
    """Return the address of a client's Prefect server without user name and password, as in a run's metadata."""
    return str(client.api_url.copy_with(userinfo=b""))


def adopt_or_skip(batch: BatchAccount, blobs: BlobAccount, run: Run) -> Run:
    """Adopt the resources of the run's name if they can be used, or skip to the next name that can.

    Returns:
        The run, with the deadline of the adopted resources or with the next unused name.

    Raises:
        ForeignResourceError: A container or a job has the run's name and does not belong to this flow run.
    """
    containers = blobs.containers(run_prefix(run.flow_run_id))
    jobs = {job.job_id: job for job in batch.jobs(run_prefix(run.flow_run_id))}
    while True:
        found = [data for name, data in containers.items() if name.startswith(f"{run.name}-")]
        job = jobs.get(run.name)
        if job is not None:
            found.append(dict(job.metadata))
        if any(not run.owns(metadata) for metadata in found):
            raise ForeignResourceError(f"`{run.name}` exists and does not belong to this run. Delete it and run again.")
        expiries = [datetime.fromisoformat(metadata["expires_at"]) for metadata in found]
        if not expiries:
            return run
        if min(expiries) - datetime.now(timezone.utc) > MIN_REMAINING_TIME and (job is None or job.state == "active"):
            return replace(run, deadline_at=min(expiries))
        run = replace(run, generation=run.generation + 1)


def cleanups_of(flow_run_id: UUID) -> list[Artifact]:
    """List the cleanup records of a flow run; a cleanup writes its record before the first deletion."""
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[CLEANUP_ARTIFACT])),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        )
