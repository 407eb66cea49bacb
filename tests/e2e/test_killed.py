"""A flow run whose process is killed and repeated gives what a run that was never killed gives."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests_support import independent_count

from tasks.model.run import Keep

FILES = 8

# For each step: the function that does it, and the function that it has called in its middle. The simulation kills a
# client at every request of every step; these two show that a process that the kernel kills leaves what it says there.
SUBMIT = ("tasks.steps.submit", "submit_chunk", "add_tasks")
DELETE = ("tasks.steps.cleanup", "delete", "delete_jobs_and_pools")


def test_run_killed_twice_counts_nothing_twice(flow_runs, azure_settings):
    """Field reports 2, 3 and 31: killed twice, each time repeated, the run adopts what exists and ends as usual."""
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set
    from tasks.steps.cleanup import delete, find_leftovers  # noqa: PLC0415

    for number in range(FILES):
        Path(f"{number}.txt").write_text(f"w{number} same " * (number + 1))
    flow_run_id = flow_runs.create(inputs=["*.txt"], keep_job=True)
    for start, killed_at in ((flow_runs.start, SUBMIT), (flow_runs.repeat, DELETE)):
        process = start(flow_run_id, *killed_at)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, f"{killed_at} was not reached: {output}"

    repeated = flow_runs.repeat(flow_run_id)
    output, _ = repeated.communicate(timeout=120)

    assert repeated.returncode == 0, output
    assert flow_runs.state(flow_run_id) == "COMPLETED"
    for number in range(FILES):
        found = json.loads(Path(f"results/{number}_OUTPUT.json").read_text())
        expected = independent_count(Path(f"{number}.txt").read_text())
        assert (found["words"], found["distinct"], found["top"]) == expected
    batch, blobs = batch_account(), blob_account()
    assert find_leftovers(batch, blobs, flow_run_id, Keep(job=True)).names == ()
    outcomes = [
        outcome
        for job in batch.jobs(f"topn-{flow_run_id.hex}-")
        for _, outcome in batch.completed_tasks(job.job_id, None)
    ]
    # Every file was counted by one Batch task, once; whatever was finished before a kill was not counted again.
    assert len(outcomes) == len({outcome.task_id for outcome in outcomes}) == FILES
    assert {(outcome.result, outcome.retry_count, outcome.requeue_count) for outcome in outcomes} == {("success", 0, 0)}
    delete(batch, blobs, find_leftovers(batch, blobs, flow_run_id, Keep()))
