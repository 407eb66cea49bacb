"""A killed and retried flow run has the same results as an undisturbed run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests_support import independent_count, leftovers_of

from tasks.model.run import Keep

FILES = 8

# Module and function of a step, and the function after whose call the process is killed.
# The simulation kills a client at every request. These two cases show the same with a real process and SIGKILL.
SUBMIT = ("tasks.steps.submit", "submit_chunk", "add_tasks")
DELETE = ("tasks.steps.cleanup", "delete", "delete_jobs_and_pools")


def test_run_killed_twice_counts_nothing_twice(flow_runs, azure_settings):
    """Field reports 2, 3 and 31: each retry adopts what exists, and the run completes."""
    from tasks.azure.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set
    from tasks.steps.cleanup import delete  # noqa: PLC0415

    for number in range(FILES):
        Path(f"{number}.txt").write_text(f"w{number} same " * (number + 1))
    flow_run_id = flow_runs.create(inputs=["*.txt"], keep_job=True)
    for start, killed_at in ((flow_runs.start, SUBMIT), (flow_runs.retry, DELETE)):
        process = start(flow_run_id, *killed_at)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, f"{killed_at} was not reached: {output}"

    retried = flow_runs.retry(flow_run_id)
    output, _ = retried.communicate(timeout=120)

    assert retried.returncode == 0, output
    assert flow_runs.state(flow_run_id) == "COMPLETED"
    for number in range(FILES):
        found = json.loads(Path(f"results/{number}_OUTPUT.json").read_text())
        expected = independent_count(Path(f"{number}.txt").read_text())
        assert (found["words"], found["distinct"], found["top"]) == expected
    found = json.loads(Path("results/corpus.json").read_text())
    expected = independent_count(" ".join(Path(f"{number}.txt").read_text() for number in range(FILES)))
    assert (found["words"], found["distinct"], found["top"]) == expected
    batch, blobs = batch_account(), blob_account()
    assert leftovers_of(batch, blobs, flow_run_id, Keep(job=True)).names == ()
    outcomes = [
        outcome
        for job in batch.list_jobs(f"topn-{flow_run_id.hex}-")
        for _, outcome in batch.list_completed_tasks(job.job_id, None)
    ]
    # One Batch task counted each file once, and one merged them; what was finished before a kill was not done again.
    assert len(outcomes) == len({outcome.task_id for outcome in outcomes}) == FILES + 1
    assert {(outcome.result, outcome.retry_count, outcome.requeue_count) for outcome in outcomes} == {("success", 0, 0)}
    delete(batch, blobs, leftovers_of(batch, blobs, flow_run_id))
