"""A client of the asynchronous SDK, in a process of its own: `python async_client.py ENDPOINT ACCOUNT KEY NAME`.

It asks for every operation that is served, and ends with status 0 if it saw what it should.
"""

import asyncio
import importlib.util
import sys
from datetime import datetime, timedelta, timezone

from azure.batch import models
from azure.batch.aio import BatchClient
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import AsyncioRequestsTransport

from localbatch.testing import MACHINE

ODD_FILE = "wd/d/a (1).txt"
"""aiohttp encodes such a path again after it was signed."""
COMMAND = "/bin/sh -c 'mkdir -p d; echo hello | tee \"d/a (1).txt\"'"


async def wait_until(look):
    async def poll():
        while not await look():  # noqa: ASYNC110 - the other side is another program.
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), 20)


async def listed(pages):
    return [each async for each in pages]


async def read(stream):
    return b"".join([part async for part in await stream])


async def end(begun):
    poller = await begun
    await poller.result()
    assert poller.status() == "Succeeded"


async def refusal(call):
    try:
        await call
    except HttpResponseError as error:
        return error.error.code
    raise AssertionError("not refused")


async def main(endpoint, account, key, name):
    # Without aiohttp, over the transport that needs nothing but requests.
    options = {} if importlib.util.find_spec("aiohttp") else {"transport": AsyncioRequestsTransport()}
    async with BatchClient(endpoint, AzureNamedKeyCredential(account, key), **options) as client:
        await make_pool(client, name)
        await run_tasks(client, name)
        await read_files(client, name)
        await change_tasks(client, name)
        await change_node(client, name)
        await access_node(client, name)
        await change_job(client, name)
        await change_schedule(client, name)
        await list_account_resources(client)
        await change_pool(client, name)
        await remove_pool(client, name)


async def make_pool(client, name):
    start_task = models.BatchStartTask(command_line="true", wait_for_success=True)
    pool = models.BatchPoolCreateOptions(id=name, **MACHINE, target_dedicated_nodes=1, start_task=start_task)
    await client.create_pool(pool)
    assert await client.pool_exists(name)
    assert await refusal(client.create_pool(pool)) == "PoolExists"
    assert [pool.id for pool in await listed(client.list_pools(filter=f"id eq '{name}'"))] == [name]
    await wait_until(lambda: has_states(client, name, ["idle"]))
    (counts,) = await listed(client.list_pool_node_counts(filter=f"poolId eq '{name}'"))
    assert counts.dedicated.idle == 1
    images = await listed(client.list_supported_images(filter="verificationType eq 'verified'"))
    assert {image.verification_type for image in images} == {"verified"}


async def has_states(client, name, states):
    return [node.state for node in await listed(client.list_nodes(name))] == states


async def run_tasks(client, name):
    job = models.BatchJobCreateOptions(
        id=name,
        pool_info=models.BatchPoolInfo(pool_id=name),
        job_preparation_task=models.BatchJobPreparationTask(command_line="true"),
    )
    await client.create_job(job)
    assert [job.id for job in await listed(client.list_jobs(filter=f"id eq '{name}'"))] == [name]
    tasks = [models.BatchTaskCreateOptions(id=f"t{n}", command_line=COMMAND) for n in range(11)]
    assert len((await client.create_tasks(name, tasks)).result_values) == 11
    group = models.BatchTaskGroup(task_values=[models.BatchTaskCreateOptions(id="t11", command_line=COMMAND)])
    result = await client.create_task_collection(name, group)
    assert [each.task_id for each in result.result_values] == ["t11"]
    await client.create_task(name, models.BatchTaskCreateOptions(id="fails", command_line="/bin/sh -c 'exit 3'"))

    async def all_completed():
        return (await client.get_job_task_counts(name)).task_counts.completed == 13

    await wait_until(all_completed)
    found = await listed(client.list_tasks(name, filter="startswith(id,'t1')", max_results=2, select=["id"]))
    assert [task.id for task in found] == ["t1", "t10", "t11"]
    (status,) = await listed(client.list_job_preparation_and_release_task_status(name))
    assert status.job_preparation_task_execution_info.exit_code == 0


async def read_files(client, name):
    assert await read(client.download_task_file(name, "t0", ODD_FILE)) == b"hello\n"
    assert (await client.get_task_file_properties(name, "t0", ODD_FILE)).content_length == 6
    files = await listed(client.list_task_files(name, "t0", recursive=True, max_results=2))
    assert ODD_FILE in {file.name for file in files}
    await client.delete_task_file(name, "t0", ODD_FILE)
    assert ODD_FILE not in {file.name for file in await listed(client.list_task_files(name, "t0", recursive=True))}
    (node,) = await listed(client.list_nodes(name))
    path = f"workitems/{name}/job-1/t1/stdout.txt"
    assert await read(client.download_node_file(name, node.id, path)) == b"hello\n"
    assert (await client.get_node_file_properties(name, node.id, path)).content_length == 6
    assert path in {file.name for file in await listed(client.list_node_files(name, node.id, recursive=True))}
    await client.delete_node_file(name, node.id, path)
    assert path not in {file.name for file in await listed(client.list_node_files(name, node.id, recursive=True))}


async def change_tasks(client, name):
    assert (await client.get_task(name, "fails")).execution_info.exit_code == 3
    await client.reactivate_task(name, "fails")

    async def has_failed_again():
        return (await client.get_task(name, "fails")).state == "completed"

    await wait_until(has_failed_again)
    assert await listed(client.list_subtasks(name, "fails")) == []
    await client.delete_task(name, "fails")
    assert await refusal(client.get_task(name, "fails")) == "TaskNotFound"
    await client.create_task(name, models.BatchTaskCreateOptions(id="long", command_line="sleep 300"))
    task = await client.get_task(name, "long")
    task.constraints = models.BatchTaskConstraints(max_wall_clock_time=timedelta(hours=1))
    await client.replace_task(name, "long", task)
    await client.terminate_task(name, "long")
    task = await client.get_task(name, "long")
    assert (task.state, task.execution_info.failure_info.code) == ("completed", "TaskEnded")
    assert task.constraints.max_wall_clock_time == timedelta(hours=1)


async def change_node(client, name):
    (node,) = await listed(client.list_nodes(name))
    options = {"polling_interval": 0}
    await end(client.begin_reboot_node(name, node.id, {"nodeRebootOption": "requeue"}, **options))
    await wait_until(lambda: has_states(client, name, ["idle"]))
    assert (await client.get_node(name, node.id)).last_boot_time > node.last_boot_time
    await end(client.begin_reimage_node(name, node.id, {"nodeReimageOption": "requeue"}, **options))
    await wait_until(lambda: has_states(client, name, ["idle"]))
    await end(client.begin_deallocate_node(name, node.id, {"nodeDeallocateOption": "requeue"}, **options))
    assert await has_states(client, name, ["deallocated"])
    await end(client.begin_start_node(name, node.id, **options))
    await wait_until(lambda: has_states(client, name, ["idle"]))
    await client.disable_node_scheduling(name, node.id, {"nodeDisableSchedulingOption": "requeue"})
    await wait_until(lambda: has_states(client, name, ["offline"]))
    await client.enable_node_scheduling(name, node.id)
    await wait_until(lambda: has_states(client, name, ["idle"]))


async def access_node(client, name):
    (node,) = await listed(client.list_nodes(name))
    await client.create_node_user(name, node.id, models.BatchNodeUserCreateOptions(name="me", password="secret"))
    await client.replace_node_user(name, node.id, "me", models.BatchNodeUserReplaceOptions(password="other"))
    await client.delete_node_user(name, node.id, "me")
    assert (await client.get_node_remote_login_settings(name, node.id)).remote_login_port == 22
    # Nothing listens there, which only the log of the server shows.
    upload = models.UploadBatchServiceLogsOptions(
        container_url="http://127.0.0.1:1/c", start_time=datetime.now(timezone.utc)
    )
    assert (await client.upload_node_logs(name, node.id, upload)).number_of_files_uploaded == 1


async def list_account_resources(client):
    assert await listed(client.list_applications()) == []
    assert await refusal(client.get_application("a")) == "ApplicationNotFound"
    assert await listed(client.list_pool_usage_metrics()) == []


async def change_schedule(client, name):
    recurrence = models.BatchJobScheduleConfiguration(recurrence_interval=timedelta(days=1))
    jobs = models.BatchJobSpecification(pool_info=models.BatchPoolInfo(pool_id=name))
    await client.create_job_schedule(
        models.BatchJobScheduleCreateOptions(id=name, schedule=recurrence, job_specification=jobs)
    )
    assert await client.job_schedule_exists(name)
    assert name in {schedule.id for schedule in await listed(client.list_job_schedules())}
    assert [job.id for job in await listed(client.list_jobs_from_schedule(name))] == [f"{name}:job-1"]
    await client.disable_job_schedule(name)
    await client.enable_job_schedule(name)
    schedule = await client.get_job_schedule(name)
    schedule.schedule = models.BatchJobScheduleConfiguration(recurrence_interval=timedelta(hours=10))
    await client.replace_job_schedule(name, schedule)
    recurrence = models.BatchJobScheduleConfiguration(recurrence_interval=timedelta(hours=5))
    await client.update_job_schedule(name, models.BatchJobScheduleUpdateOptions(schedule=recurrence))
    assert (await client.get_job_schedule(name)).schedule.recurrence_interval == timedelta(hours=5)
    await end(client.begin_terminate_job_schedule(name, polling_interval=0))
    assert (await client.get_job_schedule(name)).state == "completed"
    await end(client.begin_delete_job_schedule(name, polling_interval=0))
    assert await refusal(client.get_job_schedule(name)) == "JobScheduleNotFound"


async def change_job(client, name):
    await client.update_job(name, models.BatchJobUpdateOptions(priority=3))
    job = await client.get_job(name)
    assert job.priority == 3
    job.priority = None
    await client.replace_job(name, job)
    assert (await client.get_job(name)).priority == 0
    disable = models.BatchJobDisableOptions(disable_tasks="requeue")
    await end(client.begin_disable_job(name, disable, polling_interval=0))
    assert (await client.get_job(name)).state == "disabled"
    await end(client.begin_enable_job(name, polling_interval=0))
    assert (await client.get_job(name)).state == "active"
    await end(client.begin_terminate_job(name, options={"terminateReason": "enough"}, polling_interval=0))
    assert (await client.get_job(name)).execution_info.termination_reason == "enough"
    await end(client.begin_delete_job(name, polling_interval=0))
    assert await refusal(client.get_job(name)) == "JobNotFound"


async def change_pool(client, name):
    await client.update_pool(
        name, models.BatchPoolUpdateOptions(metadata=[models.BatchMetadataItem(name="a", value="1")])
    )
    assert [item.value for item in (await client.get_pool(name)).metadata] == ["1"]
    replacement = models.BatchPoolReplaceOptions(application_package_references=[], metadata=[])
    await client.replace_pool_properties(name, replacement)
    pool = await client.get_pool(name)
    assert (pool.metadata, pool.start_task) == ([], None)
    resize = models.BatchPoolResizeOptions(target_dedicated_nodes=2)
    await end(client.begin_resize_pool(name, resize, polling_interval=0))
    nodes = await listed(client.list_nodes(name))
    assert len(nodes) == 2
    remove = models.BatchNodeRemoveOptions(node_ids=[node.id for node in nodes])
    await end(client.begin_remove_nodes(name, remove, polling_interval=0))
    assert await listed(client.list_nodes(name)) == []
    formula = "$TargetDedicatedNodes = 0;"
    await client.enable_pool_auto_scale(name, models.BatchPoolEnableAutoScaleOptions(auto_scale_formula=formula))
    evaluate = models.BatchPoolEvaluateAutoScaleOptions(auto_scale_formula="$TargetDedicatedNodes = 7;")
    assert "$TargetDedicatedNodes=7" in (await client.evaluate_pool_auto_scale(name, evaluate)).results
    await client.disable_pool_auto_scale(name)
    assert not (await client.get_pool(name)).enable_auto_scale


async def remove_pool(client, name):
    await end(client.begin_delete_pool(name, polling_interval=0))
    assert await refusal(client.get_pool(name)) == "PoolNotFound"
    # Nodes of this one never come.
    stalled = f"{name}-stalled"
    await client.create_pool(models.BatchPoolCreateOptions(id=stalled, **MACHINE, target_dedicated_nodes=1))
    await end(client.begin_stop_pool_resize(stalled, polling_interval=0))
    assert {error.code for error in (await client.get_pool(stalled)).resize_errors} == {"ResizeStopped"}
    await end(client.begin_delete_pool(stalled, polling_interval=0))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
