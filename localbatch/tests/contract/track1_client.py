"""A client of the track 1 SDK, in a process of its own: `python track1_client.py ENDPOINT ACCOUNT KEY NAME`.

It asks for every operation that is served, and ends with status 0 if it saw what it should.
"""

import sys
import time
from datetime import datetime, timedelta, timezone

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials


def wait_until(look):
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def machine():
    return {
        "vm_size": "STANDARD_A1_V2",
        "virtual_machine_configuration": models.VirtualMachineConfiguration(
            image_reference=models.ImageReference(
                publisher="canonical", offer="0001-com-ubuntu-server-jammy", sku="22_04-lts"
            ),
            node_agent_sku_id="batch.node.ubuntu 22.04",
        ),
    }


def refusal(call, *args, **options):
    try:
        call(*args, **options)
    except models.BatchErrorException as error:
        return error.error.code
    raise AssertionError("not refused")


def main(endpoint, account, key, name):
    client = BatchServiceClient(SharedKeyCredentials(account, key), batch_url=endpoint)
    make_pool(client, name)
    run_tasks(client, name)
    read_files(client, name)
    change_task(client, name)
    change_node(client, name)
    access_node(client, name)
    change_job(client, name)
    change_schedule(client, name)
    list_account_resources(client)
    remove_pool(client, name)


def make_pool(client, name):
    client.pool.add(
        models.PoolAddParameter(
            id=name,
            **machine(),
            target_dedicated_nodes=1,
            task_slots_per_node=2,
            start_task=models.StartTask(command_line="true", wait_for_success=True),
            target_node_communication_mode="simplified",
            metadata=[models.MetadataItem(name="a", value="1")],
        )
    )
    assert client.pool.exists(name)
    assert not client.pool.exists(f"{name}x")
    assert [each.id for each in client.pool.list(models.PoolListOptions(filter=f"id eq '{name}'"))] == [name]
    assert refusal(client.pool.add, models.PoolAddParameter(id=name, **machine())) == "PoolExists"
    wait_until(lambda: [n.state for n in client.compute_node.list(name)] == ["idle"])
    pool = client.pool.get(name, models.PoolGetOptions(select="id,state,currentDedicatedNodes", timeout=30))
    assert (pool.id, pool.current_dedicated_nodes, pool.vm_size) == (name, 1, None)
    condition = models.PoolDeleteOptions(if_match="0x8D0")
    assert refusal(client.pool.delete, name, condition) == "ConditionNotMet"
    client.pool.patch(name, models.PoolPatchParameter(metadata=[]))
    client.pool.update_properties(
        name,
        models.PoolUpdatePropertiesParameter(
            metadata=[], application_package_references=[], certificate_references=[], start_task=None
        ),
    )


def run_tasks(client, name):
    client.job.add(
        models.JobAddParameter(
            id=name,
            pool_info=models.PoolInformation(pool_id=name),
            uses_task_dependencies=True,
            job_preparation_task=models.JobPreparationTask(command_line="true"),
            constraints=models.JobConstraints(max_task_retry_count=1),
        )
    )
    assert [each.id for each in client.job.list(models.JobListOptions(filter=f"id eq '{name}'"))] == [name]
    tasks = [models.TaskAddParameter(id=f"t{n:03}", command_line="/bin/sh -c 'echo hello'") for n in range(120)]
    depends = models.TaskDependencies(task_ids=["t000"])
    tasks.append(models.TaskAddParameter(id="last", command_line="/bin/sh -c 'exit 3'", depends_on=depends))
    result = client.task.add_collection(name, tasks)
    assert [each.status.value for each in result.value] == ["success"] * 121
    assert refusal(client.task.add, name, tasks[0]) == "TaskExists"
    wait_until(lambda: client.job.get_task_counts(name).task_counts.completed == 121)
    counts = client.job.get_task_counts(name).task_counts
    assert (counts.succeeded, counts.failed) == (120, 1)
    options = models.TaskListOptions(max_results=50, select="id,state", filter="executionInfo/exitCode eq 0")
    assert sum(1 for _ in client.task.list(name, options)) == 120
    last = client.task.get(name, "last")
    assert (last.execution_info.exit_code, last.execution_info.retry_count) == (3, 1)
    assert last.execution_info.failure_info.code == "FailureExitCode"
    (status,) = client.job.list_preparation_and_release_task_status(name)
    assert status.job_preparation_task_execution_info.exit_code == 0


def read_files(client, name):
    assert b"".join(client.file.get_from_task(name, "t000", "stdout.txt")) == b"hello\n"
    ranged = models.FileGetFromTaskOptions(ocp_range="bytes=1-2")
    assert b"".join(client.file.get_from_task(name, "t000", "stdout.txt", ranged)) == b"el"
    response = client.file.get_properties_from_task(name, "t000", "stdout.txt", raw=True)
    assert response.response.headers["ocp-batch-file-isdirectory"].lower() == "false"
    assert {file.name for file in client.file.list_from_task(name, "t000")} == {"stdout.txt", "stderr.txt", "wd"}
    client.file.delete_from_task(name, "t000", "stdout.txt")
    assert "stdout.txt" not in {file.name for file in client.file.list_from_task(name, "t000")}
    (node,) = client.compute_node.list(name)
    place = (name, node.id, f"workitems/{name}/job-1/t001/stdout.txt")
    assert b"".join(client.file.get_from_compute_node(*place)) == b"hello\n"
    response = client.file.get_properties_from_compute_node(*place, raw=True)
    assert response.response.headers["content-length"] == "6"
    assert place[2] in {file.name for file in client.file.list_from_compute_node(name, node.id, recursive=True)}
    client.file.delete_from_compute_node(*place)
    assert place[2] not in {file.name for file in client.file.list_from_compute_node(name, node.id, recursive=True)}


def change_task(client, name):
    client.task.reactivate(name, "last")
    wait_until(lambda: client.task.get(name, "last").state.value == "completed")
    assert client.task.list_subtasks(name, "last").value == []
    client.task.delete(name, "last")
    assert refusal(client.task.get, name, "last") == "TaskNotFound"
    client.task.add(name, models.TaskAddParameter(id="long", command_line="sleep 300"))
    client.task.terminate(name, "long")
    assert client.task.get(name, "long").execution_info.failure_info.code == "TaskEnded"


def change_node(client, name):
    (node,) = client.compute_node.list(name)
    client.compute_node.reboot(name, node.id)
    wait_until(lambda: client.compute_node.get(name, node.id).state.value == "idle")
    assert refusal(client.compute_node.reimage, name, node.id) == "OperationNotValidOnNode"
    client.compute_node.disable_scheduling(name, node.id)
    wait_until(lambda: client.compute_node.get(name, node.id).state.value == "offline")
    client.compute_node.enable_scheduling(name, node.id)
    wait_until(lambda: client.compute_node.get(name, node.id).state.value == "idle")
    assert next(iter(client.account.list_pool_node_counts())).dedicated is not None
    assert any(image.verification_type.value == "verified" for image in client.account.list_supported_images())


def access_node(client, name):
    (node,) = client.compute_node.list(name)
    client.compute_node.add_user(name, node.id, models.ComputeNodeUser(name="me", password="secret"))
    client.compute_node.update_user(name, node.id, "me", models.NodeUpdateUserParameter(password="other"))
    client.compute_node.delete_user(name, node.id, "me")
    assert client.compute_node.get_remote_login_settings(name, node.id).remote_login_port == 50000
    # Nothing listens there, which only the log of the server shows.
    upload = models.UploadBatchServiceLogsConfiguration(
        container_url="http://127.0.0.1:1/c", start_time=datetime.now(timezone.utc)
    )
    assert client.compute_node.upload_batch_service_logs(name, node.id, upload).number_of_files_uploaded == 1


def list_account_resources(client):
    assert list(client.application.list()) == []
    assert refusal(client.application.get, "a") == "ApplicationNotFound"
    assert list(client.pool.list_usage_metrics()) == []


def change_schedule(client, name):
    jobs = models.JobSpecification(pool_info=models.PoolInformation(pool_id=name))
    recurrence = models.Schedule(recurrence_interval=timedelta(days=1))
    client.job_schedule.add(models.JobScheduleAddParameter(id=name, schedule=recurrence, job_specification=jobs))
    assert client.job_schedule.exists(name)
    assert name in {schedule.id for schedule in client.job_schedule.list()}
    assert [job.id for job in client.job.list_from_job_schedule(name)] == [f"{name}:job-1"]
    client.job_schedule.disable(name)
    client.job_schedule.enable(name)
    recurrence = models.Schedule(recurrence_interval=timedelta(hours=10))
    client.job_schedule.update(name, models.JobScheduleUpdateParameter(schedule=recurrence, job_specification=jobs))
    recurrence = models.Schedule(recurrence_interval=timedelta(hours=5))
    client.job_schedule.patch(name, models.JobSchedulePatchParameter(schedule=recurrence))
    assert client.job_schedule.get(name).schedule.recurrence_interval == timedelta(hours=5)
    client.job_schedule.terminate(name)
    wait_until(lambda: client.job_schedule.get(name).state.value == "completed")
    client.job_schedule.delete(name)
    wait_until(lambda: not client.job_schedule.exists(name))


def change_job(client, name):
    client.job.patch(name, models.JobPatchParameter(priority=3))
    assert client.job.get(name).priority == 3
    client.job.update(name, models.JobUpdateParameter(pool_info=models.PoolInformation(pool_id=name)))
    assert client.job.get(name).priority == 0
    client.job.disable(name, "requeue")
    wait_until(lambda: client.job.get(name).state.value == "disabled")
    client.task.add(name, models.TaskAddParameter(id="later", command_line="true"))
    client.task.update(name, "later", constraints=models.TaskConstraints(max_wall_clock_time=timedelta(hours=1)))
    assert client.task.get(name, "later").constraints.max_wall_clock_time == timedelta(hours=1)
    client.job.enable(name)
    wait_until(lambda: client.job.get(name).state.value == "active")
    client.job.terminate(name, terminate_reason="enough")
    wait_until(lambda: client.job.get(name).state.value == "completed")
    assert client.job.get(name).execution_info.terminate_reason == "enough"
    client.job.delete(name)
    wait_until(lambda: not list(client.job.list(models.JobListOptions(filter=f"id eq '{name}'"))))


def remove_pool(client, name):
    client.pool.resize(name, models.PoolResizeParameter(target_dedicated_nodes=2))
    wait_until(lambda: client.pool.get(name).allocation_state.value == "steady")
    nodes = [node.id for node in client.compute_node.list(name)]
    assert len(nodes) == 2
    client.pool.remove_nodes(name, models.NodeRemoveParameter(node_list=nodes))
    wait_until(lambda: client.pool.get(name).allocation_state.value == "steady")
    assert list(client.compute_node.list(name)) == []
    client.pool.enable_auto_scale(name, auto_scale_formula="$TargetDedicatedNodes = 0;")
    assert "$TargetDedicatedNodes=1" in client.pool.evaluate_auto_scale(name, "$TargetDedicatedNodes = 1;").results
    client.pool.disable_auto_scale(name)
    client.pool.delete(name)
    wait_until(lambda: not client.pool.exists(name))
    # Nodes of this one never come.
    stalled = f"{name}-stalled"
    client.pool.add(models.PoolAddParameter(id=stalled, **machine(), target_dedicated_nodes=1))
    client.pool.stop_resize(stalled)
    wait_until(lambda: client.pool.get(stalled).allocation_state.value == "steady")
    assert {error.code for error in client.pool.get(stalled).resize_errors} == {"ResizeStopped"}
    client.pool.delete(stalled)


if __name__ == "__main__":
    main(*sys.argv[1:])
