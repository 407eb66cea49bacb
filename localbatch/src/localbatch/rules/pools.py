"""The rules of pools: resizes, and the autoscale formulas that request them."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from localbatch.account import states
from localbatch.account.images import mismatch
from localbatch.account.records import SCHEDULABLE, Node, Pool, Sample
from localbatch.account.specs import Json
from localbatch.account.store import Store, key_of
from localbatch.account.vm_sizes import cores_of, family_of
from localbatch.rules import autoscale
from localbatch.rules.agenda import Agenda
from localbatch.rules.nodes import NodeRules
from localbatch.rules.standing_faults import AllocationFailure, StandingFaults, error_of, matching
from localbatch.wire import read_duration, timestamp

# https://learn.microsoft.com/azure/batch/batch-automatic-scaling: variables are sampled every 30 seconds.
SAMPLE_INTERVAL = autoscale.SAMPLE_PERIOD
# One day of samples per variable.
MAX_SAMPLES = 2880

# The names of the kinds of nodes in error messages, by whether nodes are dedicated.
NODE_KINDS: Mapping[bool, str] = {True: "dedicated", False: "low priority"}

# The errors of a resize that the core quota ends early, by whether dedicated nodes are missing.
# https://learn.microsoft.com/troubleshoot/azure/hpc/batch/azure-batch-pool-resizing-failure
CORE_QUOTA_REACHED: Mapping[bool, Json] = {
    True: {"code": "AccountCoreQuotaReached", "message": "The specified account has reached core quota"},
    False: {
        "code": "AccountLowPriorityCoreQuotaReached",
        "message": "The specified account has reached low priority core quota",
    },
}
# Without nodes to add or remove, a resize takes 1 to 2 seconds instead of about 20. Recorded: azure-sdk-for-python,
# sdk/batch/azure-batch/tests/recordings, test_batch_update_pools.
WITHOUT_WORK = 0.1
FAMILY_QUOTA_REACHED = "AccountVMSeriesCoreQuotaReached"


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
        duration = self.agenda.pace.allocating * (1 if self._has_work(pool) else WITHOUT_WORK)
        if allocation.state == "steady" or not self.agenda.has_lasted(pool, duration, now, since=allocation.state_at):
            return
        if allocation.state == "stopping":
            pool.resize_errors = [
                _resize_stopped(kind)
                for dedicated, kind in NODE_KINDS.items()
                if pool.targets[dedicated] > len(_staying(pool, dedicated=dedicated))
            ]
            self._move_allocation(pool, "stopped", now)
            return
        shortages: list[Json] = []
        # Dedicated and spot nodes are allocated independently.
        for dedicated, target in pool.targets.items():
            is_short = target > len(_staying(pool, dedicated=dedicated))
            failure = self._failure(pool, dedicated=dedicated) if is_short else None
            if failure and failure.stalls and not self._has_timed_out(pool, now):
                self._stalled.add(key_of(pool.id))
                continue
            error = failure.error if failure else self._approach(pool, dedicated, target, now)
            if error and error not in shortages:
                shortages.append(error)
        if key_of(pool.id) in self._stalled:
            return
        # A resize ends when the last node has left.
        if any(node.state == "leavingpool" for node in pool.nodes.values()):
            if pool.state != "deleting" and self._has_timed_out(pool, now):
                message = "Nodes could not be removed before the resize timeout"
                self._fail_allocation(pool, [{"code": "RemoveNodesFailed", "message": message}], now)
        elif shortages:
            self._fail_allocation(pool, shortages, now)
        else:
            self._move_allocation(pool, "allocated", now)

    def _has_work(self, pool: Pool) -> bool:
        """Whether a resize adds or removes nodes, or a client stopped it."""
        sizes = {dedicated: len(_staying(pool, dedicated=dedicated)) for dedicated in pool.targets}
        return pool.allocation.state == "stopping" or sizes != pool.targets or sum(sizes.values()) < len(pool.nodes)

    def _failure(self, pool: Pool, *, dedicated: bool) -> AllocationFailure | None:
        """Return the reason why a pool gets no nodes of one kind, if there is one."""
        fault = matching(self.faults.allocation_failures[dedicated], pool.id)
        problem = mismatch(pool.spec)
        if fault or not problem:
            return fault
        # https://learn.microsoft.com/troubleshoot/azure/hpc/batch/azure-batch-pool-resizing-failure, scenario 2
        provider_error = json.dumps({"error": {"code": "BadRequest", "message": problem}}, indent=2)
        values = {"Provider Error Json": provider_error, "Provider Error Json Truncated": "False"}
        message = f"Desired number of {NODE_KINDS[dedicated]} nodes could not be allocated"
        return AllocationFailure(error_of("AllocationFailed", message, values))

    def _approach(self, pool: Pool, dedicated: bool, target: int, now: datetime) -> Json | None:
        """Add nodes of one kind to a pool, or remove some. Return an error if a core quota prevents the target."""
        staying = _staying(pool, dedicated=dedicated)
        missing = max(0, target - len(staying))
        allowed, error = self._allowed_nodes(pool, dedicated=dedicated) if missing else (0, None)
        for _ in range(min(missing, allowed)):
            self.nodes.add(pool, dedicated=dedicated, now=now)
        # Idle nodes leave first, the newest before others.
        excess = max(0, len(staying) - target)
        if excess:
            staying.sort(key=lambda node: (len(node.tasks), -node.allocated_at.timestamp()))
            self._start_removal(staying[:excess], pool.deallocation_option, now)
        return error if allowed < missing else None

    def _allowed_nodes(self, pool: Pool, *, dedicated: bool) -> tuple[int, Json | None]:
        """Return the number of nodes that the core quotas allow to add, and the error of the tightest one."""
        limits: list[tuple[int, Json | None]] = [(sys.maxsize, None)]
        quota = self.store.core_quotas[dedicated]
        if quota is not None:
            limits.append((quota - self._cores_in_use(dedicated=dedicated), CORE_QUOTA_REACHED[dedicated]))
        family = family_of(pool.spec["vmSize"])
        for name, cores in self.store.family_core_quotas.items():
            # The quotas of VM families do not count spot nodes: https://learn.microsoft.com/azure/batch/batch-quota-limit
            if dedicated and name.lower() == family:
                message = f"The specified account has reached VM series core quota for {name}"
                error = {"code": FAMILY_QUOTA_REACHED, "message": message}
                limits.append((cores - self._cores_in_use(dedicated=True, family=family), error))
        free, reached = min(limits, key=lambda limit: limit[0])
        return max(0, free) // cores_of(pool.spec["vmSize"]), reached

    def _cores_in_use(self, *, dedicated: bool, family: str | None = None) -> int:
        sizes = [(pool.spec["vmSize"], pool.count_nodes(dedicated=dedicated)) for pool in self.store.pools.values()]
        return sum(count * cores_of(size) for size, count in sizes if family in {None, family_of(size)})

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
        """Start to stop a resize, whose etag stays."""
        self._move_allocation(pool, "stop", now)

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
        # "Whenever autoscaling is turned on, [...] there are no sampled metrics available":
        # https://github.com/microsoft/ga4gh-tes, BatchPool.AutoPoolFormula
        if pool.sample_due_at is None:
            pool.samples.clear()
            pool.first_sample_at = now + timedelta(seconds=self.agenda.pace.first_sample)
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
            message = autoscale.MESSAGES.get(error.code, error.message)
            return None, _failed_run(pool, error_of(error.code, message, {"Message": error.message}), now)
        return evaluation, {"timestamp": timestamp(now), "results": evaluation.results}

    def _scale(self, pool: Pool, now: datetime) -> None:
        if pool.sample_due_at and self.agenda.is_due(pool, pool.sample_due_at, now):
            self._sample(pool, now)
        # During a resize, only the first evaluation takes place: it sets the targets of a new pool.
        settled = pool.allocation.state == "steady" or pool.autoscale_run is None
        if not settled or not pool.autoscale_due_at or not self.agenda.is_due(pool, pool.autoscale_due_at, now):
            return
        failure = matching(self.faults.autoscale_failures, pool.id)
        if failure and failure.fire():
            evaluation, pool.autoscale_run = None, _failed_run(pool, failure.error, now)
        else:
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
        is_sampled = pool.first_sample_at is None or now >= pool.first_sample_at
        for name, value in history.items() if is_sampled else ():
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


def _failed_run(pool: Pool, error: Json, now: datetime) -> Json:
    # Recorded from the service: the results of a failed evaluation are the present targets.
    targets = f"$TargetDedicatedNodes={pool.target_dedicated};$TargetLowPriorityNodes={pool.target_low_priority}"
    results = f"{targets};$NodeDeallocationOption={pool.deallocation_option}"
    return {"timestamp": timestamp(now), "results": results, "error": error}
