"""`topn sweep` finds and deletes the leftovers of a dead run."""

from __future__ import annotations

import os
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tasks.azure.accounts import batch_account, blob_account
from tasks.model.pool import PoolOptions
from tasks.model.run import Keep, Run
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool
from tasks.workload.word_counts import word_count_workload


@pytest.fixture
def run(azure_settings):
    """A run whose deadline is in one hour."""
    now = datetime.now(timezone.utc)
    return Run(
        flow_run_id=str(uuid.uuid4()),
        generation=int(now.timestamp()),
        deadline_at=now + timedelta(hours=1),
        keep=Keep(),
    )


@pytest.fixture
def leftovers(run):
    """The resources of that run."""
    workload = word_count_workload(3, ignore_case=False)
    batch, blobs = batch_account(), blob_account()
    containers = ensure_containers(blobs, run, workload)
    options = PoolOptions(pool_id=None, vm_size="standard_d2s_v3", nodes=1, spot_nodes=0, slots_per_node=2)
    pool_id = ensure_pool(batch, blobs, run, workload, containers, options, 1)
    ensure_job(batch, blobs, run, workload, containers, pool_id)
    return [f"job {run.name}", f"pool {run.name}", *(f"container {run.name}-{name}" for name in ("app", "in", "out"))]


def test_sweep_deletes_leftovers_of_ended_run(topn, run, leftovers, assert_nothing_left):
    def at(**ago):
        moment = (datetime.now(timezone.utc) - timedelta(**ago)).timestamp()
        os.utime(file, (moment, moment))

    # Its process may be in another folder, so nothing shows that the run is dead.
    assert (topn("sweep").returncode, topn("sweep").stdout) == (0, "")

    file = Path(topn.environment["TOPN_STATE"], "runs", run.flow_run_id)
    file.parent.mkdir(parents=True)
    file.write_text("1")
    at(minutes=30)
    named = topn("sweep", "--dry-run")
    assert named.returncode == 0, named.stderr
    assert sorted(named.stdout.splitlines()) == sorted(f"left behind: {name}" for name in leftovers)
    recent = topn("sweep", "--older-than", "1h")
    assert recent.stdout == ""
    deleted = topn("sweep")
    assert sorted(deleted.stdout.splitlines()) == sorted(f"deleted: {name}" for name in leftovers)
    assert_nothing_left()
    topn("sweep")
    assert not file.exists()


def test_sweep_keeps_results_of_dead_run(topn, run, leftovers):
    """Only the pool costs money. A run of the same files can still collect the results."""
    file = Path(topn.environment["TOPN_STATE"], "runs", run.flow_run_id)
    file.parent.mkdir(parents=True)
    file.touch()
    swept = topn("sweep")
    assert (swept.returncode, swept.stdout) == (0, f"deleted: pool {run.name}\n")
    assert "4 more stay until their deadline" in swept.stderr
    file.write_text("1")
    assert topn("sweep").returncode == 0
