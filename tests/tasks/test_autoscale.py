"""The pool's formula, evaluated as the local Batch service does."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from localbatch.autoscale import Sample, check, evaluate
from tasks.autoscale import pool_formula

CREATED_AT = datetime(2026, 11, 22, 14, 0, tzinfo=timezone.utc)
DEADLINE_AT = CREATED_AT + timedelta(hours=1)


def nodes_at(minutes: float, waiting: list[float], *, expected: int = 100) -> int:
    formula = pool_formula(
        most_nodes=10, slots_per_node=4, expected_batch_tasks=expected, created_at=CREATED_AT, deadline_at=DEADLINE_AT
    )
    check(formula)
    now = CREATED_AT + timedelta(minutes=minutes)
    samples = [Sample(now - timedelta(seconds=30 * (len(waiting) - 1 - i)), value) for i, value in enumerate(waiting)]
    found = evaluate(formula, now, {"PendingTasks": samples})
    assert found.node_deallocation_option == "taskcompletion"
    return found.target_dedicated_nodes


@pytest.mark.parametrize(("expected", "nodes"), [(1, 1), (4, 1), (5, 2), (37, 10), (100, 10)])
def test_the_first_minutes_get_nodes_for_the_expected_work(expected, nodes):
    assert nodes_at(0, [0], expected=expected) == nodes


@pytest.mark.parametrize(("waiting", "nodes"), [(0, 0), (1, 1), (4, 1), (9, 3), (1000, 10)])
def test_later_the_nodes_follow_the_work_that_waits(waiting, nodes):
    assert nodes_at(30, [waiting] * 20) == nodes


def test_work_of_the_last_five_minutes_counts():
    assert nodes_at(30, [40] * 10 + [0]) == 10


@pytest.mark.parametrize("minutes", [60, 61, 10_000])
def test_after_the_deadline_there_are_no_nodes_whatever_waits(minutes):
    assert nodes_at(minutes, [1000] * 20) == 0
