"""Calls to Batch and Blob Storage that fail at random, or whose replies are lost, change no result and leave nothing."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from tests_support import independent_count

from localbatch import LocalAzure

FILES = 6
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(2, 5))]

FAULTS = {
    "refused calls": [{"fault": "answer", "operation": "*", "status": 503, "code": "ServerBusy", "probability": 0.1}],
    "throttled calls": [{"fault": "answer", "operation": "*", "status": 429, "probability": 0.1}],
    "lost replies": [{"fault": "drop_after", "operation": "*", "probability": 0.1}],
}


@pytest.fixture
def failing_azure(tmp_path):
    with LocalAzure(state_dir=tmp_path / "azure", pace="instant", storage_faults=True) as azure:
        yield azure


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_run_survives(flow_runs, failing_azure, monkeypatch, kind, seed):
    from tasks.accounts import batch_account, blob_account  # noqa: PLC0415 - imported when the environment is set
    from tasks.cleanup import find_leftovers  # noqa: PLC0415
    from tasks.models import Keep  # noqa: PLC0415

    for number in range(FILES):
        Path(f"{number}.txt").write_text(f"w{number} same " * (number + 1))
    for fault in FAULTS[kind]:
        failing_azure.faults.add(**fault, seed=seed)
        failing_azure.storage_faults.add(**fault, seed=seed)
    flow_runs.environment |= failing_azure.environment
    flow_run_id = flow_runs.create(inputs=["*.txt"])

    process = flow_runs.start(flow_run_id)
    output, _ = process.communicate(timeout=240)

    failing_azure.faults.clear()
    failing_azure.storage_faults.clear()
    assert process.returncode == 0, output
    for number in range(FILES):
        found = json.loads(Path(f"results/{number}_OUTPUT.json").read_text())
        expected = independent_count(Path(f"{number}.txt").read_text())
        assert (found["words"], found["distinct"], found["top"]) == expected
    for variable, value in failing_azure.environment.items():
        monkeypatch.setenv(variable, value)
    assert find_leftovers(batch_account(), blob_account(), uuid.UUID(str(flow_run_id)), Keep()).names == ()
