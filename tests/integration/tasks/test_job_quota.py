"""A run waits a limited time for the quota of active jobs, and prints a message."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from tests_support import MovableClock

from localbatch import LocalBatch
from tasks.azure.batch import BatchAccount
from tasks.azure.settings import AzureSettings
from tasks.azure.values import JobSpec
from tasks.errors import ServiceError
from tasks.progress import listen
from tasks.steps.provision import ensure_containers, ensure_job


@pytest.fixture
def full_account(tmp_path):
    """An account with a quota of one job, which another user's job occupies."""
    with LocalBatch(state_dir=tmp_path / "batch", pace="instant", job_quota=1) as server:
        settings = AzureSettings(batch_endpoint=server.endpoint, batch_account=server.account, batch_key=server.key)
        account = BatchAccount(settings)
        account.create_job(JobSpec(job_id="other", pool_id="other", wall_clock_seconds=600, metadata={}))
        yield account


@pytest.fixture
def containers(blobs, run, workload):
    made = ensure_containers(blobs, run, workload)
    yield made
    for name in (made.application, made.inputs, made.outputs):
        blobs.delete_container(name)


def test_job_is_created_after_another_ends(full_account, blobs, run, workload, containers):
    notes = []
    clock = MovableClock(on_sleep=lambda: full_account.end_job("other", "test"))
    with listen(lambda progress: notes.append(progress.note)):
        job = ensure_job(full_account, blobs, run, workload, containers, run.name, clock)
    assert full_account.get_job(job.job_id).state == "active"
    assert any("quota of active jobs" in note for note in notes)


def test_quota_wait_ends_with_service_error(full_account, blobs, run, workload, containers):
    clock = MovableClock()
    with pytest.raises(ServiceError, match="ActiveJobAndScheduleQuotaReached"):
        ensure_job(
            full_account, blobs, replace(run, flow_run_id=str(uuid.uuid4())), workload, containers, run.name, clock
        )
    assert 500 < clock.slept_seconds <= 700
