"""The autoscale formula of a run's pool: nodes for the pending Batch tasks, and no nodes after the deadline."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

# Batch evaluates a formula at most every five minutes, and nodes take minutes to start. Until this many minutes have
# passed, the samples of pending Batch tasks are not meaningful.
# Source: https://learn.microsoft.com/azure/batch/batch-automatic-scaling
STARTUP_MINUTES = 10

# Spot nodes run for this share of the run's time. Dedicated nodes, which are never preempted, do the remaining work.
SPOT_SHARE_OF_TIME = 0.5

# Batch truncates fractions of a node, so adding slots - 1 rounds up. It is not certain that Batch supports `ceil`.
# A preempted node stays in its pool and counts towards the spot target, so a dedicated node replaces it.
FORMULA = """\
slots = {slots_per_node};
sampled = $PendingTasks.GetSamplePercent(5 * TimeInterval_Minute);
waiting = sampled < 70 ? max($PendingTasks.GetSample(1)) : max($PendingTasks.GetSample(5 * TimeInterval_Minute));
needed = time() < time("{startup_ends_at}") ? {startup_nodes} : (waiting + slots - 1) / slots;
spot = time() < time("{spot_ends_at}") ? min({max_spot_nodes}, needed) : 0;
working = max(0, spot - max($PreemptedNodeCount.GetSample(1)));
alive = time() < time("{deadline_at}") ? 1 : 0;
$TargetLowPriorityNodes = alive * spot;
$TargetDedicatedNodes = alive * min({max_nodes}, needed - working);
$NodeDeallocationOption = taskcompletion;
"""


def pool_formula(
    *,
    max_nodes: int,
    max_spot_nodes: int,
    slots_per_node: int,
    expected_batch_tasks: int,
    created_at: datetime,
    deadline_at: datetime,
) -> str:
    """Return the autoscale formula.

    The pool starts with nodes for the expected Batch tasks. It then follows the pending ones until the deadline.

    Args:
        max_nodes: Maximum number of dedicated nodes.
        max_spot_nodes: Maximum number of spot nodes, which are started first.
        slots_per_node: Number of Batch tasks that a node runs in parallel.
        expected_batch_tasks: Number of Batch tasks that the run will add.
        created_at: When the pool is created.
        deadline_at: When the last node is removed.
    """
    return FORMULA.format(
        slots_per_node=slots_per_node,
        max_nodes=max_nodes,
        max_spot_nodes=max_spot_nodes,
        startup_nodes=-(-expected_batch_tasks // slots_per_node),
        startup_ends_at=_instant(created_at + timedelta(minutes=STARTUP_MINUTES)),
        spot_ends_at=_instant(created_at + SPOT_SHARE_OF_TIME * (deadline_at - created_at)),
        deadline_at=_instant(deadline_at),
    )


def _instant(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
