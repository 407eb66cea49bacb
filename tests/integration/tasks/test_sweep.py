"""The sweep deletes the resources of dead runs and touches nothing else."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from tests_support import leftovers_of, wait_until

from localbatch import LocalBatch
from tasks.azure.batch import BatchAccount
from tasks.azure.settings import AzureSettings
from tasks.azure.values import JobSpec
from tasks.clock import service_time
from tasks.model.run import Keep
from tasks.steps.cleanup import delete
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool
from tasks.steps.start import adopt_or_skip
from tasks.steps.sweep import sweep

NOW = datetime.now(timezone.utc)


@pytest.fixture
def batch(batch_without_nodes):
    return batch_without_nodes


@pytest.fixture
def create_resources(batch, blobs, workload, pool_options):
    """Return a function that creates all resources of a run, which are deleted afterwards."""
    created = []

    def create(run):
        created.append(run)
        containers = ensure_containers(blobs, run, workload)
        ensure_pool(batch, blobs, run, workload, containers, pool_options, 1)
        ensure_job(batch, blobs, run, workload, containers, run.name)
        return {f"job {run.name}", f"pool {run.name}", *(f"container {run.name}-{c}" for c in ("app", "in", "out"))}

    yield create
    for run in created:
        delete(batch, blobs, leftovers_of(batch, blobs, run.flow_run_id))


@pytest.fixture
def dead(monkeypatch, tmp_path):
    """Return a function that leaves the file of a dead run in the state folder."""
    monkeypatch.setenv("TOPN_STATE", str(tmp_path / "state"))

    def create(run):
        file = tmp_path / "state" / "runs" / run.flow_run_id
        file.parent.mkdir(parents=True)
        file.touch()

    return create


def remaining(batch, blobs, run):
    return set(leftovers_of(batch, blobs, run.flow_run_id).names)


def test_sweep_deletes_resources_after_deadline(batch, blobs, run, create_resources):
    names = create_resources(run)
    swept = sweep(batch, blobs, service_time() - (run.deadline_at + timedelta(minutes=1)))
    assert names <= set(swept.found)
    assert swept.remaining == {}
    assert remaining(batch, blobs, run) == set()


def test_sweep_keeps_resources_of_living_runs(batch, blobs, run, create_resources):
    names = create_resources(run)
    assert names.isdisjoint(sweep(batch, blobs).found)
    assert remaining(batch, blobs, run) == names


def test_only_pool_of_dead_run_goes_before_deadline(batch, blobs, run, create_resources, dead):
    names = create_resources(run)
    dead(run)
    swept = sweep(batch, blobs)
    assert f"pool {run.name}" in swept.found
    assert set(swept.waiting) >= names - {f"pool {run.name}"}
    assert remaining(batch, blobs, run) == names - {f"pool {run.name}"}


def test_collected_dead_run_goes_as_a_whole(batch, blobs, run, create_resources, dead):
    names = create_resources(run)
    dead(run)
    assert names <= set(sweep(batch, blobs, collect=lambda dead: dead.name == run.name).found)
    assert remaining(batch, blobs, run) == set()


def test_dead_run_without_job_goes_as_a_whole(batch, blobs, run, create_resources, dead):
    create_resources(run)
    dead(run)
    batch.delete_jobs_and_pools([run.name], [], 10)
    sweep(batch, blobs)
    assert remaining(batch, blobs, run) == set()


def test_dry_run_lists_leftovers_and_deletes_nothing(batch, blobs, run, create_resources):
    names = create_resources(run)
    swept = sweep(batch, blobs, service_time() - (run.deadline_at), dry_run=True)
    assert names <= set(swept.found)
    assert remaining(batch, blobs, run) == names


def test_sweep_ignores_kept_resources(batch, blobs, run, create_resources):
    kept = replace(run, keep=Keep(containers=True, job=True, pool=True))
    names = create_resources(kept)
    assert names.isdisjoint(sweep(batch, blobs, service_time() - (run.deadline_at)).found)


def test_heartbeat_resets_age_of_container(blobs, run):
    name = run.containers.outputs
    blobs.create_container(name, run.metadata(kept=False))

    def written_at():
        return blobs._service.get_container_client(name).get_container_properties().last_modified

    created_at = written_at()

    def is_renewed():
        blobs.write_container_metadata(name, run.metadata(kept=False))
        return written_at() > created_at

    wait_until(is_renewed, "the metadata are newer")
    found = blobs.list_containers(name)[name]
    assert found.metadata == run.metadata(kept=False)
    assert found.age < timedelta(minutes=5)
    blobs.delete_container(name)


FOREIGN = [
    ("topn-mine", {"owner": "topn"}),
    ("topn-{hex}-0", {}),
    ("topn-{hex}-0", {"owner": "somebody"}),
    ("topn-{hex}-0", {"owner": "topn", "flow_run_id": str(uuid.uuid4())}),
    ("topn-{hex}-0-extra", {"owner": "topn", "flow_run_id": "{id}"}),
    ("topn-{hex}-x", {"owner": "topn", "flow_run_id": "{id}"}),
    ("topn-{hex}-0", {"owner": "topn", "flow_run_id": "{id}", "expires_at": "soon"}),
    ("my-topn-{hex}-0", {"owner": "topn", "flow_run_id": "{id}"}),
]


@pytest.mark.parametrize(("name", "metadata"), FOREIGN)
def test_sweep_ignores_similar_foreign_resources(batch, blobs, name, metadata):
    flow_run_id = uuid.uuid4()
    name = name.format(hex=flow_run_id.hex)
    metadata = {"expires_at": "2020-01-01T00:00:00+00:00"} | {
        key: value.format(id=flow_run_id) for key, value in metadata.items()
    }
    batch.create_job(JobSpec(job_id=name, pool_id="nowhere", wall_clock_seconds=600, metadata=metadata))
    blobs.create_container(name, metadata)

    swept = sweep(batch, blobs, service_time() - (NOW + timedelta(days=1)), dry_run=True)
    cleanup = leftovers_of(batch, blobs, flow_run_id)

    assert not [found for found in (*swept.found, *swept.waiting) if name in found]
    if metadata.get("flow_run_id") != str(flow_run_id):
        assert cleanup.names == ()
    batch.delete_jobs_and_pools([name], [], 10)
    blobs.delete_container(name)


def test_retry_adopts_resources_and_deadline(batch, blobs, run, create_resources):
    create_resources(run)
    later = replace(run, deadline_at=run.deadline_at + timedelta(hours=5))
    assert adopt_or_skip(batch, blobs, later) == replace(run, deadline_at=run.deadline_at.replace(microsecond=0))


def test_retry_after_deadline_uses_new_name(batch, blobs, run, create_resources):
    create_resources(replace(run, deadline_at=NOW))
    assert adopt_or_skip(batch, blobs, run) == replace(run, generation=1)


def test_retry_after_job_end_uses_new_name(batch, blobs, run, create_resources):
    create_resources(run)
    batch.end_job(run.name, "test")
    assert adopt_or_skip(batch, blobs, run).generation == 1


def test_retry_never_adopts_what_is_being_deleted(batch, blobs, run, create_resources):
    """The mark counts, even if nothing was deleted yet."""
    create_resources(run)
    batch.mark_job(batch.get_job(run.name))
    assert adopt_or_skip(batch, blobs, run).generation == 1
    assert batch.get_job(run.name).metadata == {**run.metadata(kept=False), "cleanup": "started"}


@pytest.mark.parametrize("missing", ["application", "inputs", "outputs"])
def test_retry_never_adopts_incomplete_resources(batch, blobs, run, create_resources, missing):
    create_resources(run)
    blobs.delete_container(getattr(run.containers, missing))
    assert adopt_or_skip(batch, blobs, run).generation == 1


def test_retry_never_adopts_foreign_container(batch, blobs, run, create_resources):
    create_resources(run)
    blobs.write_container_metadata(run.containers.inputs, {"owner": "somebody"})
    assert adopt_or_skip(batch, blobs, run).generation == 1
    blobs.write_container_metadata(run.containers.inputs, run.metadata(kept=False))


def test_run_without_resources_starts_unchanged(batch, blobs, run):
    assert adopt_or_skip(batch, blobs, run) == run


def test_next_generation_gets_own_pool_during_deletion(tmp_path, blobs, run, workload, pool_options):
    """Field report 4: the next attempt does not wait minutes for the deletion."""
    containers = ensure_containers(blobs, run, workload)
    with LocalBatch(state_dir=tmp_path / "batch", pace="real") as server:
        account = BatchAccount(
            AzureSettings(batch_endpoint=server.endpoint, batch_account=server.account, batch_key=server.key)
        )
        ensure_pool(account, blobs, run, workload, containers, pool_options, 1)
        account.delete_jobs_and_pools([], [run.name], 0)
        assert account.get_pool(run.name).state == "deleting"
        later = replace(run, generation=1)
        assert ensure_pool(account, blobs, later, workload, containers, pool_options, 1) == later.name
        assert account.get_pool(later.name).state == "active"
    for name in blobs.list_containers(run.name):
        blobs.delete_container(name)
