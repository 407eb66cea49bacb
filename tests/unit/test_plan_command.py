"""`topn plan` for files that no run has counted yet."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def thirty_files():
    for number in range(30):
        Path(f"{number:02}.txt").write_text(f"w{number}")


def test_plan_counts_shared_batch_tasks(topn, thirty_files):
    assert "would add 3 Batch tasks, on up to 2 nodes" in topn("plan", "*.txt", "--files-per-task", "10").stdout
    assert "would add 30 Batch tasks" in topn("plan", "*.txt", "--files-per-task", "auto").stdout


def test_plan_cuts_long_list(topn, thirty_files):
    done = topn("plan", "*.txt")
    # Three sentences, twenty names, and the rest.
    assert len(done.stdout.splitlines()) == 24
    assert done.stdout.splitlines()[2] == "1 more Batch task would merge the counts of all files."
    assert done.stdout.splitlines()[-1] == "new: and 10 more"


def test_plan_counts_spot_nodes(topn, thirty_files):
    done = topn("plan", "*.txt", "--nodes", "3", "--spot-nodes", "40", "--slots-per-node", "1")
    assert (
        "would add 30 Batch tasks, on up to 3 nodes and 30 spot nodes (standard_d2as_v5) with 1 slot each."
        in done.stdout
    )
