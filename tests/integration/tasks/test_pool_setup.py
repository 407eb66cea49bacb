"""The pool that the Batch account receives for each pool option."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from tests_support import leftovers_of

from localbatch.account.images import IMAGES
from tasks.azure.accounts import batch_account
from tasks.azure.settings import AzureSettings
from tasks.model.pool import PoolSetup
from tasks.progress import listen
from tasks.steps.cleanup import delete
from tasks.steps.pool_selection import check_pool_options
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool
from tasks.steps.stage import stage_chunk
from tasks.steps.submit import Renewal, submit_chunk


@pytest.fixture
def batch(batch_without_nodes):
    return batch_without_nodes


@pytest.fixture
def received(batch, blobs, run, workload, pool_options):
    """Return a function that creates a pool with options and returns the pool that Batch has."""

    def create(*, vm_size=pool_options.vm_size, **setup):
        options = pool_options.model_copy(update={"vm_size": vm_size, "setup": PoolSetup(**setup)})
        check_pool_options(options, AzureSettings(batch_key=None))
        containers = ensure_containers(blobs, run, workload)
        ensure_pool(batch, blobs, run, workload, containers, options, 1)
        return batch._client.get_pool(run.name).as_dict()

    yield create
    delete(batch, blobs, leftovers_of(batch, blobs, run.flow_run_id))


def test_plain_pool_has_no_optional_properties(received):
    pool = received()
    assert "networkConfiguration" not in pool
    assert set(pool["virtualMachineConfiguration"]) == {"imageReference", "nodeAgentSKUId"}
    assert set(pool["startTask"]) == {
        "commandLine", "resourceFiles", "maxTaskRetryCount", "waitForSuccess", "userIdentity"
    }  # fmt: skip
    assert pool["startTask"]["userIdentity"]["autoUser"]["elevationLevel"] == "nonadmin"


def test_container_pool_uses_container_capable_image(received):
    image = "mine.azurecr.io/python:3.12"
    pool = received(container_image=image)
    machine = pool["virtualMachineConfiguration"]
    assert machine["imageReference"]["offer"] == "ubuntu-hpc"
    assert machine["containerConfiguration"] == {"type": "dockerCompatible", "containerImageNames": [image]}
    # The container needs Python, not the node, so the start task does not check for it.
    assert "python3" not in pool["startTask"]["commandLine"]


def test_own_start_commands_run_last_and_survive_renewal(received, batch, blobs, run, workload):
    pool = received(start_commands=["true || exit 7", "echo hello # there"], start_as_admin=True)
    command = pool["startTask"]["commandLine"]
    assert command.index("python3") < command.index("mv -f") < command.index("exit 7") < command.index("hello")
    assert pool["startTask"]["userIdentity"]["autoUser"]["elevationLevel"] == "admin"

    setup = PoolSetup(start_commands=["true || exit 7", "echo hello # there"], start_as_admin=True)
    containers = ensure_containers(blobs, run, workload)
    job = ensure_job(batch, blobs, run, workload, containers, run.name, setup=setup)
    renewal = Renewal(account=batch, blobs=blobs, run=run, job=job, workload=workload, containers=containers)
    renewal._start_task_signed_until_at = datetime.now(timezone.utc)
    renewal.renew([])
    renewed = batch._client.get_pool(run.name).as_dict()["startTask"]
    assert renewed["commandLine"] == command
    assert renewed["userIdentity"] == pool["startTask"]["userIdentity"]


def test_own_metadata_is_added_to_ours(received, run):
    found = {item["name"]: item["value"] for item in received(metadata={"costCenter": "42"})["metadata"]}
    assert found == {"costCenter": "42", **run.metadata(kept=False)}


def test_extra_properties_are_passed_through(received):
    extra = {
        "taskSchedulingPolicy": {"nodeFillType": "pack"},
        "resizeTimeout": "PT20M",
        "networkConfiguration": {"enableAcceleratedNetworking": True},
        "virtualMachineConfiguration": {
            "dataDisks": [{"lun": 0, "diskSizeGB": 64, "managedDisk": {"storageAccountType": "premium_lrs"}}],
            "nodePlacementConfiguration": {"policy": "zonal"},
        },
    }
    pool = received(public_addresses=False, extra=extra)
    assert pool["taskSchedulingPolicy"]["nodeFillType"] == "Pack"
    assert pool["resizeTimeout"] == "PT20M"
    assert pool["networkConfiguration"] == {
        "publicIPAddressConfiguration": {"provision": "nopublicipaddresses"},
        "enableAcceleratedNetworking": True,
        "dynamicVNetAssignmentScope": "none",
    }
    machine, sent = pool["virtualMachineConfiguration"], extra["virtualMachineConfiguration"]
    assert machine["nodePlacementConfiguration"] == sent["nodePlacementConfiguration"]
    assert machine["dataDisks"] == [sent["dataDisks"][0] | {"caching": "none"}]
    assert pool["virtualMachineConfiguration"]["imageReference"]["publisher"] == "canonical"


def test_run_warns_of_image_support_ending_soon(received, monkeypatch):
    ends_at = datetime.now(timezone.utc) + timedelta(days=30)
    image = next(each for each in IMAGES.values() if each["nodeAgentSKUId"] == "batch.node.ubuntu 24.04")
    monkeypatch.setitem(image, "batchSupportEndOfLife", ends_at.isoformat())
    notes = []
    with listen(lambda progress: notes.append(progress.note)):
        received()
    assert notes == [f"Support for the image ubuntu-24_04-lts server ends on {ends_at:%Y-%m-%d}."]


class TestOnNodes:
    """Behaviour that needs nodes."""

    @pytest.fixture
    def batch(self, azure_settings):
        return batch_account()

    def test_node_runs_start_commands(self, batch, received, run):
        from tests_support import pool_has, wait_until  # noqa: PLC0415

        received(start_commands=["false || true", "exit 3"])
        wait_until(pool_has(batch, run, "starttaskfailed"), "the start task failed")
        assert [node.start_task_exit_code for node in batch.list_nodes(run.name)] == [3]

    @pytest.mark.parametrize("size", ["standard_d2ps_v5", "standard_d2s_v6", "standard_d2_v3"])
    def test_each_kind_of_vm_size_has_nodes(self, batch, received, run, size):
        from tests_support import pool_has, wait_until  # noqa: PLC0415

        received(vm_size=size)
        wait_until(pool_has(batch, run, "idle"), "the node is ready")

    def test_local_azure_accepts_containers(self, received, batch, blobs, run, workload, chunk_factory):
        """The local Batch service runs the command on the node, where the script also runs."""
        from tests_support import wait_until  # noqa: PLC0415

        received(container_image="python:3.12")
        containers = ensure_containers(blobs, run, workload)
        job = ensure_job(
            batch, blobs, run, workload, containers, run.name, setup=PoolSetup(container_image="python:3.12")
        )
        staged = stage_chunk(blobs, chunk_factory(b"one"), workload, containers)
        assert not submit_chunk(batch, blobs, run, staged, job, workload, containers).failures
        wait_until(lambda: batch.get_task_counts(job.job_id).completed == 1, "the Batch task completed")
        [task] = batch._client.list_tasks(job.job_id)
        assert (task.container_settings.image_name, task.execution_info.exit_code) == ("python:3.12", 0)
