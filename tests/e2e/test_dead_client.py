"""The Batch service ends the job and the nodes of a killed run without any client."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tests_support import wait_until

from localbatch import LocalAzure


@pytest.fixture
def local_azure(tmp_path):
    """A separate local Azure, whose clock the test advances."""
    with LocalAzure(state_dir=tmp_path / "azure", pace="instant") as azure:
        yield azure


def test_killed_run_frees_nodes_after_deadline(flow_runs, azure_settings, azure_faults):
    """Field reports 1, 2 and 27: after SIGKILL no hook runs, but the job's wall clock and the pool's formula do."""
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set
    from tasks.steps.sweep import sweep  # noqa: PLC0415

    batch, blobs = batch_account(), blob_account()
    Path("endless.txt").write_text("one two")
    azure_faults.add("endless_task", task="*")
    flow_run_id = flow_runs.create(inputs=["endless.txt"], timeout_minutes=60)
    prefix = f"topn-{flow_run_id.hex}-"
    process = flow_runs.start(flow_run_id)
    wait_until(lambda: list(batch.list_jobs(prefix)), "the job", while_running=process)
    [job] = batch.list_jobs(prefix)
    name = job.job_id
    wait_until(lambda: batch.get_task_counts(name).running == 1, "the Batch task to run", while_running=process)
    process.kill()
    process.communicate(timeout=60)
    assert [node.state for node in batch.list_nodes(name)] == ["running"]

    def last_evaluation():
        return batch._client.get_pool(name).auto_scale_run.timestamp

    before = last_evaluation()
    azure_settings.batch.advance(timedelta(minutes=59))
    # The service handles everything that is due in another thread, and then also evaluates the pool's formula.
    wait_until(lambda: last_evaluation() >= before + timedelta(minutes=50), "the service to reach the new time")
    assert batch.get_job(name).state == "active"
    azure_settings.batch.advance(timedelta(minutes=7))

    wait_until(lambda: batch.get_job(name).state == "completed", "the job to end")
    wait_until(lambda: batch.list_nodes(name) == [], "the nodes to leave")
    assert batch.get_job(name).terminate_reason == "MaxWallClockTimeExpiry"
    # Only the clock of the Batch service was advanced: sweep as if it were two hours later.
    swept = sweep(batch, blobs, older_than=-timedelta(hours=2))
    assert set(swept.found) == {
        f"job {name}",
        f"pool {name}",
        *(f"container {name}-{kind}" for kind in ("app", "in", "out")),
    }
    assert swept.remaining == {}
    assert blobs.list_containers(name) == {}
