"""Operations on pools and nodes other than creating and resizing."""

from datetime import timedelta

import pytest
from azure.batch import BatchClient, models
from azure.core.credentials import AzureNamedKeyCredential

from localbatch import LocalBatch
from localbatch.testing import MACHINE, wait_until

SLEEP = "sleep 300"


def make_task(task_id="task", command_line="true", **options):
    return models.BatchTaskCreateOptions(id=task_id, command_line=command_line, **options)


def state_of(client, pool_id, node_id):
    return client.get_node(pool_id, node_id).state


@pytest.fixture
def busy_node(client, pool_factory, job_factory):
    """A node on which one Batch task sleeps."""
    pool_id = pool_factory(1)
    job_id = job_factory(pool_id)
    client.create_task(job_id, make_task("t", SLEEP))
    wait_until(lambda: client.get_task(job_id, "t").state == "running")
    (node,) = client.list_nodes(pool_id)
    return pool_id, node.id, job_id


def test_replacement_drops_other_properties(client, pool_factory, refuses):
    pool_id = pool_factory(
        0,
        start_task=models.BatchStartTask(command_line="true"),
        metadata=[models.BatchMetadataItem(name="a", value="1")],
    )
    etag = client.get_pool(pool_id).etag
    body = models.BatchPoolReplaceOptions(application_package_references=[], metadata=[])
    client.replace_pool_properties(pool_id, body)
    pool = client.get_pool(pool_id)
    assert (pool.start_task, pool.metadata, pool.etag != etag) == (None, [], True)
    incomplete = models.BatchPoolReplaceOptions(application_package_references=None, metadata=[])
    refuses(400, "MissingRequiredProperty", client.replace_pool_properties, pool_id, incomplete)


def test_empty_pool_takes_any_change(client, pool_factory):
    pool_id = pool_factory(0)
    changes = models.BatchPoolUpdateOptions(
        vm_size="STANDARD_A1",
        display_name="new",
        task_slots_per_node=3,
        enable_inter_node_communication=True,
        task_scheduling_policy=models.BatchTaskSchedulingPolicy(node_fill_type="pack"),
    )
    client.update_pool(pool_id, changes)
    pool = client.get_pool(pool_id)
    assert (pool.vm_size, pool.display_name, pool.task_slots_per_node) == ("standard_a1", "new", 3)
    assert (pool.enable_inter_node_communication, pool.task_scheduling_policy.node_fill_type) == (True, "Pack")


def test_expand_of_statistics_is_accepted(client, pool_factory, refuses):
    pool_id = pool_factory(0)
    assert client.get_pool(pool_id, expand=["stats"]).id == pool_id
    assert next(iter(client.list_pools(expand=["stats"], filter=f"id eq '{pool_id}'"))).id == pool_id
    refuses(400, "InvalidQueryParameterValue", client.get_pool, pool_id, expand=["nodes"])


def test_what_cannot_be_selected_is_refused(client, pool_factory, job_factory, refuses):
    pool_id, job_id = pool_factory(0), job_factory()
    for call in (
        lambda: client.get_pool(pool_id, select=["size"]),
        lambda: client.get_job(job_id, select=["commandLine"]),
        lambda: list(client.list_tasks(job_id, select=["id", "poolInfo"])),
        lambda: list(client.list_nodes(pool_id, select=["poolId"])),
    ):
        refuses(400, "InvalidQueryParameterValue", call)


def test_nodes_are_removed_by_their_ids(client, pool_factory, refuses):
    pool_id = pool_factory(3)
    ids = [node.id for node in client.list_nodes(pool_id)]
    options = models.BatchNodeRemoveOptions(node_ids=ids[:2])
    client.begin_remove_nodes(pool_id, options, polling_interval=0).result()
    pool = client.get_pool(pool_id)
    assert [node.id for node in client.list_nodes(pool_id)] == ids[2:]
    assert (pool.target_dedicated_nodes, pool.current_dedicated_nodes, pool.allocation_state) == (1, 1, "steady")
    unknown = models.BatchNodeRemoveOptions(node_ids=["tvmps_0"])
    refuses(404, "NodeNotFound", client.begin_remove_nodes, pool_id, unknown)
    many = models.BatchNodeRemoveOptions(node_ids=[f"n{number}" for number in range(101)])
    refuses(400, "InvalidPropertyValue", client.begin_remove_nodes, pool_id, many)


def test_autoscale_is_enabled_every_30_seconds(local_azure, client, pool_factory, refuses):
    pool_id = pool_factory(0)
    options = models.BatchPoolEnableAutoScaleOptions(auto_scale_formula="$TargetDedicatedNodes = 0;")
    client.enable_pool_auto_scale(pool_id, options)
    wait_until(lambda: client.get_pool(pool_id).allocation_state == "steady")
    credential = AzureNamedKeyCredential(local_azure.account, local_azure.key)
    with BatchClient(local_azure.endpoint, credential, retry_total=0) as hasty:
        refuses(503, "TooManyEnableAutoScaleRequests", hasty.enable_pool_auto_scale, pool_id, options)


def test_short_resize_timeout_is_refused(client, pool_factory, refuses):
    pool_id = pool_factory(0)
    options = models.BatchPoolResizeOptions(target_dedicated_nodes=1, resize_timeout=timedelta(minutes=4))
    refuses(400, "InvalidPropertyValue", client.begin_resize_pool, pool_id, options)
    assert client.get_pool(pool_id).resize_timeout == timedelta(minutes=15)


def test_node_describes_its_machine(client, pool_factory):
    pool_id = pool_factory(1)
    (node,) = client.list_nodes(pool_id)
    assert (node.endpoint_configuration.inbound_endpoints, node.scheduling_state) == ([], "enabled")
    assert node.node_agent_info.last_update_time == node.last_boot_time
    assert (node.virtual_machine_info.image_reference.sku, node.virtual_machine_info.image_reference.exact_version) == (
        "22_04-lts",
        "latest",
    )


def test_nat_pools_are_endpoints_of_nodes(client, pool_factory):
    """As recorded in `test_batch_network_configuration` of azure-sdk-for-python."""
    nat_pool = models.BatchInboundNatPool(
        name="web", protocol="tcp", backend_port=8080, frontend_port_range_start=15000, frontend_port_range_end=15100
    )
    network = models.NetworkConfiguration(
        endpoint_configuration=models.BatchPoolEndpointConfiguration(inbound_nat_pools=[nat_pool]),
        public_ip_address_configuration=models.BatchPublicIpAddressConfiguration(ip_families=["IPv4", "IPv6"]),
    )
    pool_id = pool_factory(2, network_configuration=network)
    nodes = sorted(client.list_nodes(pool_id), key=lambda node: node.endpoint_configuration.inbound_endpoints[0].name)
    assert [
        [(each.name, each.protocol, each.frontend_port, each.backend_port) for each in endpoints.inbound_endpoints]
        for endpoints in (node.endpoint_configuration for node in nodes)
    ] == [
        [
            (f"web.{number}", "tcp", 15000 + number, 8080),
            (f"web-ipv6.{number}", "tcp", 15000 + number, 8080),
        ]
        for number in range(2)
    ]
    assert nodes[0].ipv6_address == "::1"
    login = client.get_node_remote_login_settings(pool_id, nodes[1].id)
    assert (login.remote_login_ip_address, login.remote_login_port) == ("127.0.0.1", 22)
    assert (login.ipv6_remote_login_ip_address, login.ipv6_remote_login_port) == ("::1", 22)


def test_disabled_scheduling_takes_node_offline(client, busy_node, refuses):
    pool_id, node_id, job_id = busy_node
    client.disable_node_scheduling(pool_id, node_id, {"nodeDisableSchedulingOption": "requeue"})
    wait_until(lambda: state_of(client, pool_id, node_id) == "offline")
    reboot = {"nodeRebootOption": "requeue"}
    refuses(409, "OperationInvalidForCurrentState", client.begin_reboot_node, pool_id, node_id, reboot)
    task = client.get_task(job_id, "t")
    assert (task.state, task.execution_info.requeue_count) == ("active", 1)
    assert client.get_node(pool_id, node_id).scheduling_state == "disabled"
    again = {"nodeDisableSchedulingOption": "requeue"}
    refuses(409, "NodeAlreadyInTargetSchedulingState", client.disable_node_scheduling, pool_id, node_id, again)
    (counts,) = client.list_pool_node_counts(filter=f"poolId eq '{pool_id}'")
    assert counts.dedicated.offline == 1
    client.enable_node_scheduling(pool_id, node_id)
    wait_until(lambda: client.get_task(job_id, "t").state == "running")
    refuses(409, "NodeAlreadyInTargetSchedulingState", client.enable_node_scheduling, pool_id, node_id)


def test_reimage_removes_files(client, busy_node):
    pool_id, node_id, job_id = busy_node
    client.delete_task(job_id, "t")
    client.begin_reimage_node(pool_id, node_id, {"nodeReimageOption": "requeue"}, polling_interval=0).result()
    wait_until(lambda: state_of(client, pool_id, node_id) == "idle")
    assert [file.name for file in client.list_node_files(pool_id, node_id)] == []


def test_deallocated_node_starts_again(client, busy_node, refuses):
    pool_id, node_id, job_id = busy_node
    deallocate = {"nodeDeallocateOption": "requeue"}
    client.begin_deallocate_node(pool_id, node_id, deallocate, polling_interval=0).result()
    assert state_of(client, pool_id, node_id) == "deallocated"
    assert client.get_task(job_id, "t").state == "active"
    error = refuses(
        409,
        "OperationInvalidForCurrentState",
        client.begin_reboot_node,
        pool_id,
        node_id,
        {"nodeRebootOption": "requeue"},
    )
    assert "deallocated" in str(error.error.details[0].message)
    client.begin_start_node(pool_id, node_id, polling_interval=0).result()
    wait_until(lambda: client.get_task(job_id, "t").state == "running")


def test_node_not_running_refuses_operations(refuses):
    with LocalBatch(pace="real") as batch:
        scheduler, store = batch._service.scheduler, batch._service.store
        with BatchClient(batch.endpoint, AzureNamedKeyCredential(batch.account, batch.key)) as client:
            client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
            with store.lock:
                now = store.pools["p"].created_at + timedelta(seconds=20)
                scheduler.tick(now)
            (node,) = client.list_nodes("p")
            requeue = {"nodeRebootOption": "requeue"}
            refuses(409, "NodeBeingCreated", client.begin_reboot_node, "p", node.id, requeue)
            refuses(409, "NodeBeingCreated", client.enable_node_scheduling, "p", node.id)
            with store.lock:
                for seconds in (11, 50):
                    now += timedelta(seconds=seconds)
                    scheduler.tick(now)
            client.begin_reimage_node("p", node.id, {"nodeReimageOption": "requeue"}, polling_interval=30)
            assert state_of(client, "p", node.id) == "reimaging"
            refuses(409, "NodeBeingReimaged", client.begin_reboot_node, "p", node.id, requeue)
            with store.lock:
                scheduler.nodes.make_unusable(store.node("p", node.id), "DiskFull", "The disk is full", now)
            refuses(409, "NodeStateUnusable", client.begin_reboot_node, "p", node.id, requeue)
            (node,) = client.list_nodes("p", filter="state eq 'unusable'")
            assert (node.errors[0].code, node.errors[0].message) == ("DiskFull", "The disk is full")


def test_task_and_node_files_are_deleted(client, run, refuses):
    task = run("/bin/sh -c 'mkdir -p dir/sub; echo x > dir/sub/file; echo y > single'")
    pool_id, node_id = task.node_info.pool_id, task.node_info.node_id
    client.delete_task_file(task.job_id, "task", "wd/single")
    refuses(404, "FileNotFound", client.delete_task_file, task.job_id, "task", "wd/single")
    refuses(400, "InvalidQueryParameterValue", client.delete_task_file, task.job_id, "task", "wd/dir")
    client.delete_task_file(task.job_id, "task", "wd/dir", recursive=True)
    assert "wd/dir" not in {file.name for file in client.list_task_files(task.job_id, "task", recursive=True)}
    path = f"workitems/{task.job_id}/job-1/task/stdout.txt"
    client.delete_node_file(pool_id, node_id, path)
    refuses(404, "FileNotFound", client.delete_node_file, pool_id, node_id, path)
