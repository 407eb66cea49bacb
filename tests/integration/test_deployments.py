"""Deployed runs on a Prefect server without a worker: parameter validation, and how `make up` ends runs."""

from __future__ import annotations

import os
import uuid

import pytest


@pytest.fixture
def client(prefect_api):
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment_id(client):
    """The id of a deployment, created as `prefect deploy` creates it."""
    from flows.topn import topn  # noqa: PLC0415 - takes seconds

    return client.create_deployment(
        flow_id=client.create_flow(topn),
        name=uuid.uuid4().hex,
        parameter_openapi_schema=topn.parameters.model_dump_for_openapi(),
        enforce_parameter_schema=True,
    )


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("inputs", []),
        ("inputs", [""]),
        ("num_words", "three"),
        ("output_folder", ""),
        ("nodes", 0),
        ("slots_per_node", 257),
        ("vm_size", ""),
        ("pool_id", "no id!"),
        ("timeout_minutes", 0.5),
        ("ignore_case", "perhaps"),
    ],
)
def test_server_rejects_bad_parameter_by_name(client, deployment_id, parameter, value):
    from prefect.exceptions import PrefectHTTPStatusError  # noqa: PLC0415 - takes seconds

    with pytest.raises(PrefectHTTPStatusError) as refusal:
        client.create_flow_run_from_deployment(deployment_id, parameters={parameter: value})
    assert refusal.value.response.status_code == 409
    assert f"Validation failed for field '{parameter}" in refusal.value.response.text


def test_up_cancels_pending_run(client, deployment_id):
    """The run has created nothing. Without `make up`, Prefect would keep it Cancelling for five minutes."""
    from prefect.states import Pending  # noqa: PLC0415 - takes seconds

    from flows.servers.prefect_setup import cancel_runs, count_open_runs  # noqa: PLC0415

    before = count_open_runs()
    run = client.create_flow_run_from_deployment(deployment_id, parameters={"inputs": [os.devnull]}, state=Pending())
    assert count_open_runs() == before + 1
    cancel_runs(60)
    assert client.read_flow_run(run.id).state.type.value == "CANCELLED"


def test_up_crashes_dead_runs_and_keeps_scheduled_ones(client, deployment_id):
    from prefect.states import Pending, Running, Scheduled  # noqa: PLC0415 - takes seconds

    from flows.servers.prefect_setup import prepare_server  # noqa: PLC0415

    expected = {
        client.create_flow_run_from_deployment(deployment_id, parameters={"inputs": [os.devnull]}, state=state).id: then
        for state, then in ((Pending(), "CRASHED"), (Running(), "CRASHED"), (Scheduled(), "SCHEDULED"))
    }
    prepare_server(f"pool-{uuid.uuid4().hex}")
    assert {run: client.read_flow_run(run).state.type.value for run in expected} == expected
