"""The Prefect server has the record of a cleanup before anything is deleted."""

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
    """A run with a flow run on the Prefect server."""

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
    """A retry must not adopt resources that are about to be deleted."""
    flow_run_id = uuid.UUID(run.flow_run_id)
    delete = cleanup.delete
    found = []

    def record_and_delete(*arguments):
        leftovers = cleanup.find_leftovers(batch, blobs, flow_run_id, Keep())
        found.append((leftovers.names, records_of(flow_run_id)))
        return delete(*arguments)

    monkeypatch.setattr(cleanup, "delete", record_and_delete)

    assert cleanup.clean_up_run(flow_run_id, Keep()) == {}

    [(names, [record])] = found
    assert len(names) == 5
    assert record.splitlines() == ["Deleting:", "", *(f"- {name}" for name in names)]
    [completed] = records_of(flow_run_id)
    assert completed.splitlines() == ["Deleted:", "", *(f"- {name}" for name in names)]
