import uuid
from datetime import timedelta

import pytest
from azure.batch import BatchClient, models
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError

from localbatch import LocalBatch
from localbatch.testing import MACHINE, wait_until


def test_new_pool_echoes_its_defaults(client, pool_factory):
    pool_id = pool_factory(
        0,
        vm_size="STANDARD_D2_V3",
        metadata=[models.BatchMetadataItem(name="owner", value="me")],
        start_task=models.BatchStartTask(command_line="true"),
    )
    pool = client.get_pool(pool_id)
    assert (pool.id, pool.state, pool.vm_size, pool.task_slots_per_node) == (pool_id, "active", "standard_d2_v3", 1)
    assert (pool.resize_timeout, pool.enable_auto_scale) == (timedelta(minutes=15), False)
    assert (pool.current_dedicated_nodes, pool.target_dedicated_nodes, pool.target_low_priority_nodes) == (0, 0, 0)
    assert pool.virtual_machine_configuration.image_reference.version == "latest"
    assert (pool.start_task.wait_for_success, pool.start_task.max_task_retry_count) == (True, 0)
    assert pool.start_task.user_identity.auto_user.elevation_level == "nonadmin"
    assert pool.metadata == [{"name": "owner", "value": "me"}]
    assert pool.url.endswith(f"/pools/{pool_id}")


def test_ids_keep_case_and_ignore_it(client, pool_factory, refuses):
    pool_id = pool_factory(0)
    assert client.get_pool(pool_id.upper()).id == pool_id
    assert client.pool_exists(pool_id.upper())
    duplicate = models.BatchPoolCreateOptions(id=pool_id.upper(), **MACHINE)
    error = refuses(409, "PoolExists", client.create_pool, duplicate)
    assert str(error).startswith("(PoolExists) The specified pool already exists.")


def test_missing_pool_is_not_found(client, name, refuses):
    refuses(404, "PoolNotFound", client.get_pool, name)
    with pytest.raises(ResourceNotFoundError):
        client.pool_exists(name)


GROUP = "/subscriptions/{}/resourceGroups/test/providers/Microsoft.Network"


@pytest.mark.parametrize("subnet", [GROUP.format(uuid.UUID(int=0)) + "/virtualNetworks/v/subnets/s", "nodes"])
def test_subnet_of_another_subscription_is_refused(client, name, refuses, subnet):
    """As recorded in `test_batch_create_pools` of azure-sdk-for-python."""
    network = models.NetworkConfiguration(subnet_id=subnet)
    body = models.BatchPoolCreateOptions(id=name, network_configuration=network, **MACHINE)
    error = refuses(400, "InvalidPropertyValue", client.create_pool, body)
    assert error.error.details[0].message == "subnetId"


def test_windows_images_have_both_generations(client):
    found = client.list_supported_images(filter="osType eq 'windows'")
    skus = {image.image_reference.sku: "Generation2VMImage" in (image.capabilities or []) for image in found}
    assert (skus["2022-datacenter"], skus["2022-datacenter-g2"]) == (False, True)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"id": "no spaces"}, "InvalidPropertyValue"),
        ({"id": "x" * 65}, "InvalidPropertyValue"),
        ({"task_slots_per_node": 257}, "InvalidPropertyValue"),
        ({"target_dedicated_nodes": -1}, "InvalidPropertyValue"),
        ({"resize_timeout": timedelta(minutes=1)}, "InvalidPropertyValue"),
        ({"resize_timeout": timedelta(0)}, "InvalidPropertyValue"),
        ({"enable_auto_scale": True}, "MissingRequiredProperty"),
        ({"auto_scale_formula": "$TargetDedicatedNodes=1"}, "InvalidPropertyValue"),
        ({"vm_size": None}, "MissingRequiredProperty"),
        ({"virtual_machine_configuration": None}, "MissingRequiredProperty"),
        ({"vm_size": "nonsense"}, "InvalidPropertyValue"),
        (
            {
                "mount_configuration": [
                    models.MountConfiguration(nfs_mount_configuration=models.NfsMountConfiguration(source="s"))
                ]
            },
            "MissingRequiredProperty",
        ),
    ],
)
def test_invalid_pool_is_refused(client, name, refuses, options, code):
    body = models.BatchPoolCreateOptions(**{"id": name} | MACHINE | options)
    refuses(400, code, client.create_pool, body)


def test_pools_are_listed_by_pages(client, pool_factory):
    ids = [pool_factory(0, ready=False) for _ in range(4)]
    prefix = ids[0][:-2]
    pools = client.list_pools(max_results=1, filter=f"startswith(id,'{prefix}')", select=["id", "state"])
    assert [pool.as_dict() for pool in pools] == [{"id": pool_id, "state": "active"} for pool_id in ids]
    by_page = client.list_pools(max_results=3, filter=f"startswith(id,'{prefix}')").by_page()
    assert [len(list(page)) for page in by_page] == [3, 1]


@pytest.mark.parametrize(
    ("size", "code", "reason"),
    [
        (0, "InvalidQueryParameterValue", "MaxResults cannot be less than 1"),
        (-1, "InvalidQueryParameterValue", "MaxResults cannot be less than 1"),
        (1001, "OutOfRangeQueryParameterValue", "1000"),
    ],
)
def test_page_has_1_to_1000_entries(client, refuses, size, code, reason):
    error = refuses(400, code, lambda: list(client.list_pools(max_results=size)))
    assert error.error.details[-1].message == reason


def test_invalid_filter_is_refused(client, refuses):
    refuses(400, "InvalidQueryParameterValue", lambda: list(client.list_pools(filter="size eq 'big'")))


def test_resize_is_visible_until_steady(client, pool_factory, refuses):
    pool_id = pool_factory(1)
    etag = client.get_pool(pool_id).etag
    options = models.BatchPoolResizeOptions(target_dedicated_nodes=3, target_low_priority_nodes=1)
    poller = client.begin_resize_pool(pool_id, options, polling_interval=0)
    poller.result()
    assert poller.status() == "Succeeded"
    pool = client.get_pool(pool_id)
    assert (pool.allocation_state, pool.current_dedicated_nodes, pool.current_low_priority_nodes) == ("steady", 3, 1)
    assert pool.etag != etag
    options = models.BatchPoolResizeOptions(target_dedicated_nodes=0)
    client.begin_resize_pool(pool_id, options, polling_interval=0).result()
    assert [node.is_dedicated for node in client.list_nodes(pool_id)] == [False]
    refuses(409, "OperationInvalidForCurrentState", client.begin_stop_pool_resize, pool_id)


def test_resize_can_be_stopped():
    with LocalBatch(pace="real") as batch:
        credential = AzureNamedKeyCredential(batch.account, batch.key)
        with BatchClient(batch.endpoint, credential, retry_total=0) as client:
            client.create_pool(models.BatchPoolCreateOptions(id="slow", **MACHINE, target_dedicated_nodes=2))
            assert client.get_pool("slow").allocation_state == "resizing"
            with pytest.raises(HttpResponseError, match="PoolBeingResized"):
                client.begin_resize_pool("slow", models.BatchPoolResizeOptions(target_dedicated_nodes=1))
            etag = client.get_pool("slow").etag
            client.begin_stop_pool_resize("slow", polling_interval=30)
            pool = client.get_pool("slow")
            assert (pool.allocation_state, pool.target_dedicated_nodes, pool.etag) == ("stopping", 2, etag)
            batch.advance(timedelta(minutes=1))
            wait_until(lambda: client.get_pool("slow").allocation_state == "steady")
            assert [(error.code, error.message) for error in client.get_pool("slow").resize_errors] == [
                (
                    "ResizeStopped",
                    "Desired number of dedicated nodes could not be allocated due to a stop resize operation",
                )
            ]


def test_deleted_pool_disappears(client, pool_factory, refuses):
    pool_id = pool_factory(2)
    poller = client.begin_delete_pool(pool_id, polling_interval=0)
    poller.result()
    assert poller.status() == "Succeeded"
    refuses(404, "PoolNotFound", client.get_pool, pool_id)


def test_pool_being_deleted_cannot_change():
    with LocalBatch(pace="real", pool_quota=1) as batch:
        credential = AzureNamedKeyCredential(batch.account, batch.key)
        with BatchClient(batch.endpoint, credential, retry_total=0) as client:
            body = models.BatchPoolCreateOptions(id="p", **MACHINE)
            client.create_pool(body)
            with pytest.raises(HttpResponseError, match="PoolQuotaReached"):
                client.create_pool(models.BatchPoolCreateOptions(id="q", **MACHINE))
            client.begin_delete_pool("p", polling_interval=30)
            assert client.get_pool("p").state == "deleting"
            for call in (
                lambda: client.create_pool(body),
                lambda: client.update_pool("p", models.BatchPoolUpdateOptions(metadata=[])),
                lambda: client.begin_delete_pool("p"),
                lambda: client.begin_resize_pool("p", models.BatchPoolResizeOptions(target_dedicated_nodes=1)),
            ):
                with pytest.raises(HttpResponseError, match="PoolBeingDeleted"):
                    call()


def test_patch_changes_what_it_names(client, pool_factory, refuses):
    pool_id = pool_factory(1, metadata=[models.BatchMetadataItem(name="a", value="1")])
    start_task = models.BatchStartTask(command_line="true")
    client.update_pool(pool_id, models.BatchPoolUpdateOptions(start_task=start_task))
    pool = client.get_pool(pool_id)
    assert (pool.start_task.command_line, pool.metadata) == ("true", [{"name": "a", "value": "1"}])
    client.update_pool(pool_id, models.BatchPoolUpdateOptions(metadata=[]))
    assert client.get_pool(pool_id).metadata == []
    resized = models.BatchPoolUpdateOptions(task_slots_per_node=2)
    refuses(409, "OperationInvalidForCurrentState", client.update_pool, pool_id, resized)


def test_conditions_hold_or_nothing_is_done(client, pool_factory):
    pool_id = pool_factory(0)
    pool = client.get_pool(pool_id)
    patch = models.BatchPoolUpdateOptions(metadata=[])
    with pytest.raises(ResourceModifiedError):
        client.get_pool(pool_id, etag=pool.etag, match_condition=MatchConditions.IfModified)
    client.update_pool(pool_id, patch, etag=pool.etag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(ResourceModifiedError) as caught:
        client.update_pool(pool_id, patch, etag=pool.etag, match_condition=MatchConditions.IfNotModified)
    assert (caught.value.status_code, caught.value.error.code) == (412, "ConditionNotMet")
    later = pool.last_modified + timedelta(hours=1)
    with pytest.raises(ResourceModifiedError):
        client.get_pool(pool_id, if_modified_since=later)
    client.get_pool(pool_id, if_unmodified_since=later)


FORMULA = "$TargetDedicatedNodes = 2; $NodeDeallocationOption = requeue;"


def test_formula_sizes_its_pool(client, pool_factory, refuses):
    pool_id = pool_factory(2, enable_auto_scale=True, auto_scale_formula=FORMULA)
    pool = client.get_pool(pool_id)
    assert (pool.enable_auto_scale, pool.auto_scale_evaluation_interval) == (True, timedelta(minutes=15))
    assert "$TargetDedicatedNodes=2" in pool.auto_scale_run.results
    assert pool.auto_scale_run.timestamp >= pool.creation_time
    resize = models.BatchPoolResizeOptions(target_dedicated_nodes=1)
    refuses(409, "OperationInvalidForCurrentState", client.begin_resize_pool, pool_id, resize)
    evaluate = client.evaluate_pool_auto_scale
    run = evaluate(pool_id, models.BatchPoolEvaluateAutoScaleOptions(auto_scale_formula="$TargetDedicatedNodes=7"))
    assert "$TargetDedicatedNodes=7" in run.results
    run = evaluate(pool_id, models.BatchPoolEvaluateAutoScaleOptions(auto_scale_formula="$TargetDedicatedNodes=1/0"))
    assert run.error.code == "AutoScalingFormulaEvaluationError"
    assert client.get_pool(pool_id).target_dedicated_nodes == 2
    client.disable_pool_auto_scale(pool_id)
    pool = client.get_pool(pool_id)
    assert (pool.enable_auto_scale, pool.auto_scale_formula, pool.current_dedicated_nodes) == (False, None, 2)
    evaluation = models.BatchPoolEvaluateAutoScaleOptions(auto_scale_formula=FORMULA)
    refuses(409, "OperationInvalidForCurrentState", evaluate, pool_id, evaluation)


def test_formula_takes_over_a_pool(client, pool_factory, refuses):
    pool_id = pool_factory(0)
    wrong = models.BatchPoolEnableAutoScaleOptions(auto_scale_formula="$TargetDedicatedNodes = ;")
    refuses(400, "AutoScalingFormulaSyntaxError", client.enable_pool_auto_scale, pool_id, wrong)
    short = timedelta(minutes=1)
    hasty = models.BatchPoolEnableAutoScaleOptions(auto_scale_formula=FORMULA, auto_scale_evaluation_interval=short)
    refuses(400, "InvalidPropertyValue", client.enable_pool_auto_scale, pool_id, hasty)
    client.enable_pool_auto_scale(pool_id, models.BatchPoolEnableAutoScaleOptions(auto_scale_formula=FORMULA))
    wait_until(lambda: client.get_pool(pool_id).current_dedicated_nodes == 2)


def test_images_are_of_every_kind(client):
    images = list(client.list_supported_images())
    assert {image.verification_type for image in images} == {"verified", "unverified"}
    assert any(image.batch_support_end_of_life for image in images)
    linux = list(client.list_supported_images(filter="osType eq 'linux' and verificationType eq 'verified'"))
    assert "batch.node.ubuntu 22.04" in {image.node_agent_sku_id for image in linux}
    assert len(linux) < len(images)
    skus = {
        (image.node_agent_sku_id, image.image_reference.sku): "Generation2VMImage" in (image.capabilities or [])
        for image in images
        if image.image_reference.offer == "ubuntu-24_04-lts"
    }
    assert skus == {
        ("batch.node.ubuntu 24.04", "server"): True,
        ("batch.node.ubuntu 24.04", "server-gen1"): False,
        ("batch.node.ubuntu 24.04-arm64", "server-arm64"): True,
    }


def test_nodes_are_counted_by_state(client, pool_factory):
    pool_id = pool_factory(2)
    (counts,) = client.list_pool_node_counts(filter=f"poolId eq '{pool_id}'")
    assert (counts.dedicated.idle, counts.dedicated.total, counts.low_priority.total) == (2, 2, 0)


def test_core_quota_is_a_resize_error(refuses):
    with (
        LocalBatch(pace="instant", core_quota=3) as batch,
        BatchClient(batch.endpoint, AzureNamedKeyCredential(batch.account, batch.key)) as client,
    ):
        pool = models.BatchPoolCreateOptions(
            **MACHINE | {"vm_size": "standard_d2_v3"}, id="p", target_dedicated_nodes=2
        )
        client.create_pool(pool)
        wait_until(lambda: client.get_pool("p").allocation_state == "steady")
        seen = client.get_pool("p")
        assert [(error.code, error.message) for error in seen.resize_errors] == [
            ("AccountCoreQuotaReached", "The specified account has reached core quota")
        ]
        assert (seen.current_dedicated_nodes, seen.target_dedicated_nodes) == (1, 2)


def test_mounts_are_echoed_without_keys(client, pool_factory):
    blobs = models.AzureBlobFileSystemConfiguration(
        account_name="a", container_name="c", relative_mount_path="foo", account_key="secret"
    )
    share = models.AzureFileShareConfiguration(
        account_name="a", account_key="secret", azure_file_url="https://a", relative_mount_path="bar"
    )
    mounts = [
        models.MountConfiguration(azure_blob_file_system_configuration=blobs),
        models.MountConfiguration(azure_file_share_configuration=share),
    ]
    pool = client.get_pool(pool_factory(0, mount_configuration=mounts)).as_dict()
    assert pool["mountConfiguration"] == [
        {
            "azureBlobFileSystemConfiguration": {
                "accountName": "a",
                "containerName": "c",
                "relativeMountPath": "foo",
            }
        },
        {
            "azureFileShareConfiguration": {
                "accountName": "a",
                "azureFileUrl": "https://a",
                "relativeMountPath": "bar",
            }
        },
    ]


def test_failed_evaluation_has_the_recorded_form(ask, pool_factory):
    """As recorded in sdk/batch/batch-rest of azure-sdk-for-js, "should fail to evaluate invalid autoscale formula"."""
    pool_id = pool_factory(2, enable_auto_scale=True, auto_scale_formula=FORMULA)
    target = f"/pools/{pool_id}/evaluateautoscale"
    body = b'{"autoScaleFormula": "$something_useless"}'
    status, run, headers = ask("POST", f"{target}?api-version=2025-06-01", body)
    assert (status, headers["DataServiceId"].endswith(target), headers["ETag"]) == (200, True, None)
    assert run["results"] == "$TargetDedicatedNodes=2;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue"
    assert run["error"] == {
        "code": "AutoScalingFormulaEvaluationError",
        "message": "The specified auto-scaling formula has evaluation error",
        "values": [{"name": "Message", "value": "Line 1, Col 1: Undefined symbol: $something_useless"}],
    }
