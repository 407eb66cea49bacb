"""Unexpected behaviour of the Batch SDK, and the workarounds.

Each case was found with azure-batch 15.1. If a test fails after an update, its workaround may be obsolete.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from tests_support import wait_until

from tasks.azure.values import BatchTaskSpec
from tasks.errors import NotFoundError, ServiceError


@pytest.fixture
def batch(batch_without_nodes):
    return batch_without_nodes


@pytest.fixture
def azure_faults(server_without_nodes):
    yield server_without_nodes.faults
    server_without_nodes.faults.clear()


def make_task(task_id):
    return BatchTaskSpec(task_id=task_id, command_line="true", resource_files=(), uploads=(), retries=0)


def test_job_is_always_terminated_with_reason(batch, parts):
    with pytest.raises(ValueError, match="No value for given attribute"):
        batch._client.begin_terminate_job(parts[1].job_id)
    batch.end_job(parts[1].job_id, "because")
    assert batch.get_job(parts[1].job_id).terminate_reason == "because"


def test_node_is_always_rebooted_with_option(batch, run, parts):
    wait_until(lambda: [n.state for n in batch.list_nodes(run.name)] == ["idle"], "the node")
    [node] = batch.list_nodes(run.name)
    with pytest.raises(ValueError, match="No value for given attribute"):
        batch._client.begin_reboot_node(run.name, node.node_id)
    batch.reboot_node(run.name, node.node_id)
    wait_until(lambda: [n.state for n in batch.list_nodes(run.name)] == ["idle"], "the node to come back")


def test_missing_pool_is_detected_by_reading_it(batch):
    with pytest.raises(ResourceNotFoundError):
        batch._client.pool_exists("nowhere")
    with pytest.raises(NotFoundError):
        batch.get_pool("nowhere")


def test_rejected_batch_tasks_are_detected(batch, parts):
    """The SDK takes a rejected Batch task for an added one: it compares `ClientError` with `clienterror`."""
    _, job = parts
    from azure.batch import models  # noqa: PLC0415 - only this test uses it

    assert batch.add_tasks(job.job_id, [make_task("t")]).rejected == {}
    taken = batch._client.create_tasks(job.job_id, [models.BatchTaskCreateOptions(id="t", command_line="true")])
    assert [str(result.status).lower() for result in taken.result_values] == ["clienterror"]
    refused = batch.add_tasks(job.job_id, [make_task("t"), make_task("no such id, by the rules")])
    assert list(refused.rejected) == ["no such id, by the rules"]
    assert refused.existing == {"t"}


def test_deletion_succeeds_despite_failing_poller(batch, parts, azure_faults):
    """The SDK's poller ignores a failed status request, so only a failed deletion is reported."""
    azure_faults.add("answer", operation="get_job", status=403, times=100)
    assert batch.delete_jobs_and_pools([parts[1].job_id], [], 5) == {}
    azure_faults.clear()
    wait_until(lambda: not batch.list_jobs(parts[1].job_id), "the job to be gone")


def test_changed_batch_task_is_not_deleted(batch, parts):
    _, job = parts
    batch.add_tasks(job.job_id, [make_task("t")])
    with pytest.raises(ResourceModifiedError):
        batch._client.delete_task(job.job_id, "t", etag='"old"', match_condition=MatchConditions.IfNotModified)
    assert batch.delete_task(job.job_id, "t", '"old"') is False
    assert batch.delete_task(job.job_id, "nowhere", '"old"') is False


def test_states_are_read_in_lower_case(batch, parts):
    _, job = parts
    batch.add_tasks(job.job_id, [make_task("t")])
    wait_until(lambda: list(batch.list_completed_tasks(job.job_id, None)), "the Batch task")
    [(_, outcome)] = batch.list_completed_tasks(job.job_id, None)
    assert (outcome.state, outcome.result) == ("completed", "success")


def test_error_has_service_message_only(batch):
    with pytest.raises(
        ServiceError, match=r"^Batch could not get job nowhere: .*JobNotFound.* does not exist\.$"
    ) as caught:
        batch.get_job("nowhere")
    assert "RequestId" not in str(caught.value)
    assert isinstance(caught.value.__cause__, HttpResponseError)


def test_each_thread_keeps_its_connection(batch, azure_faults, caplog):
    """A new connection costs several times as much as a request, and urllib3 keeps only ten by default."""
    azure_faults.add("delay", operation="*", seconds=0.5, probability=1)
    with ThreadPoolExecutor(16) as threads:
        futures = [threads.submit(batch.list_images) for _ in range(32)]
    assert [future.exception() for future in futures] == [None] * 32
    assert [record.getMessage() for record in caplog.records if "pool is full" in record.getMessage()] == []


MODELS_IN_MANY_THREADS = """
import sys, threading
import {imported_before}
from azure.batch.models import _models

sys.setswitchinterval(1e-9)
together = threading.Barrier(12)
failed = []

def make_each():
    for model in list(vars(_models).values()):
        if isinstance(model, type) and hasattr(model, "_is_model"):
            together.wait()
            try:
                model({{}})
            except RuntimeError as error:
                failed.append(error)

threads = [threading.Thread(target=make_each) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*sorted({{str(error) for error in failed}}))
"""


def errors_in_many_threads(imported_before):
    program = MODELS_IN_MANY_THREADS.format(imported_before=imported_before)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_models_of_sdk_break_in_many_threads():
    """Field report 34: several threads create the first instance at once. It is a race, so one process may not show it."""
    found = (errors_in_many_threads("azure.batch") for _ in range(20))
    assert next(filter(None, found), "") == "dictionary changed size during iteration"


def test_models_are_initialized_before_threads_use_them():
    assert errors_in_many_threads("tasks.azure.batch") == ""
