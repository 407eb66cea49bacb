"""The autoscale formula of a run's pool: nodes for the pending Batch tasks, and no nodes after the deadline."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

# Batch evaluates a formula at most every five minutes, nodes take minutes to start, and the first samples of a new pool
# come late. Until this many minutes have passed, samples are not used.
# Source: https://learn.microsoft.com/azure/batch/batch-automatic-scaling
STARTUP_MINUTES = 10

# Spot nodes run for this share of the run's time. Dedicated nodes, which are never preempted, do the remaining work.
SPOT_SHARE_OF_TIME = 0.5

# GetSample fails if there are no samples, and only the chosen branch of a condition is evaluated.
# Source: https://github.com/Azure/batch-shipyard/issues/138
# Batch truncates fractions of a node, so adding slots - 1 rounds up. It is not certain that Batch supports `ceil`.
FORMULA = """\
slots = {slots_per_node};
expected = {expected_batch_tasks};
starting = time() < time("{startup_ends_at}");
sampled = $PendingTasks.GetSamplePercent(5 * TimeInterval_Minute);
latest = sampled > 0 ? max(0, $PendingTasks.GetSample(1)) : expected;
recent = sampled < 70 ? latest : max(0, $PendingTasks.GetSample(5 * TimeInterval_Minute));
pending = starting ? expected : recent;
needed = (pending + slots - 1) / slots;
alive = time() < time("{deadline_at}") ? 1 : 0;
{spot}$TargetDedicatedNodes = alive * min({max_nodes}, needed - working);
$NodeDeallocationOption = taskcompletion;
"""

NO_SPOT = "working = 0;\n"

# Current spot nodes include the preempted ones, which stay in the pool. A dedicated node replaces each of these and, after
# the first minutes, each spot node that did not come.
SPOT = """\
spot = time() < time("{spot_ends_at}") ? min({max_spot_nodes}, needed) : 0;
counted = $CurrentLowPriorityNodes.GetSamplePercent(5 * TimeInterval_Minute);
current = counted > 0 ? max(0, $CurrentLowPriorityNodes.GetSample(1)) : 0;
preempted = counted > 0 ? max(0, $PreemptedNodeCount.GetSample(1)) : 0;
working = max(0, (starting ? spot : min(spot, current)) - preempted);
$TargetLowPriorityNodes = alive * spot;
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
    spot_ends_at = created_at + SPOT_SHARE_OF_TIME * (deadline_at - created_at)
    spot = (
        SPOT.format(max_spot_nodes=max_spot_nodes, spot_ends_at=_instant(spot_ends_at)) if max_spot_nodes else NO_SPOT
    )
    return FORMULA.format(
        slots_per_node=slots_per_node,
        max_nodes=max_nodes,
        spot=spot,
        expected_batch_tasks=expected_batch_tasks,
        startup_ends_at=_instant(created_at + timedelta(minutes=STARTUP_MINUTES)),
        deadline_at=_instant(deadline_at),
    )


def _instant(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
