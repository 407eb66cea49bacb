"""The flow itself: parameters that the command does not have, its deployment, and what reading it tells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

import pytest
from tests_support import REPOSITORY

from flows.topn import topn as topn_flow

RUN_FLOW = """
import json, sys
from flows.topn import topn
report = topn(**json.loads(sys.argv[1]))
print(report.run_name, [file.status for file in report.files], [file.result.provenance.pool_id for file in report.files])
"""


def run_flow(environment, **parameters):
    return subprocess.run(
        [sys.executable, "-c", RUN_FLOW, json.dumps(parameters)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_an_existing_pool_is_used_and_neither_changed_nor_deleted(topn, azure_settings, nothing_left):
    from tasks.accounts import batch_account  # noqa: PLC0415 - after the environment is set
    from tasks.batch_values import PoolSpec, StartTask  # noqa: PLC0415
    from tasks.pool_choices import newest_image  # noqa: PLC0415

    account = batch_account()
    pool_id = f"mine-{uuid.uuid4().hex}"
    account.create_pool(
        PoolSpec(
            pool_id=pool_id,
            vm_size="standard_d2s_v3",
            image=newest_image(account.images(), datetime.now(timezone.utc)),
            slots_per_node=2,
            autoscale_formula="$TargetDedicatedNodes = 1;",
            start_task=StartTask(command_line="true", files=()),
            metadata={"whose": "mine"},
        )
    )
    Path("a.txt").write_text("one two two")

    done = run_flow(topn.environment, inputs=["a.txt"], pool_id=pool_id)

    assert done.returncode == 0, done.stderr
    assert f"['done'] ['{pool_id}']" in done.stdout
    pool = account.pool(pool_id)
    assert (pool.state, pool.metadata) == ("active", {"whose": "mine"})
    nothing_left()
    account.delete_jobs_and_pools([], [pool_id], 10)


def test_a_pool_that_does_not_exist_is_named(topn, nothing_left):
    Path("a.txt").write_text("one")
    done = run_flow(topn.environment, inputs=["a.txt"], pool_id="nowhere")
    assert done.returncode == 1
    assert "There is no pool nowhere: create it, or leave pool_id out." in done.stderr
    nothing_left()


@pytest.mark.parametrize(
    "parameters",
    [{"num_words": 0}, {"inputs": []}, {"nodes": 0}, {"slots_per_node": 0}, {"timeout_minutes": 0}, {"pool_id": 7}],
)
def test_a_bad_parameter_is_refused_before_the_run(parameters):
    with pytest.raises(Exception, match=next(iter(parameters))):
        topn_flow.validate_parameters(parameters)


def test_every_ending_has_the_same_cleanup():
    endings = (
        topn_flow.on_completion_hooks,
        topn_flow.on_failure_hooks,
        topn_flow.on_cancellation_hooks,
        topn_flow.on_crashed_hooks,
    )
    assert [[hook.__name__ for hook in hooks] for hooks in endings] == [["clean_up"]] * 4


def test_the_deployment_is_made_without_a_terminal_and_runs_nightly(prefect_api, tmp_path):
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path)}
    prefect = shutil.which("prefect", path=str(Path(sys.executable).parent))

    def run(*arguments):
        return subprocess.run(
            [prefect, *arguments],
            cwd=REPOSITORY,
            env={**environment, "PWD": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    created = run("work-pool", "create", "topn-pool", "--type", "process", "--overwrite")
    assert created.returncode == 0, created.stderr + created.stdout
    deployed = run("--no-prompt", "deploy", "--all")
    assert deployed.returncode == 0, deployed.stderr + deployed.stdout
    shown = run("deployment", "inspect", "topn/default", "-o", "json")
    found = json.loads(shown.stdout)
    assert found["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert found["schedules"][0]["schedule"]["timezone"] == "Etc/UTC"
    assert found["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]["directory"] == str(REPOSITORY)
    assert found["global_concurrency_limit"]["limit"] == 1
