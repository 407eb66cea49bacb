"""Shared access signatures that expire while a job waits. Nodes use the clock of the service."""

import uuid
from datetime import datetime, timedelta, timezone

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from localbatch.testing import MACHINE, wait_until

ALL = ContainerSasPermissions(read=True, list=True, write=True, create=True)


@pytest.fixture
def container(blobs):
    with blobs.create_container(f"c-{uuid.uuid4().hex}") as container:
        container.upload_blob("in.txt", "hello")
        yield container


@pytest.fixture
def signed(blobs, container):
    """Return the URL of the container with a signature that holds for a time, counted from now."""

    def sign(*, hours, start_hours=None):
        now = datetime.now(timezone.utc)
        token = generate_container_sas(
            blobs.account_name,
            container.container_name,
            account_key=blobs.credential.account_key,
            permission=ALL,
            start=None if start_hours is None else now + timedelta(hours=start_hours),
            expiry=now + timedelta(hours=hours),
        )
        return f"{container.url}?{token}"

    return sign


@pytest.fixture
def run(local_batch):
    with BatchClient(local_batch.endpoint, AzureNamedKeyCredential(local_batch.account, local_batch.key)) as client:
        client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
        client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))

        def run_to_completion(**options):
            task_id = uuid.uuid4().hex
            client.create_task("j", models.BatchTaskCreateOptions(id=task_id, command_line="true", **options))
            wait_until(lambda: client.get_task("j", task_id).state == "completed")
            info = client.get_task("j", task_id).execution_info
            return info.failure_info and info.failure_info.code

        yield run_to_completion


def downloading(url):
    return {"resource_files": [models.ResourceFile(storage_container_url=url)]}


def uploading(url):
    place = models.OutputFileBlobContainerDestination(container_url=url)
    options = models.OutputFileUploadConfiguration(upload_condition="taskcompletion")
    destination = models.OutputFileDestination(container=place)
    return {
        "output_files": [
            models.OutputFile(file_pattern="../stdout.txt", destination=destination, upload_options=options)
        ]
    }


@pytest.mark.parametrize(
    ("transfer", "code"),
    [(downloading, "BlobAccessDenied"), (uploading, "FileUploadAccessDenied")],
    ids=["download", "upload"],
)
def test_expired_signature_is_refused(local_batch, run, signed, transfer, code):
    short, long = signed(hours=1), signed(hours=9)
    assert run(**transfer(short)) is None
    local_batch.advance(timedelta(hours=2))
    assert run(**transfer(short)) == code
    assert run(**transfer(long)) is None


def test_early_signature_is_refused(run, signed):
    assert run(**downloading(signed(hours=9, start_hours=3))) == "BlobAccessDenied"
