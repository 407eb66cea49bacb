"""Users, remote login settings and service logs of nodes; usage metrics and applications of the account."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from azure.batch import models
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from localbatch.testing import MACHINE_JSON, wait_until

REIMAGE = {"nodeReimageOption": "requeue"}


@pytest.fixture
def node(client, pool_factory):
    """The pool and the id of an idle node."""
    pool_id = pool_factory()
    return pool_id, next(iter(client.list_nodes(pool_id))).id


def test_user_can_be_added_changed_and_deleted(client, node, refuses):
    user = models.BatchNodeUserCreateOptions(
        name="me", password="secret", is_admin=True, expiry_time=datetime.now(timezone.utc) + timedelta(days=2)
    )
    client.create_node_user(*node, user)
    refuses(409, "NodeUserExists", client.create_node_user, *node, user)
    client.replace_node_user(*node, "me", models.BatchNodeUserReplaceOptions(ssh_public_key="ssh-ed25519 AAAA"))
    client.delete_node_user(*node, "me")
    refuses(404, "NodeUserNotFound", client.delete_node_user, *node, "me")
    change = models.BatchNodeUserReplaceOptions(password="secret")
    refuses(404, "NodeUserNotFound", client.replace_node_user, *node, "me", change)
    refuses(404, "NodeNotFound", client.create_node_user, node[0], "no-node", user)


def test_reimaged_node_has_no_users(client, node):
    user = models.BatchNodeUserCreateOptions(name="me", password="secret")
    client.create_node_user(*node, user)
    client.begin_reimage_node(*node, REIMAGE, polling_interval=0).wait()
    wait_until(lambda: client.get_node(*node).state == "idle")
    client.create_node_user(*node, user)


def test_node_that_starts_has_no_users(client, pool_factory, azure_faults, refuses):
    pool_id = pool_factory(start_task=models.BatchStartTask(command_line="true", wait_for_success=True))
    node_id = next(iter(client.list_nodes(pool_id))).id
    azure_faults.add("make_node_unusable", pool=pool_id)
    wait_until(lambda: client.get_node(pool_id, node_id).state == "unusable")
    user = models.BatchNodeUserCreateOptions(name="me", password="secret")
    refuses(409, "NodeStateUnusable", client.create_node_user, pool_id, node_id, user)


def test_user_responses_have_location(ask, node):
    path = f"/pools/{node[0]}/nodes/{node[1]}/users"
    status, body, headers = ask("POST", f"{path}?api-version=2025-06-01", b'{"name": "me", "password": "secret"}')
    assert (status, body, headers["etag"]) == (201, None, None)
    assert headers["location"] == headers["dataserviceid"]
    assert headers["location"].endswith(f"{path}/me")
    status, _, headers = ask("PUT", f"{path}/me?api-version=2025-06-01", b'{"password": "secret"}')
    assert (status, headers["location"]) == (200, None)
    assert headers["dataserviceid"].endswith(f"{path}/me")


@pytest.mark.parametrize("port", [22, 3389])
def test_remote_login_settings_fit_the_endpoint(client, pool_factory, port):
    """The NAT pool of `PoolPreparer` in the tests of azure-batch 15.1 is for RDP, also on Linux."""
    nat_pool = models.BatchInboundNatPool(
        name="login", protocol="tcp", backend_port=port, frontend_port_range_start=15000, frontend_port_range_end=15100
    )
    endpoints = models.BatchPoolEndpointConfiguration(inbound_nat_pools=[nat_pool])
    pool_id = pool_factory(network_configuration=models.NetworkConfiguration(endpoint_configuration=endpoints))
    (node,) = client.list_nodes(pool_id)
    settings = client.get_node_remote_login_settings(pool_id, node.id)
    assert (settings.remote_login_ip_address, settings.remote_login_port) == ("127.0.0.1", 15000)
    assert settings.ipv6_remote_login_port is None


@pytest.mark.parametrize(("version", "names"), [("2023-11-01.18.0", ["SSHRule.0"]), ("2024-07-01.20.0", [])])
def test_older_versions_have_an_endpoint_for_ssh(client, ask, name, version, names):
    """Recorded with version 2023-05-01.17.0 in `test_batch_network_configuration` of azure-sdk-for-python."""
    body = json.dumps({"id": name, "targetDedicatedNodes": 1, **MACHINE_JSON}).encode()
    assert ask("POST", f"/pools?api-version={version}", body)[0] == 201
    wait_until(lambda: client.get_pool(name).allocation_state == "steady")
    (node,) = client.list_nodes(name)
    assert [each.name for each in node.endpoint_configuration.inbound_endpoints] == names
    port = 50000 if names else 22
    assert client.get_node_remote_login_settings(name, node.id).remote_login_port == port
    client.begin_delete_pool(name, polling_interval=0).wait()


def test_service_log_is_uploaded(client, node, blobs, name, local_azure, refuses):
    container = blobs.create_container(name)
    now = datetime.now(timezone.utc)
    signature = generate_container_sas(
        local_azure.storage_account,
        name,
        account_key=local_azure.storage_key,
        permission=ContainerSasPermissions(write=True),
        expiry=now + timedelta(hours=1),
    )
    options = models.UploadBatchServiceLogsOptions(container_url=f"{container.url}?{signature}", start_time=now)
    result = client.upload_node_logs(*node, options)
    assert result.number_of_files_uploaded == 1
    assert result.virtual_directory_name.split("/")[1:3] == list(node)
    blob = f"{result.virtual_directory_name}/agent.log"
    wait_until(lambda: [each.name for each in container.list_blobs()] == [blob])
    assert node[1] in container.download_blob(blob).readall().decode()
    refuses(400, "MissingRequiredProperty", client.upload_node_logs, *node, {"containerUrl": container.url})


def test_account_has_no_usage_metrics(client):
    end = datetime.now(timezone.utc) - timedelta(hours=3)
    assert list(client.list_pool_usage_metrics()) == []
    found = client.list_pool_usage_metrics(start_time=end - timedelta(days=1), end_time=end, filter="poolId eq 'p'")
    assert list(found) == []


def test_account_has_no_applications(client, refuses):
    assert list(client.list_applications()) == []
    refuses(404, "ApplicationNotFound", client.get_application, "app")
