"""The autoscale formula of a pool, evaluated by the local Batch service."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from localbatch.account.records import Sample
from localbatch.rules.autoscale import check, evaluate
from tasks.azure.autoscale import pool_formula

CREATED_AT = datetime(2026, 11, 22, 14, 0, tzinfo=timezone.utc)
DEADLINE_AT = CREATED_AT + timedelta(hours=1)


def targets_at(minutes, waiting, *, expected=100, spot=0, current=None, preempted=0, has_node_samples=True):
    """Return the target numbers of dedicated and spot nodes, `minutes` after the pool was created."""
    formula = pool_formula(
        max_nodes=10,
        max_spot_nodes=spot,
        slots_per_node=4,
        expected_batch_tasks=expected,
        created_at=CREATED_AT,
        deadline_at=DEADLINE_AT,
    )
    check(formula)
    now = CREATED_AT + timedelta(minutes=minutes)
    tasks = [Sample(now - timedelta(seconds=30 * (len(waiting) - 1 - i)), value) for i, value in enumerate(waiting)]
    samples = {"PendingTasks": tasks}
    if spot and has_node_samples:
        samples["CurrentLowPriorityNodes"] = [Sample(now, spot if current is None else current)]
        samples["PreemptedNodeCount"] = [Sample(now, preempted)]
    found = evaluate(formula, now, samples)
    assert found.node_deallocation_option == "taskcompletion"
    return found.target_dedicated_nodes, found.target_low_priority_nodes or 0


@pytest.mark.parametrize(("expected", "nodes"), [(1, 1), (4, 1), (5, 2), (37, 10), (100, 10)])
def test_first_minutes_get_nodes_for_expected_work(expected, nodes):
    """Field report 26: nodes start before an evaluation sees pending Batch tasks."""
    assert targets_at(0, [0], expected=expected) == (nodes, 0)


@pytest.mark.parametrize(("waiting", "nodes"), [(0, 0), (1, 1), (4, 1), (9, 3), (1000, 10)])
def test_later_nodes_follow_pending_work_and_slots(waiting, nodes):
    """Field report 5: ten Batch tasks that fit on one node do not start ten nodes."""
    assert targets_at(30, [waiting] * 20) == (nodes, 0)


def test_work_of_last_five_minutes_counts():
    assert targets_at(30, [40] * 10 + [0]) == (10, 0)


@pytest.mark.parametrize("minutes", [0, 4, 10, 20])
@pytest.mark.parametrize("spot", [0, 5])
def test_formula_works_without_samples(minutes, spot):
    """The samples of a new pool come late, and GetSample fails without one."""
    dedicated, spot_nodes = targets_at(minutes, [], spot=spot, has_node_samples=False)
    assert dedicated + spot_nodes >= 10
    assert spot_nodes == spot


@pytest.mark.parametrize("samples", [1, 4, 6, 7, 20])
def test_few_samples_are_sufficient(samples):
    assert targets_at(20, [9] * samples) == (3, 0)


@pytest.mark.parametrize("minutes", [60, 61, 10_000])
@pytest.mark.parametrize("spot", [0, 5])
def test_no_nodes_after_deadline(minutes, spot):
    """Field report 1: an unattended idle pool costs nothing."""
    assert targets_at(minutes, [1000] * 20, spot=spot) == (0, 0)


@pytest.mark.parametrize(
    ("waiting", "preempted", "targets"),
    [
        (8, 0, (0, 2)),
        (20, 0, (0, 5)),
        (40, 0, (5, 5)),
        (1000, 0, (10, 5)),
        (20, 2, (2, 5)),
        (8, 2, (2, 2)),
        (20, 9, (5, 5)),
    ],
)
def test_spot_nodes_come_before_dedicated_nodes(waiting, preempted, targets):
    """Field report 7: preempted nodes stay in the pool but do not prevent others from starting."""
    assert targets_at(20, [waiting] * 20, spot=5, preempted=preempted) == targets


@pytest.mark.parametrize(
    ("minutes", "current", "dedicated"),
    [(1, 0, 0), (9, 0, 0), (10, 0, 5), (20, 0, 5), (20, 2, 3), (20, 5, 0), (20, 9, 0), (31, 0, 5)],
)
def test_dedicated_nodes_replace_missing_spot_nodes(minutes, current, dedicated):
    assert targets_at(minutes, [20] * 20, expected=20, spot=5, current=current)[0] == dedicated


def test_preempted_nodes_are_replaced_in_first_minutes():
    assert targets_at(5, [20] * 10, expected=20, spot=5, preempted=2) == (2, 5)


def test_dedicated_nodes_finish_after_half_time():
    assert targets_at(29, [20] * 20, spot=5) == (0, 5)
    assert targets_at(31, [20] * 20, spot=5) == (5, 0)
