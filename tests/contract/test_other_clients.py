"""The asynchronous client of the official SDK, and the SDK before it."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from azure.batch import models
from azure.batch.aio import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import AsyncioRequestsTransport

HERE = Path(__file__).parent
TRACK1 = Path(sys.prefix) / "clients" / "track1"


@pytest.mark.skipif(not TRACK1.is_dir(), reason="the track 1 SDK is not installed: make setup")
def test_the_track_1_sdk_sees_the_same_service(local_azure, name):
    command = [sys.executable, str(HERE / "track1_client.py"), local_azure.endpoint, local_azure.account]
    environment = os.environ | {"PYTHONPATH": str(TRACK1)}
    done = subprocess.run(
        [*command, local_azure.key, name], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_asynchronous_client_sees_the_same_service(local_azure, name):
    asyncio.run(live(local_azure, name))


async def wait_until(look):
    async def poll():
        while not await look():  # noqa: ASYNC110 - the other side is another program.
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), 20)


async def listed(pages):
    return [each async for each in pages]


async def live(azure, name):
    credential = AzureNamedKeyCredential(azure.account, azure.key)
    # Without aiohttp, over the transport that needs nothing but requests.
    options = {} if importlib.util.find_spec("aiohttp") else {"transport": AsyncioRequestsTransport()}
    async with BatchClient(azure.endpoint, credential, **options) as client:
        await client.create_pool(models.BatchPoolCreateOptions(id=name, vm_size="x", target_dedicated_nodes=1))
        info = models.BatchPoolInfo(pool_id=name)
        await client.create_job(models.BatchJobCreateOptions(id=name, pool_info=info))
        command = "/bin/sh -c 'mkdir -p d; echo hello > \"d/a (1).txt\"'"
        tasks = [models.BatchTaskCreateOptions(id=f"t{n}", command_line=command) for n in range(12)]
        result = await client.create_tasks(name, tasks)
        assert len(result.result_values) == 12

        async def all_completed():
            return (await client.get_job_task_counts(name)).task_counts.completed == 12

        await wait_until(all_completed)
        found = await listed(client.list_tasks(name, filter="startswith(id,'t1')", max_results=2, select=["id"]))
        assert [task.id for task in found] == ["t1", "t10", "t11"]
        # aiohttp encodes a path anew after it was signed.
        stream = await client.download_task_file(name, "t0", "wd/d/a (1).txt")
        assert b"".join([part async for part in stream]) == b"hello\n"
        assert (await client.get_task_file_properties(name, "t0", "wd/d/a (1).txt")).content_length == 6
        files = await listed(client.list_task_files(name, "t0", recursive=True, max_results=2))
        assert "wd/d/a (1).txt" in {file.name for file in files}
        with pytest.raises(HttpResponseError, match="TaskNotFound"):
            await client.get_task(name, "none")
        resize = models.BatchPoolResizeOptions(target_dedicated_nodes=2)
        await (await client.begin_resize_pool(name, resize, polling_interval=0)).result()
        assert len(await listed(client.list_nodes(name))) == 2
        options = {"terminateReason": "enough"}
        await (await client.begin_terminate_job(name, options=options, polling_interval=0)).result()
        assert (await client.get_job(name)).execution_info.termination_reason == "enough"
        await (await client.begin_delete_job(name, polling_interval=0)).result()
        await (await client.begin_delete_pool(name, polling_interval=0)).result()
        with pytest.raises(HttpResponseError, match="PoolNotFound"):
            await client.get_pool(name)
