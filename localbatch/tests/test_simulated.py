"""Simulated tasks, seen through the official SDK."""

import threading
from datetime import datetime, timedelta, timezone

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContainerClient, generate_container_sas

from localbatch import LocalAzure, LocalBatch
from localbatch.testing import MACHINE, wait_until


@pytest.fixture
def batch(tmp_path):
    with LocalBatch(state_dir=tmp_path, pace="instant", runner="simulated", task_seconds=3600) as batch:
        yield batch


@pytest.fixture
def client(batch):
    with BatchClient(batch.endpoint, AzureNamedKeyCredential(batch.account, batch.key), retry_total=0) as client:
        client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
        yield client


def create_pool(client, nodes=1, **options):
    client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=nodes, **options))


def settings(**values):
    return [models.EnvironmentSetting(name=name, value=str(value)) for name, value in values.items()]


def add(client, task_id, **values):
    client.create_task(
        "j",
        models.BatchTaskCreateOptions(
            id=task_id, command_line="no-such-program", environment_settings=settings(**values)
        ),
    )


def completed(client, task_id):
    task = client.get_task("j", task_id)
    return task if task.state == "completed" else None


@pytest.mark.parametrize(("code", "result"), [(0, "success"), (7, "failure")])
def test_simulated_task_has_configured_exit_code(client, code, result):
    create_pool(client)
    add(client, "t", LOCALBATCH_SECONDS=0, LOCALBATCH_EXIT_CODE=code)
    info = wait_until(lambda: completed(client, "t")).execution_info
    assert (info.exit_code, info.result) == (code, result)


def test_simulated_task_has_configured_duration(client):
    create_pool(client)
    add(client, "t", LOCALBATCH_SECONDS=0.2)
    info = wait_until(lambda: completed(client, "t")).execution_info
    assert timedelta(seconds=0.2) <= info.end_time - info.start_time < timedelta(seconds=2)


def test_default_duration_follows_the_service_clock(batch, client):
    create_pool(client)
    add(client, "t")
    wait_until(lambda: client.get_task("j", "t").state == "running")
    batch.advance(timedelta(minutes=59))
    assert client.get_task("j", "t").state == "running"
    batch.advance(timedelta(minutes=1))
    wait_until(lambda: completed(client, "t"))


@pytest.mark.parametrize("setting", [{"LOCALBATCH_SECONDS": "soon"}, {"LOCALBATCH_EXIT_CODE": "x"}])
def test_invalid_setting_fails_the_task(client, setting):
    create_pool(client)
    add(client, "t", **setting)
    info = wait_until(lambda: completed(client, "t")).execution_info
    assert (info.exit_code, info.failure_info.code) == (None, "CommandLaunchFailed")


def test_terminated_task_does_not_end_again(batch, client):
    create_pool(client)
    add(client, "t", LOCALBATCH_SECONDS=60)
    wait_until(lambda: client.get_task("j", "t").state == "running")
    client.terminate_task("j", "t")
    batch.advance(timedelta(minutes=2))
    add(client, "after", LOCALBATCH_SECONDS=0)
    wait_until(lambda: completed(client, "after"))
    assert client.get_task("j", "t").execution_info.failure_info.code == "TaskEnded"


@pytest.mark.parametrize(("code", "state"), [(0, "idle"), (1, "starttaskfailed")])
def test_start_tasks_are_simulated_too(client, code, state):
    start_task = models.BatchStartTask(
        command_line="x", environment_settings=settings(LOCALBATCH_SECONDS=0, LOCALBATCH_EXIT_CODE=code)
    )
    create_pool(client, start_task=start_task)
    wait_until(lambda: [node.state for node in client.list_nodes("p")] == [state])


def test_simulated_tasks_have_no_files(client, tmp_path):
    create_pool(client)
    add(client, "t", LOCALBATCH_SECONDS=0)
    wait_until(lambda: completed(client, "t"))
    assert [path.name for path in tmp_path.rglob("*")] == ["nodes"]
    with pytest.raises(ResourceNotFoundError):
        client.get_task_file_properties("j", "t", "stdout.txt")


def test_output_files_have_the_configured_content(tmp_path):
    options = {"pace": "instant", "runner": "simulated", "task_output": "made by $AZ_BATCH_TASK_ID"}
    with LocalAzure(state_dir=tmp_path, **options) as azure:
        credential = AzureNamedKeyCredential(azure.batch.account, azure.batch.key)
        account = {"account_name": azure.storage_account, "account_key": azure.storage_key}
        with (
            BatchClient(azure.batch.endpoint, credential, retry_total=0) as client,
            ContainerClient(azure.storage_endpoint, "out", credential=account) as container,
        ):
            container.create_container()
            signature = generate_container_sas(
                container_name="out",
                permission="cw",
                expiry=datetime.now(timezone.utc) + timedelta(hours=1),
                **account,
            )
            destination = models.OutputFileDestination(
                container=models.OutputFileBlobContainerDestination(
                    path="t/counts.txt", container_url=f"{container.url}?{signature}"
                )
            )
            upload = models.OutputFileUploadConfiguration(upload_condition="taskcompletion")
            client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
            create_pool(client)
            client.create_task(
                "j",
                models.BatchTaskCreateOptions(
                    id="t",
                    command_line="x",
                    output_files=[
                        models.OutputFile(file_pattern=pattern, destination=destination, upload_options=upload)
                        for pattern in ("counts.txt", "../std*.txt")
                    ],
                ),
            )
            assert wait_until(lambda: completed(client, "t")).execution_info.result == "success"
            blobs = {blob.name: container.download_blob(blob.name).readall() for blob in container.list_blobs()}
    assert blobs == {"t/counts.txt": b"made by t"}


def test_many_tasks_take_one_thread(client):
    create_pool(client, nodes=50)
    before = set(threading.enumerate())
    tasks = [
        models.BatchTaskCreateOptions(
            id=f"t{number}", command_line="x", environment_settings=settings(LOCALBATCH_SECONDS=0.01)
        )
        for number in range(500)
    ]
    client.create_tasks("j", tasks)
    wait_until(lambda: client.get_job_task_counts("j").task_counts.succeeded == 500)
    assert set(threading.enumerate()) <= before


def test_stopping_does_not_wait_for_tasks(tmp_path):
    before = set(threading.enumerate())
    with LocalBatch(state_dir=tmp_path, pace="instant", runner="simulated", task_seconds=3600) as batch:
        credential = AzureNamedKeyCredential(batch.account, batch.key)
        with BatchClient(batch.endpoint, credential, retry_total=0) as client:
            client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
            create_pool(client)
            add(client, "t")
            wait_until(lambda: client.get_task("j", "t").state == "running")
    assert set(threading.enumerate()) <= before
