"""A flow run that is killed at any instant and repeated gives what a run that was never killed gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests_support import independent_count, wait_until

from tasks.models import Keep

FILES = 8

# After how many requests to Batch the process is killed; a run that is never killed makes some 25.
KILL_POINTS = [8, 20]
MORE_KILL_POINTS = [point for point in range(1, 24) if point not in KILL_POINTS]


@pytest.mark.parametrize(
    "requests", [*KILL_POINTS, *(pytest.param(point, marks=pytest.mark.faults) for point in MORE_KILL_POINTS)]
)
def test_a_killed_run_is_repeated_without_doing_anything_twice(flow_runs, azure_settings, requests):
    from tasks.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set
    from tasks.cleanup import delete, find_leftovers  # noqa: PLC0415

    records = azure_settings.batch.requests
    for number in range(FILES):
        Path(f"{number}.txt").write_text(f"w{number} same " * (number + 1))
    flow_run_id = flow_runs.create(inputs=["*.txt"], keep_job=True)
    seen = len(records)
    process = flow_runs.start(flow_run_id)
    wait_until(lambda: len(records) - seen >= requests or process.poll() is not None, "so many requests")
    process.kill()
    process.communicate(timeout=60)

    repeated = flow_runs.repeat(flow_run_id)
    output, _ = repeated.communicate(timeout=120)

    assert repeated.returncode == 0, output
    assert flow_runs.state(flow_run_id) == "COMPLETED"
    for number in range(FILES):
        found = json.loads(Path(f"results/{number}_OUTPUT.json").read_text())
        expected = independent_count(Path(f"{number}.txt").read_text())
        assert (found["words"], found["distinct"], found["top"]) == expected
    batch, blobs = batch_account(), blob_account()
    assert left_but_the_job(find_leftovers(batch, blobs, flow_run_id, Keep(job=True))) == ()
    jobs = batch.jobs(f"topn-{flow_run_id.hex}-")
    outcomes = [outcome for job in jobs for _, outcome in batch.completed_tasks(job.job_id, None)]
    # Every file was counted by one Batch task, once; whatever was finished before the kill was not counted again.
    assert len(outcomes) == len({outcome.task_id for outcome in outcomes}) <= FILES
    assert {(outcome.result, outcome.retry_count) for outcome in outcomes} <= {("success", 0)}
    delete(batch, blobs, find_leftovers(batch, blobs, flow_run_id, Keep()))


def left_but_the_job(leftovers):
    return tuple(name for name in leftovers.names if not name.startswith("job "))
