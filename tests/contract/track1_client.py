"""A client of the track 1 SDK, in a process of its own: `python track1_client.py ENDPOINT ACCOUNT KEY NAME`.

It goes through the life of a pool, a job and its Batch tasks, and ends with status 0 if it saw what it should.
"""

import sys
import time
from datetime import timedelta

from azure.batch import BatchServiceClient, models
from azure.batch.batch_auth import SharedKeyCredentials


def wait_until(look):
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


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
    change_job(client, name)
    remove_pool(client, name)


def make_pool(client, name):
    client.pool.add(
        models.PoolAddParameter(
            id=name,
            vm_size="STANDARD_D2_V3",
            target_dedicated_nodes=1,
            task_slots_per_node=2,
            virtual_machine_configuration=models.VirtualMachineConfiguration(
                image_reference=models.ImageReference(publisher="canonical", offer="o", sku="s"),
                node_agent_sku_id="batch.node.ubuntu 22.04",
            ),
            start_task=models.StartTask(command_line="true", wait_for_success=True),
            target_node_communication_mode="simplified",
            metadata=[models.MetadataItem(name="a", value="1")],
        )
    )
    assert client.pool.exists(name)
    assert not client.pool.exists(f"{name}x")
    assert refusal(client.pool.add, models.PoolAddParameter(id=name, vm_size="x")) == "PoolExists"
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
            constraints=models.JobConstraints(max_task_retry_count=1),
        )
    )
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


def read_files(client, name):
    assert b"".join(client.file.get_from_task(name, "t000", "stdout.txt")) == b"hello\n"
    ranged = models.FileGetFromTaskOptions(ocp_range="bytes=1-2")
    assert b"".join(client.file.get_from_task(name, "t000", "stdout.txt", ranged)) == b"el"
    response = client.file.get_properties_from_task(name, "t000", "stdout.txt", raw=True)
    assert response.response.headers["ocp-batch-file-isdirectory"].lower() == "false"
    assert {file.name for file in client.file.list_from_task(name, "t000")} == {"stdout.txt", "stderr.txt", "wd"}
    client.file.delete_from_task(name, "t000", "stdout.txt")


def change_task(client, name):
    client.task.reactivate(name, "last")
    wait_until(lambda: client.task.get(name, "last").state.value == "completed")
    client.task.delete(name, "last")
    assert refusal(client.task.get, name, "last") == "TaskNotFound"


def change_node(client, name):
    (node,) = client.compute_node.list(name)
    client.compute_node.reboot(name, node.id)
    wait_until(lambda: client.compute_node.get(name, node.id).state.value == "idle")
    client.compute_node.disable_scheduling(name, node.id)
    wait_until(lambda: client.compute_node.get(name, node.id).state.value == "offline")
    assert next(iter(client.account.list_pool_node_counts())).dedicated is not None
    assert any(image.verification_type.value == "verified" for image in client.account.list_supported_images())


def change_job(client, name):
    client.job.patch(name, models.JobPatchParameter(priority=3))
    client.job.update(name, models.JobUpdateParameter(pool_info=models.PoolInformation(pool_id=name)))
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


def remove_pool(client, name):
    client.pool.resize(name, models.PoolResizeParameter(target_dedicated_nodes=0))
    wait_until(lambda: client.pool.get(name).allocation_state.value == "steady")
    client.pool.enable_auto_scale(name, auto_scale_formula="$TargetDedicatedNodes = 0;")
    assert "$TargetDedicatedNodes=1" in client.pool.evaluate_auto_scale(name, "$TargetDedicatedNodes = 1;").results
    client.pool.disable_auto_scale(name)
    client.pool.delete(name)
    wait_until(lambda: not client.pool.exists(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
