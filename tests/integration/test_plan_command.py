"""`topn plan` prints what a run would do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from topn_support import Topn

SHARED = pytest.mark.xdist_group("shared_runs")


@pytest.fixture
def data(completed_run):
    """Copy the texts of a completed run to the current folder."""
    shutil.copytree(completed_run.folder / "data", "data")


@SHARED
def test_plan_lists_new_unchanged_and_rejected_inputs(completed_run, data, assert_nothing_left):
    Path("new.txt").write_text("three")
    Path("same.txt").write_text("three")

    done = completed_run.topn("plan", "-n", "5", "*.txt", "data/sonnets.txt", "missing.txt")

    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "2 new, 1 unchanged, 1 invalid.",
        "A run would add 1 Batch task, on up to 1 node (standard_d2as_v5) with 2 slots each.",
        "1 more Batch task would merge the counts of all files.",
        (
            "A run ends after at most 60 minutes. 2 nodes cost at most 0.17 USD until then "
            "(list price of standard_d2as_v5, Linux, pay as you go, East US)."
        ),
        (
            "A run needs up to 4 cores of the VM family standardDASv5Family. "
            "Compare with the quotas in the portal (Batch account, Quotas)."
        ),
        "The nodes need an image for x64, generation 1 or 2.",
        "Not checked: the credentials, the image and the network. Run `topn check`.",
        "new: new.txt (5 bytes)",
        "new: same.txt (5 bytes)",
        f"unchanged: sonnets.txt ({Path('data/sonnets.txt').stat().st_size:,} bytes)",
    ]
    assert "missing.txt does not exist: name a file, a folder, or a pattern that matches a file." in done.stderr
    assert_nothing_left()


def test_plan_refuses_key_for_own_network(azure_settings):
    Path("new.txt").write_text("three")
    Path("pool.yaml").write_text(
        "subnet_id: /subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n"
    )
    done = Topn()("plan", "--pool", "pool.yaml", "new.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Batch does not accept an account key for a pool with `subnet_id`. Unset TOPN_BATCH_KEY to use an identity.\n"
    )


@SHARED
def test_plan_needs_no_azure(completed_run, data):
    without_azure = Topn(TOPN_STATE=completed_run.topn.environment["TOPN_STATE"])

    done = without_azure("plan", "-n", "5", "data/*.txt")

    assert (done.returncode, done.stdout.splitlines()[:2]) == (
        0,
        ["0 new, 5 unchanged, 0 invalid.", "A run would create nothing."],
    )


@SHARED
def test_plan_prints_json(completed_run, data):
    Path("new.txt").write_text("three")
    done = completed_run.topn("plan", "-n", "5", "--json", "--nodes", "5", "new.txt", "data/sonnets.txt", "missing.txt")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert found["new"] == [{"file": "new.txt", "bytes": 5}]
    assert [file["file"] for file in found["unchanged"]] == ["sonnets.txt"]
    assert "missing.txt does not exist" in found["invalid"][0]
    assert (found["batch_tasks"], found["nodes"], found["minutes"]) == (1, 5, 60)
    assert found["usd"] == pytest.approx(5 * 0.086)
