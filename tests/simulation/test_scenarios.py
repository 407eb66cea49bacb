"""Scenarios written by hand, and the replay of seeds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from simulation.campaign import main
from simulation.history import play
from simulation.invariants import violations
from simulation.plan import Act, Exit, FileSpec, Plan, WireFault, plan_of
from simulation.scenarios import BLOBS, FIXED, TEXTS, asleep_for_a_day, violations_and_failures


@pytest.mark.parametrize("name", FIXED)
def test_fixed_fault_stays_fixed(name):
    assert list(FIXED[name].check(play(FIXED[name].plan))) == []


def test_quiet_run_breaks_nothing():
    outcome = play(Plan(files=TEXTS))
    assert violations(outcome) == []
    assert outcome.lives[0].status == 0
    assert sorted(outcome.counted.values()) == [1, 1, 1]


@pytest.mark.parametrize("files_per_task", [None, 4])
@pytest.mark.parametrize(
    ("fate", "reason"), [("changed", "was changed"), ("deleted", "was deleted"), ("forbidden", "may not be read")]
)
def test_bad_blob_fails_alone(fate, reason, files_per_task):
    for at in (12, 24):
        files = (replace(BLOBS[0], fate=fate, at=at), *BLOBS[1:])
        outcome = play(Plan(files=files, files_per_task=files_per_task, pace="instant", dead_run=False))
        assert violations(outcome) == []
        [failed] = outcome.lives[0].report.failed
        assert failed.file.name == "0.txt"
        assert reason in failed.error.message


def test_unchanged_blobs_are_not_read_again():
    outcome = play(Plan(files=BLOBS, exits=(Exit(then="again"), Exit())))
    assert violations(outcome) == []
    assert sorted(outcome.counted.values()) == [1, 1, 1, 1]
    assert outcome.lives[1].report.count("unchanged") == len(BLOBS)


def test_retried_run_counts_nothing_twice():
    for at in range(20, 80, 12):
        plan = Plan(
            files=TEXTS,
            deployed=True,
            pace="fast",
            dead_run=False,
            exits=(Exit(kind="killed", at=at, then="retried"), Exit()),
        )
        outcome = play(plan)
        assert violations(outcome) == []
        assert sorted(outcome.counted.values()) == [1, 1, 1]


def test_interrupted_run_leaves_nothing():
    outcome = play(Plan(files=TEXTS, exits=(Exit(kind="interrupted", at=45),)))
    assert violations(outcome) == []
    assert outcome.lives[0].status == 130


def test_reordered_and_late_replies_change_nothing():
    late = WireFault(kind="late", chance=0.3, after=True, delay=5.0)
    cut = WireFault(kind="cut", chance=0.1, after=True)
    assert violations(play(Plan(files=TEXTS, wire=(late, cut)))) == []


def test_signatures_are_renewed_after_day_asleep():
    assert violations_and_failures(play(asleep_for_a_day(at=40))) == []


def test_seed_replays_under_another_hash_seed():
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-m", "simulation", "--seed", "1"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    trace = play(plan_of(1)).trace
    assert len(trace) > 50
    assert "\n".join(trace) in done.stdout, done.stderr


def test_same_seed_replays_same_history():
    """Threads that other tests have left in this process use random numbers, too."""
    first = play(plan_of(7))
    is_over = threading.Event()

    def draw():
        while not is_over.wait(0.001):
            random.random(), os.urandom(1)

    other = threading.Thread(target=draw)
    other.start()
    try:
        second = play(plan_of(7))
    finally:
        is_over.set()
        other.join()
    assert first.trace == second.trace
    assert first.texts == second.texts
    assert first.outputs == second.outputs


def test_generator_covers_all_kinds_of_plans():
    plans = [plan_of(seed) for seed in range(500)]
    exits = {(exit_.kind, exit_.then) for plan in plans for exit_ in plan.exits}
    assert {("killed", "retried"), ("killed", "again"), ("killed", "gone"), ("ends", "gone")} <= exits
    assert {fault.kind for plan in plans for fault in plan.wire} == {"status", "cut", "late", "lag", "html", "half"}
    assert {file.fate for plan in plans for file in plan.files} == {"stays", "changed", "deleted", "forbidden"}
    assert len({act.name for plan in plans for act in plan.acts}) >= 12
    assert {len(plan.files) for plan in plans} == set(range(1, 9))


def test_campaign_prints_failing_seeds(capsys, monkeypatch):
    """The campaign prints failing seeds and how to replay them, and exits with 1."""
    monkeypatch.setattr("simulation.campaign.play_pack", lambda seeds: [(seed, ["it is broken"], 1) for seed in seeds])
    monkeypatch.setenv("PREFECT_LOGGING_TO_API_ENABLED", "false")
    assert main(["--seeds", "2", "--processes", "1"]) == 1
    printed = capsys.readouterr().out
    assert "seed 1: it is broken" in printed
    assert "make simulate SEED=0" in printed


def test_bad_file_fails_alone():
    bad = FileSpec(name="bad.txt", content=b"\xff")
    outcome = play(Plan(files=(*TEXTS, bad), pace="instant"))
    assert violations(outcome) == []
    assert [file.file.name for file in outcome.lives[0].report.failed] == ["bad.txt"]
    assert outcome.lives[0].status == 1


NIGHT = Plan(
    files=tuple(FileSpec(name=f"{number}.txt", content=f"text {number}".encode()) for number in range(8)),
    deployed=True,
    timeout_minutes=600,
    nodes=4,
    spot_nodes=4,
    task_seconds=(600.0, 900.0),
    dead_run=False,
)


def test_night_on_evicted_spot_nodes_ends():
    # Preempted nodes come back after some minutes.
    acts = tuple(Act(name="preempt_node", at=at, options={"when": "task_running"}) for at in (500, 600, 800))
    outcome = play(replace(NIGHT, acts=acts))

    report = outcome.lives[0].report
    assert violations(outcome) == []
    assert report.count("done") == len(NIGHT.files)
    assert report.usage.preemptions == 3
    assert report.usage.requeues > 0
    assert_estimate_is_right(outcome)


def test_night_without_spot_capacity_ends():
    """Dedicated nodes replace spot nodes that do not come within the first minutes."""
    acts = (Act(name="allocation_fails", at=1, options={"nodes": "spot", "stalls": True}),)
    outcome = play(replace(NIGHT, acts=acts))

    report = outcome.lives[0].report
    assert violations(outcome) == []
    assert report.count("done") == len(NIGHT.files)
    assert report.usage.spot_node_seconds == 0
    assert_estimate_is_right(outcome)
    # The night has ten hours. Without dedicated nodes before half of it, the run would take longer.
    assert outcome.lives[0].ended_at - outcome.lives[0].started_at < timedelta(hours=2)


def assert_estimate_is_right(outcome):
    """Compare the measured node time with that of the service. The run sees a node leave up to a minute late."""
    usage = outcome.lives[0].report.usage
    assert usage.node_seconds == pytest.approx(outcome.node_seconds["dedicated"], rel=0.05, abs=120)
    assert usage.spot_node_seconds == pytest.approx(outcome.node_seconds["spot"], rel=0.05, abs=120)
