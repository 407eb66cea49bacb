"""The autoscale formula of a run's pool: enough nodes for what waits, and none after the deadline, come what may."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

# A pool's formula is evaluated every five minutes at the most, and nodes need minutes to start; before this has
# passed, its samples of waiting Batch tasks say nothing.
FIRST_MINUTES = 10

# The service cuts fractions of a node off, so that adding slots - 1 rounds up; whether it knows `ceil` is not certain.
FORMULA = """\
slots = {slots_per_node};
mostNodes = {most_nodes};
sampled = $PendingTasks.GetSamplePercent(5 * TimeInterval_Minute);
waiting = sampled < 70 ? max($PendingTasks.GetSample(1)) : max($PendingTasks.GetSample(5 * TimeInterval_Minute));
wanted = min(mostNodes, (waiting + slots - 1) / slots);
nodes = time() < time("{first_minutes_end_at}") ? {first_nodes} : wanted;
$TargetDedicatedNodes = time() < time("{deadline_at}") ? nodes : 0;
$NodeDeallocationOption = taskcompletion;
"""


def pool_formula(
    *,
    most_nodes: int,
    slots_per_node: int,
    expected_batch_tasks: int,
    created_at: datetime,
    deadline_at: datetime,
) -> str:
    """Write the formula: nodes for the expected work at first, then for the work that waits, then none."""
    return FORMULA.format(
        slots_per_node=slots_per_node,
        most_nodes=most_nodes,
        first_nodes=min(most_nodes, -(-expected_batch_tasks // slots_per_node)),
        first_minutes_end_at=_instant(created_at + timedelta(minutes=FIRST_MINUTES)),
        deadline_at=_instant(deadline_at),
    )


def _instant(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
