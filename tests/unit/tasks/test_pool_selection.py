"""Checks of the pool options before anything is created, and the choice of the image."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tasks.azure.batch import _task
from tasks.azure.values import BatchTaskSpec, Image
from tasks.errors import ConfigurationError
from tasks.model.pool import PoolOptions, PoolSetup, read_pool_setup
from tasks.steps.pool_selection import check_pool_options, newest_image, support_warning

GROUP = "/subscriptions/s/resourceGroups/g/providers"
SUBNET = f"{GROUP}/Microsoft.Network/virtualNetworks/v/subnets/nodes"
IMAGE = f"{GROUP}/Microsoft.Compute/galleries/g/images/ours/versions/1.2.3"


def test_batch_tasks_run_in_container():
    spec = BatchTaskSpec(
        task_id="t", command_line="true", resource_files=(), uploads=(), retries=0, container_image="python:3.12"
    )
    assert _task(spec).as_dict()["containerSettings"] == {
        "imageName": "python:3.12",
        "workingDirectory": "taskWorkingDirectory",
    }
    assert "containerSettings" not in {
        name for name, value in _task(replace(spec, container_image=None)).as_dict().items() if value is not None
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("subnet_id: nodes", ["subnet_id", "not a resource id"]),
        (f"subnet_id: {IMAGE}", ["subnet_id", "not a resource id"]),
        ("subnet: x", ["subnet", "not permitted"]),
        (f"image_id: {IMAGE}", ["`image_id` and `node_agent_sku` must be set together"]),
        ("registry_server: mine.azurecr.io", ["`registry_server` requires `container_image`"]),
        ("metadata: {owner: me}", ["`metadata` contains owner, which topn sets"]),
        ("metadata: {a: 1}", ["metadata.a", "valid string"]),
        ("start_commands: true", ["start_commands"]),
        ("[1]", ["dictionary"]),
        ("{", ["expected"]),
        ("extra: {vmSize: x}", ["`extra` of the pool contains `vmSize`, which topn sets"]),
        ("extra: {startTask: {}}", ["Use `start_commands`"]),
        ("extra: {targetDedicatedNodes: 4}", ["Use `nodes`"]),
        ("extra: {virtualMachineConfiguration: {nodeAgentSKUId: x}}", ["virtualMachineConfiguration.nodeAgentSKUId"]),
        ("extra: {vmsize: x}", ["properties that the Batch REST API does not have: vmsize"]),
        ("extra: {userAccounts: [{user: x}]}", ["does not have: userAccounts.user"]),
        ("extra: {mountConfiguration: [{nfsMountConfiguration: {sauce: x}}]}", ["nfsMountConfiguration.sauce"]),
        ("extra: {userAccounts: [{name: x, password: SECRET}]}", ["`password`", "must not contain secrets"]),
        ("node_identity: x", ["pool_id"]),
    ],
)
def test_invalid_pool_file_is_rejected_in_one_sentence(content, words):
    Path("pool.yaml").write_text(content)
    with pytest.raises(ConfigurationError) as refusal:
        check_pool_options(PoolOptions(setup=read_pool_setup("pool.yaml")))
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "SECRET" not in str(refusal.value)


def test_missing_pool_file_is_named():
    with pytest.raises(ConfigurationError, match=r"The pool file nothing\.yaml cannot be used: No such file"):
        read_pool_setup("nothing.yaml")


def test_existing_pool_rejects_pool_settings():
    with pytest.raises(
        ConfigurationError, match=r"Pool `mine` exists and is used unchanged. Leave out subnet_id, or `pool_id`"
    ):
        check_pool_options(PoolOptions(pool_id="mine", setup=PoolSetup(subnet_id=SUBNET)))
    # Prefect's form passes every field, including unset ones.
    every_field = PoolSetup(node_identity="reader").model_dump()
    check_pool_options(PoolOptions(pool_id="mine", setup=PoolSetup.model_validate(every_field)))


def make_image(sku, ends_at=None, **options):
    values = {"version": "latest", "is_verified": True, "is_linux": True} | options
    return Image(
        publisher="p", offer="o", sku=sku, node_agent_sku=f"batch.node.{sku}", end_of_life_at=ends_at, **values
    )


def test_image_belongs_to_chosen_family():
    now = datetime.now(timezone.utc)
    images = [make_image("ubuntu 24.04"), make_image("debian 12"), make_image("debian 11", now - timedelta(days=1))]
    assert newest_image(images, now, "batch.node.debian").sku == "debian 12"
    with pytest.raises(ConfigurationError, match=r"family `batch.node.debian 11` ends before the run does"):
        newest_image(images, now, "batch.node.debian 11")
    with pytest.raises(ConfigurationError, match=r"no verified image of the family `batch.node.el"):
        newest_image(images, now, "batch.node.el")
    with pytest.raises(ConfigurationError, match="that runs containers"):
        newest_image(images, now, "batch.node.debian", needs_containers=True)


def test_image_support_ending_soon_is_warned_of():
    now = datetime.now(timezone.utc)
    assert support_warning(make_image("x"), now) is None
    assert support_warning(make_image("x", now + timedelta(days=91)), now) is None
    ends_at = now + timedelta(days=89)
    assert support_warning(make_image("x", ends_at), now) == f"Support for the image o x ends on {ends_at:%Y-%m-%d}."


def test_newest_verified_image_outliving_run_is_chosen():
    """Field report 32: retired images are not chosen."""
    until = datetime(2026, 11, 22, tzinfo=timezone.utc)
    images = [
        make_image("ubuntu 20.04", until - timedelta(days=1)),
        make_image("ubuntu 22.04", until + timedelta(days=1)),
        make_image("ubuntu 24.04", is_verified=False),
        make_image("ubuntu 26.04", is_linux=False),
    ]
    assert newest_image(images, until).sku == "ubuntu 22.04"


def test_missing_usable_image_is_reported():
    with pytest.raises(ConfigurationError, match="no verified image"):
        newest_image([], datetime(2026, 11, 22, tzinfo=timezone.utc))
