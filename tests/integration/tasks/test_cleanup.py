"""The record of a cleanup is on the Prefect server before anything is deleted."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.model.run import Keep
from tasks.steps import cleanup


@pytest.fixture
def run(run, prefect_api):
    """A run that the Prefect server knows."""

    @flow
    def empty():
        """Do nothing."""

    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(empty)
        yield replace(run, flow_run_id=str(flow_run.id))


def records_of(flow_run_id):
    of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        return [artifact.data for artifact in client.read_artifacts(artifact_filter=of_this_run)]


def test_cleanup_is_recorded_before_deletion(batch, blobs, run, parts, monkeypatch):
    """Whoever repeats the run must not go on in what is about to be deleted."""
    flow_run_id = uuid.UUID(run.flow_run_id)
    delete = cleanup.delete
    found = []

    def look_and_delete(*arguments):
        left = cleanup.find_leftovers(batch, blobs, flow_run_id, Keep())
        found.append((left.names, records_of(flow_run_id)))
        return delete(*arguments)

    monkeypatch.setattr(cleanup, "delete", look_and_delete)

    assert cleanup.clean_up_run(flow_run_id, Keep()) == {}

    [(names, [record])] = found
    assert len(names) == 5
    assert record.splitlines() == ["Deleting:", "", *(f"- {name}" for name in names)]
    [completed] = records_of(flow_run_id)
    assert completed.splitlines() == ["Deleted:", "", *(f"- {name}" for name in names)]
