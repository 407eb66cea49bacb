"""Who decides: what a tick does.

No threads, no clock, no processes: every function takes the instant it happens at, changes records through their
tables of states, and leaves actions in the store's outbox for `tick` to hand out. A test calls `tick` with the
instants it likes and looks.

The rules stand in layers, each of which knows those before it: agenda, task_rules, node_rules, pool_rules, job_rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from localbatch.account.queues import EXCLUSIVE
from localbatch.account.records import Action, AllocationFailure, Job, Node, Pool, Run, Stated, Task
from localbatch.account.store import key_of
from localbatch.rules.agenda import PACES, Pace
from localbatch.rules.jobs import JobRules
from localbatch.rules.nodes import is_ineligible

__all__ = ["PACES", "AllocationFailure", "Pace", "Scheduler"]

_ANY: Final = EXCLUSIVE + 1
"""More slots than any Batch task needs."""


class Scheduler(JobRules):
    """The decisions about the records of one store."""

    def tick(self, now: datetime) -> tuple[Sequence[Action], datetime | None]:
        """Let everything happen that is due; return what to do, and when the next tick is due if nothing else happens."""
        store = self._store
        for run_id in list(self._held_reports):
            if not self._is_endless(store.runs[run_id]):
                store.reports.append(self._held_reports.pop(run_id))
        for _ in range(len(store.reports)):
            self._settle(store.reports.popleft(), now)
        self._look_at_stalled_pools()
        for record in self._take_due(now):
            self._look_at(record, now)
        self._assign(now)
        actions, store.outbox = store.outbox, []
        # One thing leads to the next: after a tick that moved something, another is due at once.
        return actions, now if store.changed or store.reports else self._next_due()

    def _look_at(self, record: Stated | Run, now: datetime) -> None:
        if isinstance(record, Node):
            self._look_at_node(record, now)
        elif isinstance(record, Job):
            self._look_at_job(record, now)
        elif isinstance(record, Run):
            self._expire(record, now)
        elif isinstance(record, Task):
            self._look_at_task(record, now)
        elif isinstance(record, Pool):
            self._look_at_pool(record, now)

    # Which Batch task starts where.

    def _assign(self, now: datetime) -> None:
        unassigned, self._store.unassigned = self._store.unassigned, set()
        for pool_key in unassigned:
            pool = self._store.pools.get(pool_key)
            if not pool or pool.state != "active" or not pool.free:
                continue
            jobs = [
                job
                for job in self._store.jobs.values()
                if job.state == "active" and job.waiting and key_of(job.pool_id) == pool_key
            ]
            for job in sorted(jobs, key=lambda job: -int(job.spec["priority"])):
                self._assign_job(job, pool, now)

    def _assign_job(self, job: Job, pool: Pool, now: datetime) -> None:
        limit, below = job.spec["maxParallelTasks"], _ANY
        while pool.free and not 0 <= limit <= job.task_counts.running:
            task = job.waiting.head(below)
            if not task:
                return
            node = self._choose(task, job, pool)
            if node:
                self._place(job, task, node, now)
            else:  # What needs as much or more will find no place either.
                below = EXCLUSIVE if task.is_exclusive else task.slots

    def _choose(self, task: Task, job: Job, pool: Pool) -> Node | None:
        # A Batch task that is retried goes back to its node, where its files are; a wish comes next.
        wish = (task.spec.get("affinityInfo") or {}).get("affinityId", "")
        wished = pool.nodes.get(key_of(wish.rpartition(":")[2]))
        for node in (task.node, wished):
            if node and node.slots_free and self._pool_of(node) is pool and _fits(task, job, node):
                return node
        fullest = pool.spec["taskSchedulingPolicy"]["nodeFillType"].lower() == "pack"
        candidates = pool.free.candidates(1 if task.is_exclusive else task.slots, fullest=fullest)
        return next((node for node in candidates if _fits(task, job, node)), None)

    def _place(self, job: Job, task: Task, node: Node, now: datetime) -> None:
        node.tasks[task.key] = job.placed[task.key[1]] = task
        task.slots_held = node.slots if task.is_exclusive else task.slots
        node.slots_used += task.slots_held
        task.node = node
        if node.state == "idle":
            self._move_node(node, "occupied", now)
        else:
            self._free(node)
        chore = self._prepare(job, node, now)
        if chore and chore.state == "running" and chore.spec["waitForSuccess"]:
            self._move_task(job, task, "prepare", now)
        else:
            self._start_task(job, task, node, now)


def _fits(task: Task, job: Job, node: Node) -> bool:
    if task.is_exclusive and node.tasks:
        return False
    if not node.dedicated and task.spec.get("allowLowPriorityNode") is False:
        return False
    return node.slots_free >= (1 if task.is_exclusive else task.slots) and not is_ineligible(node, job)
