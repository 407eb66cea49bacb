"""The client of the Azure Batch Python tutorial, which uploads files one by one and lists all tasks each second.

    python -m bench.tutorial_client INPUTS OUTPUTS NODES SLOTS

runs a Batch task for each file of a folder, and downloads its output into another folder. Unlike the tutorial, it asks
no questions, makes no retries, and uploads no task script, because the Batch tasks are simulated. Source:
https://learn.microsoft.com/azure/batch/tutorial-parallel-python
"""

from __future__ import annotations

import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import BlobServiceClient, generate_blob_sas, generate_container_sas

from tasks.azure.settings import load_settings

OUTPUT = "result.txt"
POLL_SECONDS = 1.0
TIMEOUT = timedelta(minutes=30)


def main() -> int:
    """Run the tutorial's steps, and check the results."""
    inputs, outputs = (Path(argument) for argument in sys.argv[1:3])
    nodes, slots = (int(argument) for argument in sys.argv[3:])
    settings = load_settings()
    batch_key, storage_key = (
        key.get_secret_value() if key else "" for key in (settings.batch_key, settings.storage_key)
    )
    account: dict[str, Any] = {"account_name": str(settings.storage_account), "account_key": storage_key}
    blobs = BlobServiceClient(str(settings.storage_endpoint), credential=account)
    batch = BatchClient(str(settings.batch_endpoint), AzureNamedKeyCredential(str(settings.batch_account), batch_key))
    name = f"tutorial-{uuid.uuid4().hex}"
    expires_at = datetime.now(timezone.utc) + timedelta(hours=2)

    for kind in ("app", "in", "out"):
        blobs.create_container(f"{name}-{kind}")
    files = []
    for path in sorted(inputs.iterdir()):
        blob = blobs.get_blob_client(f"{name}-in", path.name)
        with path.open("rb") as file:
            blob.upload_blob(file)
        signature = generate_blob_sas(
            container_name=f"{name}-in", blob_name=path.name, permission="r", expiry=expires_at, **account
        )
        files.append(models.ResourceFile(http_url=f"{blob.url}?{signature}", file_path=path.name))
    signature = generate_container_sas(container_name=f"{name}-out", permission="cw", expiry=expires_at, **account)
    outputs_url = f"{blobs.get_container_client(f'{name}-out').url}?{signature}"

    batch.create_pool(_pool(batch, name, nodes, slots))
    batch.create_job(models.BatchJobCreateOptions(id=name, pool_info=models.BatchPoolInfo(pool_id=name)))
    tasks = [_task(f"Task{number}", file, outputs_url) for number, file in enumerate(files)]
    batch.create_tasks(name, tasks)
    _wait(batch, name)

    for blob_properties in list(blobs.get_container_client(f"{name}-out").list_blobs()):
        content = blobs.get_blob_client(f"{name}-out", blob_properties.name).download_blob().readall()
        (outputs / blob_properties.name).write_bytes(content)
    for kind in ("app", "in", "out"):
        blobs.delete_container(f"{name}-{kind}")
    # The service deletes them after its response. The tutorial does not wait for that either.
    batch.begin_delete_job(name)
    batch.begin_delete_pool(name)

    wrong = [task.id for task in tasks if (outputs / f"{task.id}.txt").read_text() != task.id]
    if wrong:
        raise RuntimeError(f"wrong results: {wrong}")
    return 0


def _pool(batch: BatchClient, name: str, nodes: int, slots: int) -> models.BatchPoolCreateOptions:
    image = next(
        image
        for image in batch.list_supported_images()
        if image.verification_type == models.ImageVerificationType.VERIFIED and "ubuntu" in image.node_agent_sku_id
    )
    return models.BatchPoolCreateOptions(
        id=name,
        vm_size="standard_d2as_v5",
        virtual_machine_configuration=models.VirtualMachineConfiguration(
            image_reference=image.image_reference, node_agent_sku_id=image.node_agent_sku_id
        ),
        target_dedicated_nodes=nodes,
        task_slots_per_node=slots,
        start_task=models.BatchStartTask(command_line="/bin/sh -c true", wait_for_success=True),
    )


def _task(task_id: str, file: models.ResourceFile, outputs_url: str) -> models.BatchTaskCreateOptions:
    return models.BatchTaskCreateOptions(
        id=task_id,
        command_line=f"/bin/sh -c 'python3 task_script.py {file.file_path}'",
        resource_files=[file],
        output_files=[
            models.OutputFile(
                file_pattern=OUTPUT,
                destination=models.OutputFileDestination(
                    container=models.OutputFileBlobContainerDestination(
                        container_url=outputs_url, path=f"{task_id}.txt"
                    )
                ),
                upload_options=models.OutputFileUploadConfiguration(
                    upload_condition=models.OutputFileUploadCondition.TASK_SUCCESS
                ),
            )
        ],
    )


def _wait(batch: BatchClient, job_id: str) -> None:
    give_up_at = datetime.now(timezone.utc) + TIMEOUT
    while datetime.now(timezone.utc) < give_up_at:
        if all(task.state == models.BatchTaskState.COMPLETED for task in list(batch.list_tasks(job_id))):
            return
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"tasks did not complete within {TIMEOUT}")


if __name__ == "__main__":
    raise SystemExit(main())
