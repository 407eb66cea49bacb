"""A flow run that is killed at any instant and repeated gives what a run that was never killed gives."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests_support import independent_count

from tasks.models import Keep

FILES = 8

# For each step: the function that does it, and the function that it has called in its middle.
STEPS = {
    "sweep": ("tasks.sweep", "sweep", "leftovers_below"),
    "begin": ("tasks.begin", "adopt_or_move_on", "containers"),
    "plan": ("tasks.plan", "make_plan", "_input_file"),
    "create containers": ("tasks.provision", "make_containers", "create_container"),
    "create pool": ("tasks.provision", "make_pool", "create_pool"),
    "stage": ("tasks.stage", "stage_chunk", "_stage_file"),
    "create job": ("tasks.provision", "make_job", "create_job"),
    "submit": ("tasks.submit", "submit_chunk", "add_tasks"),
    "wait": ("tasks.monitor", "watch", "look"),
    "collect": ("tasks.collect", "collect_chunk", "put"),
    "report": ("tasks.report", "report_run", "write_outputs"),
    "clean up": ("tasks.cleanup", "clean_up_run", "_record"),
    "delete": ("tasks.cleanup", "delete", "delete_jobs_and_pools"),
}
ALWAYS = {"submit", "delete"}


@pytest.mark.parametrize(
    "step", [step if step in ALWAYS else pytest.param(step, marks=pytest.mark.faults) for step in STEPS]
)
def test_a_run_that_is_killed_at_a_step_begin_middle_and_end_does_nothing_twice(flow_runs, azure_settings, step):
    """Field reports 2, 3 and 31: killed three times, each time repeated, the run adopts what exists and ends as ever."""
    from tasks.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set
    from tasks.cleanup import delete, find_leftovers  # noqa: PLC0415

    for number in range(FILES):
        Path(f"{number}.txt").write_text(f"w{number} same " * (number + 1))
    flow_run_id = flow_runs.create(inputs=["*.txt"], keep_job=True)
    module, function, middle = STEPS[step]
    for start, when in ((flow_runs.start, "begin"), (flow_runs.repeat, middle), (flow_runs.repeat, "end")):
        process = start(flow_run_id, module, function, when)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, f"{when} was not reached: {output}"

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
