"""Checks of the pool options before anything is created, and the choice of the image."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tasks.azure.batch import _task
from tasks.azure.settings import AzureSettings
from tasks.azure.values import BatchTaskSpec, Image
from tasks.errors import ConfigurationError
from tasks.model.pool import PoolOptions, PoolSetup, read_pool_setup
from tasks.steps.pool_selection import check_pool_options, check_slots, newest_image, support_warning
from tasks.workload.base import Workload

GROUP = "/subscriptions/s/resourceGroups/g/providers"
SUBNET = f"{GROUP}/Microsoft.Network/virtualNetworks/v/subnets/nodes"
MANAGED_IMAGE = f"{GROUP}/Microsoft.Compute/images/ours"
IMAGE = f"{GROUP}/Microsoft.Compute/galleries/g/images/ours/versions/1.2.3"


IDENTITY, KEY = AzureSettings(batch_key=None), AzureSettings(batch_key="a2V5")


@pytest.mark.parametrize(
    ("setup", "option"),
    [
        ({"subnet_id": SUBNET}, "subnet_id"),
        ({"image_id": IMAGE, "node_agent_sku": "batch.node.el 9"}, "image_id"),
        ({"extra": {"networkConfiguration": {"subnetId": SUBNET}}}, "extra: subnetId"),
    ],
)
def test_account_key_excludes_subnet_and_own_image(setup, option):
    options = PoolOptions(setup=PoolSetup(**setup))
    check_pool_options(options, IDENTITY)
    with pytest.raises(ConfigurationError, match=f"account key for a pool with `{option}`. Unset TOPN_BATCH_KEY"):
        check_pool_options(options, KEY)


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


def test_node_needs_slots_of_batch_task():
    workload = Workload(name="large", command="true", outputs=("o",), required_slots=2)
    check_slots(workload, 2)
    with pytest.raises(ConfigurationError, match="workload large needs 2 slots, and a node has 1"):
        check_slots(workload, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("subnet_id: nodes", ["subnet_id", "not a resource id"]),
        (f"subnet_id: {IMAGE}", ["subnet_id", "not a resource id"]),
        ("subnet: x", ["subnet", "not permitted"]),
        (f"image_id: {IMAGE}", ["`image_id` and `node_agent_sku` must be set together"]),
        (f"{{image_id: {MANAGED_IMAGE}, node_agent_sku: x}}", ["image_id", "not a resource id"]),
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
        check_pool_options(PoolOptions(setup=read_pool_setup("pool.yaml")), IDENTITY)
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
        check_pool_options(PoolOptions(pool_id="mine", setup=PoolSetup(subnet_id=SUBNET)), IDENTITY)
    # Prefect's form passes every field, including unset ones.
    every_field = PoolSetup(node_identity="reader").model_dump()
    check_pool_options(PoolOptions(pool_id="mine", setup=PoolSetup.model_validate(every_field)), IDENTITY)


NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def make_image(release, sku="", ends_at=None, **options):
    values = {"version": "latest", "is_verified": True, "is_linux": True} | options
    return Image(
        publisher="p",
        offer=release.split("-")[0],
        sku=sku or release,
        node_agent_sku=f"batch.node.{release}",
        end_of_life_at=ends_at,
        **values,
    )


def of_family(family, **setup):
    return PoolOptions(setup=PoolSetup(image_family=f"batch.node.{family}", **setup))


MARK = "generation2vmimage"
GENERATION_2 = frozenset({MARK})

# Images of two releases as Azure lists them.
AZURE_IMAGES = [
    make_image("ubuntu 22.04", "22_04-lts"),
    make_image("ubuntu 22.04", "22_04-lts-gen2", capabilities=GENERATION_2),
    make_image("ubuntu 24.04", "server", capabilities=GENERATION_2),
    make_image("ubuntu 24.04", "server-gen1"),
    make_image("ubuntu 24.04-arm64", "server-arm64", capabilities=GENERATION_2),
    make_image("debian 12", "12-gen2", is_verified=False, capabilities=GENERATION_2),
    make_image("ubuntu 24.04", "hpc", capabilities=frozenset({MARK, "nvidiatesladriverinstalled"})),
]


@pytest.mark.parametrize(
    ("size", "family", "sku"),
    [
        ("standard_d2as_v5", "ubuntu", "server"),
        ("Standard_D2s_v6", "ubuntu", "server"),
        ("standard_d2_v3", "ubuntu", "server-gen1"),
        ("Standard_D1_v2", "ubuntu 22.04", "22_04-lts"),
        ("standard_d2s_v3", "ubuntu 22.04", "22_04-lts-gen2"),
        ("Standard_DS3_v2", "ubuntu 22.04", "22_04-lts-gen2"),
        ("standard_e4ds_v6", "ubuntu 22.04", "22_04-lts-gen2"),
        ("standard_d2ps_v5", "ubuntu", "server-arm64"),
        # Before the number, a "p" belongs to the series.
        ("standard_np10s", "ubuntu", "server"),
        ("a size of tomorrow", "ubuntu", "server"),
    ],
)
@pytest.mark.parametrize("order", [list, reversed])
def test_image_fits_vm_size(size, family, sku, order):
    options = of_family(family).model_copy(update={"vm_size": size})
    assert newest_image(list(order(AZURE_IMAGES)), NOW, options).sku == sku


@pytest.mark.parametrize(
    ("size", "sku", "needs"),
    [
        ("standard_d2ps_v5", "server", "ARM64, generation 2"),
        ("standard_d2s_v6", "server-gen1", "x64, generation 2"),
        ("standard_d2_v3", "server", "x64, generation 1"),
        ("standard_d2as_v5", "server-arm64", "x64, generation 1 or 2"),
    ],
)
def test_vm_size_without_fitting_image_is_refused(size, sku, needs):
    with pytest.raises(ConfigurationError) as refusal:
        newest_image(
            [image for image in AZURE_IMAGES if image.sku == sku or not image.is_verified],
            NOW,
            PoolOptions(vm_size=size),
        )
    assert f"`{size}` ({needs})" in str(refusal.value)
    assert "Set `vm_size` or `image_family`" in str(refusal.value)


def test_newest_release_is_found_by_number():
    images = [make_image("el 9"), make_image("el 10"), make_image("el 8")]
    assert newest_image(images, NOW, of_family("el")).sku == "el 10"


def test_image_belongs_to_chosen_family():
    images = [make_image("ubuntu 24.04"), make_image("debian 12"), make_image("debian 11", ends_at=NOW)]
    assert newest_image(images, NOW, of_family("debian")).sku == "debian 12"
    with pytest.raises(ConfigurationError, match=r"family `batch.node.debian 11` ends before the run does"):
        newest_image(images, NOW, of_family("debian 11"))
    with pytest.raises(ConfigurationError, match=r"no verified image of the family `batch.node.el"):
        newest_image(images, NOW, of_family("el"))
    with pytest.raises(ConfigurationError, match="that runs containers"):
        newest_image(images, NOW, of_family("debian", container_image="python:3.12"))


def test_image_support_ending_soon_is_warned_of():
    now = datetime.now(timezone.utc)
    assert support_warning(make_image("x"), now) is None
    assert support_warning(make_image("x", ends_at=now + timedelta(days=91)), now) is None
    ends_at = now + timedelta(days=89)
    assert (
        support_warning(make_image("x", ends_at=ends_at), now)
        == f"Support for the image x x ends on {ends_at:%Y-%m-%d}."
    )


def test_newest_verified_image_outliving_run_is_chosen():
    """Field report 32: retired images are not chosen."""
    until = datetime(2026, 11, 22, tzinfo=timezone.utc)
    images = [
        make_image("ubuntu 20.04", ends_at=until - timedelta(days=1)),
        make_image("ubuntu 22.04", ends_at=until + timedelta(days=1)),
        make_image("ubuntu 24.04", is_verified=False),
        make_image("ubuntu 26.04", is_linux=False),
    ]
    assert newest_image(images, until).sku == "ubuntu 22.04"


def test_missing_usable_image_is_reported():
    with pytest.raises(ConfigurationError, match="no verified image"):
        newest_image([], datetime(2026, 11, 22, tzinfo=timezone.utc))
