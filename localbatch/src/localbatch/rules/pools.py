"""The rules of pools: resizes, and the autoscale formulas that request them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from localbatch.account import states
from localbatch.account.records import SCHEDULABLE, Node, Pool, Sample
from localbatch.account.specs import Json
from localbatch.account.store import Store, key_of
from localbatch.account.vm_sizes import cores_of
from localbatch.rules import autoscale
from localbatch.rules.agenda import Agenda
from localbatch.rules.nodes import NodeRules
from localbatch.rules.standing_faults import StandingFaults, matching
from localbatch.wire import read_duration, timestamp

# https://learn.microsoft.com/azure/batch/batch-automatic-scaling: variables are sampled every 30 seconds.
SAMPLE_INTERVAL = autoscale.SAMPLE_PERIOD
# One day of samples per variable.
MAX_SAMPLES = 2880

# The errors of a resize that the core quota ends early, by whether dedicated nodes are missing.
# https://learn.microsoft.com/troubleshoot/azure/hpc/batch/azure-batch-pool-resizing-failure
CORE_QUOTA_REACHED: Mapping[bool, Json] = {
    True: {"code": "AccountCoreQuotaReached", "message": "The specified account has reached core quota"},
    False: {
        "code": "AccountLowPriorityCoreQuotaReached",
        "message": "The specified account has reached low priority core quota",
    },
}


@dataclass(frozen=True)
class PoolRules:
    """Resizes, scales and deletes pools."""

    store: Store
    agenda: Agenda
    nodes: NodeRules
    faults: StandingFaults
    _stalled: set[str] = field(default_factory=set)
    """Keys of the pools whose resize stalls because of a fault."""

    def review(self, pool: Pool, now: datetime) -> None:
        """Continue the autoscaling, the resize and the deletion of a pool."""
        if self.store.pools.get(key_of(pool.id)) is not pool:
            return
        if pool.autoscale_due_at:
            self._scale(pool, now)
        self._allocate(pool, now)
        if pool.state == "deleting" and not pool.nodes and self.agenda.has_lasted(pool, self.agenda.pace.deleting, now):
            del self.store.pools[key_of(pool.id)]

    def mark_stalled_pools(self) -> None:
        """Review the pools again whose resize stalled in the last tick."""
        for pool_id in self._stalled:
            pool = self.store.pools.get(pool_id)
            if pool:
                self.store.mark(pool)
        self._stalled.clear()

    def _move_allocation(self, pool: Pool, event: str, now: datetime) -> None:
        pool.allocation.move(states.ALLOCATION, event, now)
        self.store.mark(pool)

    def _allocate(self, pool: Pool, now: datetime) -> None:
        allocation = pool.allocation
        if allocation.state == "steady" or not self.agenda.has_lasted(
            pool, self.agenda.pace.allocating, now, since=allocation.state_at
        ):
            return
        if allocation.state == "stopping":
            pool.resize_errors = [_resize_stopped("dedicated"), _resize_stopped("low priority")]
            self._move_allocation(pool, "stopped", now)
            return
        fault = matching(self.faults.allocation_failures, pool.id)
        # Dedicated and spot nodes are allocated independently.
        kinds = ((True, pool.target_dedicated), (False, pool.target_low_priority))
        wanting = any(target > len(_staying(pool, dedicated=dedicated)) for dedicated, target in kinds)
        if wanting and fault:
            if fault.stalls and not self._has_timed_out(pool, now):
                self._stalled.add(key_of(pool.id))
            else:
                self._fail_allocation(pool, [{"code": fault.code, "message": fault.message}], now)
            return
        shortages = [CORE_QUOTA_REACHED[kind] for kind, target in kinds if not self._approach(pool, kind, target, now)]
        # A resize ends when the last node has left.
        if any(node.state == "leavingpool" for node in pool.nodes.values()):
            if pool.state != "deleting" and self._has_timed_out(pool, now):
                message = "Nodes could not be removed before the resize timeout"
                self._fail_allocation(pool, [{"code": "RemoveNodesFailed", "message": message}], now)
        elif shortages:
            self._fail_allocation(pool, shortages, now)
        else:
            self._move_allocation(pool, "allocated", now)

    def _approach(self, pool: Pool, dedicated: bool, target: int, now: datetime) -> bool:
        """Add nodes of one kind to a pool, or remove some. Return False if the core quota prevents the target."""
        staying = _staying(pool, dedicated=dedicated)
        missing = max(0, target - len(staying))
        allowed = min(missing, self._allowed_nodes(pool, dedicated=dedicated)) if missing else 0
        for _ in range(allowed):
            self.nodes.add(pool, dedicated=dedicated, now=now)
        # Idle nodes leave first, the newest before others.
        excess = max(0, len(staying) - target)
        if excess:
            staying.sort(key=lambda node: (len(node.tasks), -node.allocated_at.timestamp()))
            self._start_removal(staying[:excess], pool.deallocation_option, now)
        return allowed == missing

    def _allowed_nodes(self, pool: Pool, *, dedicated: bool) -> int:
        """Return the number of nodes that the core quota of the account allows to add."""
        quota = self.store.core_quotas[dedicated]
        if quota is None:
            return sys.maxsize
        pools = self.store.pools.values()
        used = sum(each.count_nodes(dedicated=dedicated) * cores_of(each.spec["vmSize"]) for each in pools)
        return max(0, quota - used) // cores_of(pool.spec["vmSize"])

    def _has_timed_out(self, pool: Pool, now: datetime) -> bool:
        return self.agenda.is_due(pool, pool.allocation.state_at + read_duration(pool.spec["resizeTimeout"]), now)

    def _fail_allocation(self, pool: Pool, reasons: list[Json], now: datetime) -> None:
        pool.resize_errors = reasons
        self._move_allocation(pool, "failed", now)

    def _start_removal(self, nodes: Iterable[Node], option: str, now: datetime) -> None:
        for node in nodes:
            self.nodes.leave(node, option, now)

    def resize(self, pool: Pool, dedicated: int, low_priority: int, option: str, now: datetime) -> None:
        """Start a resize. The allocation must be steady, unless this is the first resize of the pool."""
        pool.target_dedicated, pool.target_low_priority = dedicated, low_priority
        pool.deallocation_option = option
        pool.resize_errors = []
        self.agenda.touch(pool, now)
        if pool.allocation.state == "steady":
            self._move_allocation(pool, "resize", now)

    def stop_resize(self, pool: Pool, now: datetime) -> None:
        """Start to stop a resize."""
        self._move_allocation(pool, "stop", now)
        self.agenda.touch(pool, now)

    def remove_nodes(self, pool: Pool, nodes: Iterable[Node], option: str, now: datetime) -> None:
        """Start to remove nodes, and reduce the targets of the pool by their number."""
        leaving = [node for node in nodes if node.state != "leavingpool"]
        dedicated = sum(node.dedicated for node in leaving)
        self.resize(
            pool,
            max(0, pool.target_dedicated - dedicated),
            max(0, pool.target_low_priority - (len(leaving) - dedicated)),
            option,
            now,
        )
        self._start_removal(leaving, option, now)

    def delete(self, pool: Pool, now: datetime) -> None:
        """Start to delete a pool: it is resized to zero nodes first."""
        self.agenda.move(pool, states.POOL, "delete", now)
        pool.target_dedicated = pool.target_low_priority = 0
        pool.deallocation_option = "requeue"
        pool.autoscale_due_at = None
        for node in pool.nodes.values():
            if node.state == "leavingpool":
                self.nodes.vacate(node, "requeue", now)  # Its Batch tasks may no longer finish.
        self._move_allocation(pool, "empty", now)

    # Autoscale.

    def enable_autoscale(self, pool: Pool, now: datetime) -> None:
        """Start to evaluate the formula of a pool."""
        pool.spec["enableAutoScale"] = True
        pool.autoscale_due_at = pool.sample_due_at = now
        pool.autoscale_run = None
        self.agenda.touch(pool, now)

    def disable_autoscale(self, pool: Pool, now: datetime) -> None:
        """Stop to evaluate the formula of a pool, which keeps its size."""
        pool.spec["enableAutoScale"] = False
        pool.spec.pop("autoScaleFormula", None)
        pool.spec.pop("autoScaleEvaluationInterval", None)
        pool.autoscale_due_at = pool.sample_due_at = pool.autoscale_run = None
        self.agenda.touch(pool, now)

    def evaluate(self, pool: Pool, formula: str, now: datetime) -> tuple[autoscale.Evaluation | None, Json]:
        """Evaluate a formula for a pool.

        Returns:
            The evaluation, None if it failed, and the AutoScaleRun that clients see.
        """
        self._sample(pool, now)
        try:
            evaluation = autoscale.evaluate(
                formula, now, {name: tuple(samples) for name, samples in pool.samples.items()}
            )
        except autoscale.FormulaError as error:
            return None, {"timestamp": timestamp(now), "error": {"code": error.code, "message": error.message}}
        return evaluation, {"timestamp": timestamp(now), "results": evaluation.results}

    def _scale(self, pool: Pool, now: datetime) -> None:
        if pool.sample_due_at and self.agenda.is_due(pool, pool.sample_due_at, now):
            self._sample(pool, now)
        # During a resize, only the first evaluation takes place: it sets the targets of a new pool.
        settled = pool.allocation.state == "steady" or pool.autoscale_run is None
        if not settled or not pool.autoscale_due_at or not self.agenda.is_due(pool, pool.autoscale_due_at, now):
            return
        evaluation, pool.autoscale_run = self.evaluate(pool, pool.spec["autoScaleFormula"], now)
        pool.autoscale_due_at = now + read_duration(pool.spec["autoScaleEvaluationInterval"])
        self.agenda.is_due(pool, pool.autoscale_due_at, now)
        if not evaluation:
            return
        dedicated, low_priority = evaluation.target_dedicated_nodes, evaluation.target_low_priority_nodes
        targets = (
            pool.target_dedicated if dedicated is None else dedicated,
            pool.target_low_priority if low_priority is None else low_priority,
        )
        # Unchanged targets are applied again if the last resize failed.
        if targets != (pool.target_dedicated, pool.target_low_priority) or pool.resize_errors:
            self.resize(pool, *targets, evaluation.node_deallocation_option or "requeue", now)

    def _sample(self, pool: Pool, now: datetime) -> None:
        jobs = [job for job in self.store.jobs.values() if key_of(job.pool_id) == key_of(pool.id)]
        active = sum(job.task_counts.active for job in jobs if job.state == "active")
        running = sum(job.task_counts.running for job in jobs)
        usable = sum(node.state in SCHEDULABLE for node in pool.nodes.values())
        # Variables with a history; for the others the latest value is enough.
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
            pool.samples.setdefault(name, deque(maxlen=MAX_SAMPLES)).append(Sample(now, value))
        for name, value in single.items():
            pool.samples[name] = deque([Sample(now, value)])
        if pool.autoscale_due_at:
            pool.sample_due_at = now + SAMPLE_INTERVAL
            self.agenda.is_due(pool, pool.sample_due_at, now)


def _staying(pool: Pool, *, dedicated: bool) -> list[Node]:
    return [node for node in pool.nodes.values() if node.dedicated == dedicated and node.state != "leavingpool"]


def _resize_stopped(kind: str) -> Json:
    message = f"Desired number of {kind} nodes could not be allocated due to a stop resize operation"
    return {"code": "ResizeStopped", "message": message}
