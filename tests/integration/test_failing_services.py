"""Calls to Batch and Blob Storage that fail at random, or whose replies are lost, change no result and leave nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests_support import independent_count

from localbatch import LocalAzure

FILES = 6
RUNS = 17

TENTH = 0.1
FAULTS = {
    "refused calls": {"fault": "answer", "status": 503, "code": "ServerBusy"},
    "throttled calls": {"fault": "answer", "status": 429},
    "lost replies": {"fault": "drop_after"},
}


@pytest.fixture
def failing_azure(tmp_path):
    with LocalAzure(state_dir=tmp_path / "azure", pace="instant", storage_faults=True) as azure:
        yield azure


@pytest.mark.parametrize("runs", [1, pytest.param(RUNS, marks=pytest.mark.faults)])
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.timeout(900)
def test_runs_survive(flow_runs, failing_azure, monkeypatch, kind, runs):
    """Field reports 15 and 25: a call that fails is no verdict, and is made again, as long as that can help."""
    for variable, value in failing_azure.environment.items():
        monkeypatch.setenv(variable, value)
    from tasks.accounts import batch_account, blob_account  # noqa: PLC0415 - after the environment is set
    from tasks.cleanup import find_leftovers  # noqa: PLC0415
    from tasks.models import Keep  # noqa: PLC0415

    fired_in_all = 0
    flow_runs.environment |= failing_azure.environment
    with flow_runs.one_process() as run:
        for seed in range(runs):
            texts = {f"{number}.txt": f"w{seed} x{number} same " * (number + 1) for number in range(FILES)}
            for name, text in texts.items():
                Path(name).write_text(text)
            fault = {**FAULTS[kind], "operation": "*", "probability": TENTH, "seed": seed}
            print(f"{fault=}")
            failing_azure.faults.add(**fault)
            failing_azure.storage_faults.add(**fault)
            # Every third run packs its files.
            flow_run_id = flow_runs.create(inputs=["*.txt"], files_per_task=4 if seed % 3 == 2 else None)

            state = run(flow_run_id)

            fired = [script.listing()[0]["fired"] for script in (failing_azure.faults, failing_azure.storage_faults)]
            failing_azure.faults.clear()
            failing_azure.storage_faults.clear()
            assert state == "COMPLETED"
            fired_in_all += sum(fired)
            for name, text in texts.items():
                found = json.loads(Path("results", name.replace(".txt", "_OUTPUT.json")).read_text())
                assert (found["words"], found["distinct"], found["top"]) == independent_count(text)
            assert find_leftovers(batch_account(), blob_account(), flow_run_id, Keep()).names == ()
    # A run with packs makes so few calls that all of them may get through.
    assert fired_in_all >= runs
