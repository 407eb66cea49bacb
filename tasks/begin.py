"""Begin: name the run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from uuid import UUID

from prefect import get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from tasks.models import Run
from tasks.progress import begun
from tasks.step import STEP

CLEANUP_ARTIFACT = "topn-cleanup"


@task(**STEP, task_run_name="begin")
def begin_run(timeout_minutes: float) -> Run:
    """Name the run from its flow run and the number of cleanups that this has had, and set its deadline."""
    begun(str(flow_run.id))
    with get_client(sync_client=True) as client:
        api = str(client.api_url)
    return Run(
        flow_run_id=str(flow_run.id),
        generation=len(cleanups_of(UUID(str(flow_run.id)))),
        deadline_at=datetime.now(timezone.utc) + timedelta(minutes=timeout_minutes),
        prefect_api=api,
    )


def cleanups_of(flow_run_id: UUID) -> list[Artifact]:
    """List the records of the cleanups that a flow run has had; each was written before its first deletion."""
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[CLEANUP_ARTIFACT])),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        )
