from azure.batch import models

from localbatch.testing import wait_until


def make_start_task(command_line, **options):
    return models.BatchStartTask(command_line=command_line, **options)


def states(client, pool_id):
    return [node.state for node in client.list_nodes(pool_id)]


def test_node_describes_itself(client, pool_factory):
    pool_id = pool_factory(1)
    (node,) = client.list_nodes(pool_id, filter="state eq 'idle'")
    assert node.id.startswith("tvmps_")
    assert node.id.endswith("_d")
    assert (node.is_dedicated, node.vm_size, node.running_tasks_count) == (True, "standard_a1_v2", 0)
    assert node.allocation_time <= node.last_boot_time <= node.state_transition_time
    assert client.get_node(pool_id, node.id, select=["id"]).as_dict().keys() >= {"id"}


def test_missing_node_is_not_found(client, pool_factory, refuses):
    pool_id = pool_factory(0)
    refuses(404, "NodeNotFound", client.get_node, pool_id, "tvmps_0")
    refuses(404, "PoolNotFound", client.get_node, f"{pool_id}x", "tvmps_0")


def test_start_task_runs_on_every_node(client, pool_factory):
    pool_id = pool_factory(2, start_task=make_start_task("/bin/sh -c 'echo hello; pwd >&2'"))
    for node in client.list_nodes(pool_id):
        info = node.start_task_info
        assert (info.state, info.exit_code, info.result, info.retry_count) == ("completed", 0, "success", 0)
        read = client.download_node_file
        assert b"".join(read(pool_id, node.id, "startup/stdout.txt")) == b"hello\n"
        assert b"".join(read(pool_id, node.id, "/startup/stderr.txt")).endswith(b"/startup/wd\n")


def test_failed_start_task_keeps_tasks_away(client, pool_factory, job_factory):
    start_task = make_start_task("/bin/sh -c 'echo x >> attempts; exit 5'", max_task_retry_count=2)
    pool_id = pool_factory(1, ready=False, start_task=start_task)
    wait_until(lambda: states(client, pool_id) == ["starttaskfailed"])
    (node,) = client.list_nodes(pool_id)
    info = node.start_task_info
    assert (info.result, info.exit_code, info.retry_count, info.failure_info.code) == (
        "failure",
        5,
        2,
        "FailureExitCode",
    )
    assert b"".join(client.download_node_file(pool_id, node.id, "startup/wd/attempts")) == b"x\nx\nx\n"
    pool = client.get_pool(pool_id)
    assert (pool.allocation_state, pool.resize_errors) == ("steady", None)
    (counts,) = client.list_pool_node_counts(filter=f"poolId eq '{pool_id}'")
    assert (counts.dedicated.start_task_failed, counts.dedicated.total) == (1, 1)


def test_start_task_fails_without_its_file(client, pool_factory, local_azure):
    missing = models.ResourceFile(http_url=f"{local_azure.storage_endpoint}/none/none", file_path="x")
    pool_id = pool_factory(1, ready=False, start_task=make_start_task("true", resource_files=[missing]))
    wait_until(lambda: states(client, pool_id) == ["starttaskfailed"])
    (node,) = client.list_nodes(pool_id)
    assert node.start_task_info.failure_info.code in {"BlobNotFound", "BlobAccessDenied"}


def test_node_waits_for_its_start_task(client, pool_factory):
    pool_id = pool_factory(
        1, ready=False, start_task=make_start_task("/bin/sh -c 'until test -e go; do sleep 0.01; done'")
    )
    wait_until(lambda: states(client, pool_id) == ["waitingforstarttask"])
    assert client.get_pool(pool_id).allocation_state == "steady"


def test_reboot_requeues_running_tasks(client, pool_factory, job_factory, refuses):
    pool_id = pool_factory(1, start_task=make_start_task("/bin/sh -c 'echo x >> boots'"))
    job_id = job_factory(pool_id)
    command = "/bin/sh -c 'test -e mark || { touch mark; sleep 300; }'"
    client.create_task(job_id, models.BatchTaskCreateOptions(id="t", command_line=command))
    wait_until(lambda: any(f.name == "wd/mark" for f in list_files(client, job_id)))
    (node,) = client.list_nodes(pool_id)
    client.begin_reboot_node(pool_id, node.id, {"nodeRebootOption": "requeue"}, polling_interval=0).result()
    task = wait_until(lambda: next(client.list_tasks(job_id, filter="state eq 'completed'"), None))
    assert (task.execution_info.exit_code, task.execution_info.requeue_count, task.execution_info.retry_count) == (
        0,
        1,
        0,
    )
    assert b"".join(client.download_node_file(pool_id, node.id, "startup/wd/boots")) == b"x\nx\n"
    refuses(404, "NodeNotFound", client.begin_reboot_node, pool_id, "tvmps_0", {"nodeRebootOption": "requeue"})


def list_files(client, job_id):
    task = client.get_task(job_id, "t")
    return client.list_task_files(job_id, "t", recursive=True) if task.node_info else []


def test_unusable_node_is_not_rebooted(client, pool_factory, refuses):
    pool_id = pool_factory(1, ready=False, start_task=make_start_task("sleep 300"))
    wait_until(lambda: states(client, pool_id) == ["waitingforstarttask"])
    (node,) = client.list_nodes(pool_id)
    refuses(409, "NodeBeingStarted", client.begin_reboot_node, pool_id, node.id, {"nodeRebootOption": "requeue"})


def test_node_files_have_the_real_layout(client, pool_factory):
    pool_id = pool_factory(1, start_task=make_start_task("true"))
    (node,) = client.list_nodes(pool_id)
    names = [file.name for file in client.list_node_files(pool_id, node.id)]
    assert names == ["applications", "fsmounts", "shared", "startup", "volatile", "workitems"]
    names = [
        file.name
        for file in client.list_node_files(pool_id, node.id, filter="startswith(name,'startup')", recursive=True)
    ]
    assert names == ["startup", "startup/stderr.txt", "startup/stdout.txt", "startup/wd"]
