"""The retry policy of both services: transient failures are retried a limited number of times, others never."""

from __future__ import annotations

import pytest
from azure.core.pipeline.transport import HttpTransport

from localbatch import LocalAzure
from tasks.azure.client import MAX_REQUEST_RETRIES
from tasks.azure.values import BatchTaskSpec
from tasks.errors import ServiceError
from tasks.steps.provision import ensure_containers, ensure_job
from tasks.workload.results_store import results_store

TRANSIENT = [
    {"fault": "answer", "status": 408},
    {"fault": "answer", "status": 429},
    {"fault": "answer", "status": 429, "retry_after": 1},
    {"fault": "answer", "status": 500},
    {"fault": "answer", "status": 502},
    {"fault": "answer", "status": 503},
    {"fault": "answer", "status": 504},
    {"fault": "drop_before"},
    {"fault": "drop_after"},
]


@pytest.fixture(scope="module")
def local_azure(tmp_path_factory):
    """A local Azure whose storage account can fail, too."""
    with LocalAzure(state_dir=tmp_path_factory.mktemp("azure"), pace="instant", storage_faults=True) as azure:
        yield azure


@pytest.fixture
def requests_of(batch, blobs, run, workload, local_azure):
    """For each service: its fault script, the operation that a request calls, and a function that sends it."""
    containers = ensure_containers(blobs, run, workload)
    task = BatchTaskSpec(task_id="t", command_line="true", resource_files=(), uploads=(), retries=0)
    yield {
        "Batch": (
            local_azure.faults,
            "create_job",
            lambda: ensure_job(batch, blobs, run, workload, containers, run.name),
        ),
        "Batch tasks": (local_azure.faults, "create_task_collection", lambda: batch.add_tasks(run.name, [task])),
        "Storage": (local_azure.storage_faults, "create_container", lambda: ensure_containers(blobs, run, workload)),
    }
    local_azure.faults.clear()
    local_azure.storage_faults.clear()
    batch.delete_jobs_and_pools([run.name], [], 5)
    for name in blobs.list_containers(run.name):
        blobs.delete_container(name)


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """The delays between retries in seconds; the SDK does not actually sleep."""
    seconds = []
    monkeypatch.setattr(HttpTransport, "sleep", lambda _transport, duration: seconds.append(duration))
    return seconds


def fired(script):
    return script.listing()[0]["fired"]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
@pytest.mark.parametrize("service", ["Batch", "Storage"])
def test_transient_failures_are_retried_until_success(requests_of, slept, service, fault):
    script, operation, do = requests_of[service]
    script.add(**fault, operation=operation, times=2)

    do()

    assert fired(script) == 2
    assert len(slept) == 2
    assert min(slept) >= fault.get("retry_after", 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("service", ["Batch", "Storage"])
def test_permanent_failures_are_never_retried(requests_of, service, status):
    script, operation, do = requests_of[service]
    script.add("answer", operation=operation, status=status, times=100)

    with pytest.raises(ServiceError) as failure:
        do()

    assert not failure.value.transient
    assert fired(script) == 1


@pytest.mark.parametrize("service", ["Batch", "Storage", "Batch tasks"])
def test_retries_are_bounded(requests_of, service):
    """The SDK's own `create_tasks` retries server errors forever and without delay."""
    script, operation, do = requests_of[service]
    script.add("answer", operation=operation, status=503, times=1000)

    with pytest.raises(ServiceError) as failure:
        do()

    assert failure.value.transient
    assert fired(script) == 1 + MAX_REQUEST_RETRIES


def test_unresponsive_results_store_is_not_used(requests_of, blobs, local_azure, azure_settings, monkeypatch):
    """A run works without its store. Access that is denied is an error instead."""
    blobs.create_container("store", {})
    monkeypatch.setenv("TOPN_RESULTS", "az://store/nightly")
    script = local_azure.storage_faults
    script.add("answer", operation="put_blob", path="*/store/nightly/*", status=503, times=1000)
    warnings = []

    store = results_store("unresponsive", warnings.append)

    assert fired(script) == 1 + MAX_REQUEST_RETRIES
    assert store.get("0" * 64) is None
    [warning] = warnings
    assert warning.startswith("The results store is not used: Storage could not upload store/nightly/check: ")
    assert list(blobs.list_blobs("store")) == []
