"""The autoscale formula of a run's pool: enough nodes for what waits, and none after the deadline, come what may."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

# A pool's formula is evaluated every five minutes at the most, and nodes need minutes to start; before this has
# passed, its samples of waiting Batch tasks say nothing.
FIRST_MINUTES = 10

# Spot nodes have this share of the run's time; what is left then is done by dedicated nodes, which nobody takes away.
SPOT_SHARE_OF_TIME = 0.5

# The service cuts fractions of a node off, so that adding slots - 1 rounds up; whether it knows `ceil` is not certain.
# A preempted node stays in its pool and counts as one of the target: a dedicated node stands in for it.
FORMULA = """\
slots = {slots_per_node};
sampled = $PendingTasks.GetSamplePercent(5 * TimeInterval_Minute);
waiting = sampled < 70 ? max($PendingTasks.GetSample(1)) : max($PendingTasks.GetSample(5 * TimeInterval_Minute));
needed = time() < time("{first_minutes_end_at}") ? {first_nodes} : (waiting + slots - 1) / slots;
spot = time() < time("{spot_ends_at}") ? min({most_spot_nodes}, needed) : 0;
working = max(0, spot - max($PreemptedNodeCount.GetSample(1)));
alive = time() < time("{deadline_at}") ? 1 : 0;
$TargetLowPriorityNodes = alive * spot;
$TargetDedicatedNodes = alive * min({most_nodes}, needed - working);
$NodeDeallocationOption = taskcompletion;
"""


def pool_formula(
    *,
    most_nodes: int,
    most_spot_nodes: int,
    slots_per_node: int,
    expected_batch_tasks: int,
    created_at: datetime,
    deadline_at: datetime,
) -> str:
    """Write the formula: nodes for the expected work at first, then for the work that waits, then none.

    Args:
        most_nodes: The most dedicated nodes.
        most_spot_nodes: The most spot nodes; they come first.
        slots_per_node: Batch tasks that run side by side on a node.
        expected_batch_tasks: How many Batch tasks the run will add.
        created_at: When the pool is created.
        deadline_at: From when on there are no nodes.
    """
    return FORMULA.format(
        slots_per_node=slots_per_node,
        most_nodes=most_nodes,
        most_spot_nodes=most_spot_nodes,
        first_nodes=-(-expected_batch_tasks // slots_per_node),
        first_minutes_end_at=_instant(created_at + timedelta(minutes=FIRST_MINUTES)),
        spot_ends_at=_instant(created_at + SPOT_SHARE_OF_TIME * (deadline_at - created_at)),
        deadline_at=_instant(deadline_at),
    )


def _instant(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
