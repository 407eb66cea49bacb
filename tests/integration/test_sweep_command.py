"""`topn sweep` finds and deletes the leftovers of a dead run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tasks.azure.accounts import batch_account, blob_account
from tasks.model.pool import PoolOptions
from tasks.model.run import Keep, Run
from tasks.steps.provision import ensure_containers, ensure_job, ensure_pool
from tasks.workload.word_counts import word_count_workload


@pytest.fixture
def client(prefect_api):
    from prefect import get_client  # noqa: PLC0415 - takes seconds
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - as above

    with temporary_settings({PREFECT_API_URL: prefect_api}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def flow_run(client):
    """A flow run in the state Running, as after its process was killed."""
    from prefect import Flow  # noqa: PLC0415 - takes seconds
    from prefect.states import Running  # noqa: PLC0415 - as above

    return client.create_flow_run(Flow(lambda: None, name="of a test"), state=Running())


@pytest.fixture
def leftovers(flow_run, prefect_api, azure_settings):
    """The resources of that run, whose deadline is in one hour."""
    run = Run(
        flow_run_id=str(flow_run.id),
        generation=0,
        deadline_at=datetime.now(timezone.utc) + timedelta(hours=1),
        prefect_api=f"{prefect_api}/",
        keep=Keep(),
    )
    workload = word_count_workload(3, ignore_case=False)
    batch, blobs = batch_account(), blob_account()
    containers = ensure_containers(blobs, run, workload)
    options = PoolOptions(pool_id=None, vm_size="standard_d2s_v3", nodes=1, spot_nodes=0, slots_per_node=2)
    pool_id = ensure_pool(batch, blobs, run, workload, containers, options, 1)
    ensure_job(batch, blobs, run, workload, containers, pool_id)
    return [f"job {run.name}", f"pool {run.name}", *(f"container {run.name}-{name}" for name in ("app", "in", "out"))]


def test_sweep_deletes_leftovers_of_dead_run(topn, client, flow_run, leftovers, assert_nothing_left):
    from prefect.states import Crashed  # noqa: PLC0415 - takes seconds

    # The run counts as running until its deadline, so nothing shows that it is dead.
    alive = topn("sweep")
    assert (alive.returncode, alive.stdout) == (0, "")

    client.set_flow_run_state(flow_run.id, Crashed(), force=True)
    named = topn("sweep", "--dry-run")
    assert named.returncode == 0, named.stderr
    assert sorted(named.stdout.splitlines()) == sorted(f"left behind: {name}" for name in leftovers)
    recent = topn("sweep", "--older-than", "1h")
    assert recent.stdout == ""
    deleted = topn("sweep")
    assert sorted(deleted.stdout.splitlines()) == sorted(f"deleted: {name}" for name in leftovers)
    assert_nothing_left()
