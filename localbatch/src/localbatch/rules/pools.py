"""What happens to pools: resizes, and the formulas that ask for them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from localbatch.account import states
from localbatch.account.records import SCHEDULABLE, Json, Node, Pool, Sample
from localbatch.account.store import Store, key_of
from localbatch.account.vm_sizes import cores_of
from localbatch.rules import autoscale
from localbatch.rules.agenda import Pace
from localbatch.rules.nodes import NodeRules
from localbatch.wire import read_duration, timestamp

SAMPLE_INTERVAL = timedelta(seconds=30)
"""How often autoscale variables are sampled. Source: "Create an automatic scaling formula": every 30 seconds."""

SAMPLES_KEPT = 2880
"""Samples of a variable that are remembered: a day of them."""

CORE_QUOTA_REACHED: Mapping[bool, Json] = {
    True: {"code": "AccountCoreQuotaReached", "message": "The specified account has reached core quota"},
    False: {
        "code": "AccountLowPriorityCoreQuotaReached",
        "message": "The specified account has reached low priority core quota",
    },
}
"""Why a resize ends early, by whether it is dedicated nodes that are missing. Source: "Azure Batch pool resize failure"."""

ENABLE_INTERVAL = timedelta(seconds=30)
"""Between two requests that enable autoscale on a pool. Source: Batch REST API, Enable Auto Scale."""


class PoolRules(NodeRules):
    """Resizing, scaling and deleting pools."""

    def __init__(self, store: Store, pace: Pace) -> None:
        super().__init__(store, pace)
        self._stalled: set[str] = set()
        """Keys of the pools whose resize goes on to no effect."""

    def _look_at_pool(self, pool: Pool, now: datetime) -> None:
        if self._store.pools.get(key_of(pool.id)) is not pool:
            return
        if pool.autoscale_due_at:
            self._scale(pool, now)
        self._allocate(pool, now)
        if pool.state == "deleting" and not pool.nodes and self._has_lasted(pool, self._pace.deleting, now):
            del self._store.pools[key_of(pool.id)]

    def _look_at_stalled_pools(self) -> None:
        for pool_id in self._stalled:
            pool = self._store.pools.get(pool_id)
            if pool:
                self._store.mark(pool)
        self._stalled.clear()

    def _move_allocation(self, pool: Pool, event: str, now: datetime) -> None:
        pool.allocation.move(states.ALLOCATION, event, now)
        self._store.mark(pool)

    def _allocate(self, pool: Pool, now: datetime) -> None:
        allocation = pool.allocation
        if allocation.state == "steady" or not self._has_lasted(
            pool, self._pace.allocating, now, since=allocation.state_at
        ):
            return
        if allocation.state == "stopping":
            pool.resize_errors = [_resize_stopped("dedicated"), _resize_stopped("low priority")]
            self._move_allocation(pool, "stopped", now)
            return
        fault = self.allocation_failures.get(pool.id, self.allocation_failures.get("*"))
        kinds = ((True, pool.target_dedicated), (False, pool.target_low_priority))
        wanting = any(target > len(_staying(pool, dedicated=dedicated)) for dedicated, target in kinds)
        if wanting and fault:
            if fault.stalls and not self._has_timed_out(pool, now):
                self._stalled.add(key_of(pool.id))
            else:
                self._fail_allocation(pool, [{"code": fault.code, "message": fault.message}], now)
            return
        shortages = [CORE_QUOTA_REACHED[kind] for kind, target in kinds if not self._approach(pool, kind, target, now)]
        if any(node.state == "leavingpool" for node in pool.nodes.values()):
            if pool.state != "deleting" and self._has_timed_out(pool, now):
                message = "Nodes could not be removed before the resize timeout"
                self._fail_allocation(pool, [{"code": "RemoveNodesFailed", "message": message}], now)
        elif shortages:
            self._fail_allocation(pool, shortages, now)
        else:
            self._move_allocation(pool, "allocated", now)

    def _approach(self, pool: Pool, dedicated: bool, target: int, now: datetime) -> bool:
        """Add nodes of a kind to a pool, or have some leave; return whether those that stay are as many as they should be."""
        staying = _staying(pool, dedicated=dedicated)
        missing = max(0, target - len(staying))
        allowed = min(missing, self._allowed_nodes(pool, dedicated=dedicated)) if missing else 0
        for _ in range(allowed):
            self._add_node(pool, dedicated=dedicated, now=now)
        # Nodes that do nothing leave first; of those, the newest.
        excess = max(0, len(staying) - target)
        if excess:
            staying.sort(key=lambda node: (len(node.tasks), -node.allocated_at.timestamp()))
            self._take_leave(staying[:excess], pool.deallocation_option, now)
        return allowed == missing

    def _allowed_nodes(self, pool: Pool, *, dedicated: bool) -> int:
        """Return how many more nodes the account's quota of cores allows to a pool."""
        quota = self._store.core_quotas[dedicated]
        if quota is None:
            return sys.maxsize
        pools = self._store.pools.values()
        used = sum(each.count_nodes(dedicated=dedicated) * cores_of(each.spec["vmSize"]) for each in pools)
        return max(0, quota - used) // cores_of(pool.spec["vmSize"])

    def _has_timed_out(self, pool: Pool, now: datetime) -> bool:
        return self._is_due(pool, pool.allocation.state_at + read_duration(pool.spec["resizeTimeout"]), now)

    def _fail_allocation(self, pool: Pool, reasons: list[Json], now: datetime) -> None:
        pool.resize_errors = reasons
        self._move_allocation(pool, "failed", now)

    def _take_leave(self, nodes: Iterable[Node], option: str, now: datetime) -> None:
        for node in nodes:
            self._move_node(node, "leave", now)
            self._vacate(node, option, now)

    def resize(self, pool: Pool, dedicated: int, low_priority: int, option: str, now: datetime) -> None:
        """Begin a resize; the pool's allocation must be steady, or be at its first."""
        pool.target_dedicated, pool.target_low_priority = dedicated, low_priority
        pool.deallocation_option = option
        pool.resize_errors = []
        self.touch(pool, now)
        if pool.allocation.state == "steady":
            self._move_allocation(pool, "resize", now)

    def stop_resize(self, pool: Pool, now: datetime) -> None:
        """Begin to stop a resize."""
        self._move_allocation(pool, "stop", now)
        self.touch(pool, now)

    def remove_nodes(self, pool: Pool, nodes: Iterable[Node], option: str, now: datetime) -> None:
        """Begin to remove nodes; the pool's targets go down with them."""
        leaving = [node for node in nodes if node.state != "leavingpool"]
        dedicated = sum(node.dedicated for node in leaving)
        self.resize(
            pool,
            max(0, pool.target_dedicated - dedicated),
            max(0, pool.target_low_priority - (len(leaving) - dedicated)),
            option,
            now,
        )
        self._take_leave(leaving, option, now)

    def delete_pool(self, pool: Pool, now: datetime) -> None:
        """Begin to delete a pool: it is resized to nothing, then it is gone."""
        self._move(pool, states.POOL, "delete", now)
        pool.target_dedicated = pool.target_low_priority = 0
        pool.deallocation_option = "requeue"
        pool.autoscale_due_at = None
        for node in pool.nodes.values():
            if node.state == "leavingpool":
                self._vacate(node, "requeue", now)  # Nobody waits for Batch tasks any more.
        self._move_allocation(pool, "empty", now)

    # Autoscale.

    def enable_autoscale(self, pool: Pool, now: datetime) -> None:
        """Let the pool's formula decide about its size, from now on."""
        pool.spec["enableAutoScale"] = True
        pool.autoscale_due_at = pool.sample_due_at = now
        pool.autoscale_run = None
        self.touch(pool, now)

    def disable_autoscale(self, pool: Pool, now: datetime) -> None:
        """Let the pool keep the size it has."""
        pool.spec["enableAutoScale"] = False
        for name in ("autoScaleFormula", "autoScaleEvaluationInterval"):
            pool.spec.pop(name, None)
        pool.autoscale_due_at = pool.sample_due_at = pool.autoscale_run = None
        self.touch(pool, now)

    def evaluate(self, pool: Pool, formula: str, now: datetime) -> tuple[autoscale.Evaluation | None, Json]:
        """Evaluate a formula on a pool; return the targets, if there are any, and the AutoScaleRun."""
        self._sample(pool, now)
        try:
            evaluation = autoscale.evaluate(
                formula, now, {name: tuple(samples) for name, samples in pool.samples.items()}
            )
        except autoscale.FormulaError as error:
            return None, {"timestamp": timestamp(now), "error": {"code": error.code, "message": error.message}}
        return evaluation, {"timestamp": timestamp(now), "results": evaluation.results}

    def _scale(self, pool: Pool, now: datetime) -> None:
        if pool.sample_due_at and self._is_due(pool, pool.sample_due_at, now):
            self._sample(pool, now)
        # A pool is not evaluated while it is resized, but for the first time: its creation waits for its targets.
        settled = pool.allocation.state == "steady" or pool.autoscale_run is None
        if not settled or not pool.autoscale_due_at or not self._is_due(pool, pool.autoscale_due_at, now):
            return
        evaluation, pool.autoscale_run = self.evaluate(pool, pool.spec["autoScaleFormula"], now)
        pool.autoscale_due_at = now + read_duration(pool.spec["autoScaleEvaluationInterval"])
        self._is_due(pool, pool.autoscale_due_at, now)
        if not evaluation:
            return
        dedicated, low_priority = evaluation.target_dedicated_nodes, evaluation.target_low_priority_nodes
        targets = (
            pool.target_dedicated if dedicated is None else dedicated,
            pool.target_low_priority if low_priority is None else low_priority,
        )
        # What could not be allocated the last time is tried again.
        if targets != (pool.target_dedicated, pool.target_low_priority) or pool.resize_errors:
            self.resize(pool, *targets, evaluation.node_deallocation_option or "requeue", now)

    def _sample(self, pool: Pool, now: datetime) -> None:
        jobs = [job for job in self._store.jobs.values() if key_of(job.pool_id) == key_of(pool.id)]
        active = sum(job.task_counts.active for job in jobs if job.state == "active")
        running = sum(job.task_counts.running for job in jobs)
        usable = sum(node.state in SCHEDULABLE for node in pool.nodes.values())
        history: dict[str, float] = {
            "ActiveTasks": active,
            "RunningTasks": running,
            "PendingTasks": active + running,
            "SucceededTasks": sum(job.task_counts.succeeded for job in jobs),
            "FailedTasks": sum(job.task_counts.failed for job in jobs),
            "SampleNodeCount": usable,
            "UsableNodeCount": usable,
        }
        single: dict[str, float] = {
            "CurrentDedicatedNodes": pool.count_nodes(dedicated=True),
            "CurrentLowPriorityNodes": pool.count_nodes(dedicated=False),
            "TargetDedicatedNodes": pool.target_dedicated,
            "TargetLowPriorityNodes": pool.target_low_priority,
            "PreemptedNodeCount": sum(node.state == "preempted" for node in pool.nodes.values()),
            "TaskSlotsPerNode": pool.spec["taskSlotsPerNode"],
        }
        for name, value in history.items():
            pool.samples.setdefault(name, deque(maxlen=SAMPLES_KEPT)).append(Sample(now, value))
        for name, value in single.items():
            pool.samples[name] = deque([Sample(now, value)])
        if pool.autoscale_due_at:
            pool.sample_due_at = now + SAMPLE_INTERVAL
            self._is_due(pool, pool.sample_due_at, now)


def _staying(pool: Pool, *, dedicated: bool) -> list[Node]:
    return [node for node in pool.nodes.values() if node.dedicated == dedicated and node.state != "leavingpool"]


def _resize_stopped(kind: str) -> Json:
    message = f"Desired number of {kind} nodes could not be allocated due to a stop resize operation"
    return {"code": "ResizeStopped", "message": message}
