"""Events of runs on a real Prefect server, and the automation that acts on one of them."""

from __future__ import annotations

import uuid

import pytest
import yaml
from tests_support import REPOSITORY, send_to_prefect, wait_until
from topn_support import process_environment

from tasks.model.cleanup import Cleanup

SHARED = pytest.mark.xdist_group("shared_runs")

AUTOMATION = REPOSITORY / "deployments/pause-after-incomplete-cleanups.yaml"


@pytest.fixture
def events_of(prefect_api):
    """Return a function that waits for our events of a flow run, which the server records after some time."""

    def read(flow_run_id):
        query = {"filter": {"resource": {"id": [f"topn.run.{flow_run_id}"]}}}
        found = []
        wait_until(
            lambda: found.extend(send_to_prefect(prefect_api, "/events/filter", query)["events"]) or found, "events"
        )
        return found

    return read


@SHARED
def test_good_run_emits_completed(completed_run, events_of):
    name = completed_run.found["run"]
    flow_run_id = str(uuid.UUID(name.split("-")[1]))
    [event] = events_of(flow_run_id)
    assert event["event"] == "topn.run.completed"
    assert event["resource"]["prefect.resource.name"] == name
    assert event["payload"]["files"] == {"done": 5, "unchanged": 0, "failed": 0}
    assert event["payload"]["output_folder"] == str(completed_run.folder / "results")
    assert f"prefect.flow-run.{flow_run_id}" in {related["prefect.resource.id"] for related in event["related"]}


@SHARED
def test_run_with_bad_files_emits_failed(failed_run, events_of):
    [event] = events_of(uuid.UUID(failed_run.found["run"].split("-")[1]))
    assert event["event"] == "topn.files.failed"
    assert event["payload"]["files"] == {"done": 3, "unchanged": 0, "failed": 3}
    failures = {failure["file"]: failure["reason"] for failure in event["payload"]["failures"]}
    assert list(failures) == ["latin1.txt", "nul.txt", "b|`ad.txt"]
    assert failures["latin1.txt"].startswith("is not UTF-8 text")


def test_incomplete_cleanups_pause_deployment(prefect_api, events_of):
    """The hook of a killed run has no run context, from which Prefect would know the deployment."""
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.events.schemas.automations import AutomationCore  # noqa: PLC0415 - as above

    from flows.topn import topn  # noqa: PLC0415 - as above
    from tasks.report.events import emit_incomplete_cleanup  # noqa: PLC0415 - as above

    # Leaving the environment sends the events.
    with process_environment(PREFECT_API_URL=prefect_api), get_client(sync_client=True) as client:
        deployment_id = client.create_deployment(flow_id=client.create_flow(topn), name=uuid.uuid4().hex)
        automation_id = client.create_automation(AutomationCore.model_validate(yaml.safe_load(AUTOMATION.read_text())))
        try:
            run = client.create_flow_run_from_deployment(deployment_id)
            for _ in range(3):
                emit_incomplete_cleanup(run, Cleanup(deleted=("job a",), remaining={"pool b": "Refused"}))
            wait_until(lambda: client.read_deployment(deployment_id).paused, "the pause of the deployment")
        finally:
            client.delete_automation(automation_id)
            client.delete_flow_run(run.id)
    event = events_of(run.id)[0]
    assert event["event"] == "topn.cleanup.incomplete"
    assert event["payload"] == {"deleted": 1, "not_deleted": 1, "remaining": [{"name": "pool b", "reason": "Refused"}]}
