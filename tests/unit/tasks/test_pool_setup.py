"""How a pool is set up: what is checked before anything is created."""

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


def test_batch_tasks_run_in_the_container():
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
        ("subnet_id: nodes", ["subnet_id", "not the resource id"]),
        (f"subnet_id: {IMAGE}", ["subnet_id", "not the resource id"]),
        ("subnet: x", ["subnet", "not permitted"]),
        (f"image_id: {IMAGE}", ["image_id and node_agent_sku belong together"]),
        ("registry_server: mine.azurecr.io", ["no use without container_image"]),
        ("metadata: {owner: me}", ["owner", "topn's own"]),
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
def test_what_cannot_be_is_one_sentence_before_anything_is_created(content, words):
    Path("pool.yaml").write_text(content)
    with pytest.raises(ConfigurationError) as refusal:
        check_pool_options(PoolOptions(setup=read_pool_setup("pool.yaml")))
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "SECRET" not in str(refusal.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match=r"The pool file nothing\.yaml cannot be used: No such file"):
        read_pool_setup("nothing.yaml")


def test_an_existing_pool_is_used_as_it_is():
    with pytest.raises(
        ConfigurationError, match=r"Pool `mine` exists and is used unchanged. Leave out subnet_id, or `pool_id`"
    ):
        check_pool_options(PoolOptions(pool_id="mine", setup=PoolSetup(subnet_id=SUBNET)))
    # As Prefect's form gives it: every field, also those that nobody has set.
    every_field = PoolSetup(node_identity="reader").model_dump()
    check_pool_options(PoolOptions(pool_id="mine", setup=PoolSetup.model_validate(every_field)))


def an_image(sku, ends_at=None, **options):
    values = {"version": "latest", "is_verified": True, "is_linux": True} | options
    return Image(
        publisher="p", offer="o", sku=sku, node_agent_sku=f"batch.node.{sku}", end_of_life_at=ends_at, **values
    )


def test_the_image_is_of_the_chosen_family():
    now = datetime.now(timezone.utc)
    images = [an_image("ubuntu 24.04"), an_image("debian 12"), an_image("debian 11", now - timedelta(days=1))]
    assert newest_image(images, now, "batch.node.debian").sku == "debian 12"
    with pytest.raises(ConfigurationError, match=r"family `batch.node.debian 11` ends before the run does"):
        newest_image(images, now, "batch.node.debian 11")
    with pytest.raises(ConfigurationError, match=r"no verified image of the family `batch.node.el"):
        newest_image(images, now, "batch.node.el")
    with pytest.raises(ConfigurationError, match="that runs containers"):
        newest_image(images, now, "batch.node.debian", needs_containers=True)


def test_an_image_whose_support_ends_within_90_days_is_told_of():
    now = datetime.now(timezone.utc)
    assert support_warning(an_image("x"), now) is None
    assert support_warning(an_image("x", now + timedelta(days=91)), now) is None
    ends_at = now + timedelta(days=89)
    assert support_warning(an_image("x", ends_at), now) == f"Support for the image o x ends on {ends_at:%Y-%m-%d}."


def test_the_newest_verified_image_that_outlives_the_run_is_chosen():
    """Field report 32: images retire."""
    until = datetime(2026, 11, 22, tzinfo=timezone.utc)
    images = [
        an_image("ubuntu 20.04", until - timedelta(days=1)),
        an_image("ubuntu 22.04", until + timedelta(days=1)),
        an_image("ubuntu 24.04", is_verified=False),
        an_image("ubuntu 26.04", is_linux=False),
    ]
    assert newest_image(images, until).sku == "ubuntu 22.04"


def test_no_usable_image_is_a_sentence():
    with pytest.raises(ConfigurationError, match="no verified image"):
        newest_image([], datetime(2026, 11, 22, tzinfo=timezone.utc))
