"""The scheduler: what a tick does.

It has no threads, clock or processes. Every method takes the current time, changes records according to the tables of
states, and leaves actions in the store's outbox for `tick` to return. A test calls `tick` at any instant, and looks at
the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from localbatch.account.queues import EXCLUSIVE
from localbatch.account.records import Action, Chore, Job, JobSchedule, Node, Pool, Run, Stated, Task
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda, Pace
from localbatch.rules.chores import ChoreRules, is_ineligible
from localbatch.rules.jobs import JobRules
from localbatch.rules.nodes import NodeRules
from localbatch.rules.pools import PoolRules
from localbatch.rules.runs import Runs
from localbatch.rules.schedules import ScheduleRules
from localbatch.rules.slots import NodeSlots
from localbatch.rules.standing_faults import StandingFaults
from localbatch.rules.tasks import TaskRules

# More slots than any Batch task needs.
_ANY: Final = EXCLUSIVE + 1


class Scheduler:
    """All rules about the records of one store.

    Attributes:
        agenda: The records that are due.
        faults: The standing faults, which the fault script sets.
        tasks, nodes, pools, jobs, schedules: The rules of each kind of record.
    """

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self.agenda = Agenda(store, pace)
        self.faults = StandingFaults()
        self._slots = NodeSlots(store, self.agenda)
        self._runs = Runs(store, self.agenda, self.faults)
        self.tasks = TaskRules(store, self.agenda, self._slots, self._runs)
        self._chores = ChoreRules(store, self.agenda, self._slots, self._runs, self.tasks)
        self.nodes = NodeRules(store, self.agenda, self._slots, self.tasks, self._chores)
        self.pools = PoolRules(store, self.agenda, self.nodes, self.faults)
        self.jobs = JobRules(store, self.agenda, self._slots, self._runs, self.tasks, self._chores, self.pools)
        self.schedules = ScheduleRules(store, self.agenda, self.jobs, self.pools)

    def tick(self, now: datetime) -> tuple[Sequence[Action], datetime | None]:
        """Do everything that is due.

        Returns:
            The actions for the nodes, and when the next tick is due if nothing else happens.
        """
        store = self._store
        self._runs.release_held_reports()
        for _ in range(len(store.reports)):
            report = store.reports.popleft()
            run = self._runs.finish(report)
            if run and isinstance(run.owner, Chore):
                self._chores.settle(run, run.owner, report, now)
            elif run and isinstance(run.owner, Task):
                self.tasks.settle(run, run.owner, report, now)
        self.pools.mark_stalled_pools()
        for record in self.agenda.pop_due(now):
            self._review(record, now)
        self._assign(now)
        actions, store.outbox = store.outbox, []
        # A change can cause further changes: after a tick that changed records, another is due at once.
        return actions, now if store.changed or store.reports else self.agenda.next_due()

    def _review(self, record: Stated | Run, now: datetime) -> None:
        if isinstance(record, Node):
            self.nodes.review(record, now)
        elif isinstance(record, Job):
            self.jobs.review(record, now)
            self.schedules.review_job(record)
        elif isinstance(record, JobSchedule):
            self.schedules.review(record, now)
        elif isinstance(record, Run):
            self._chores.review_run(record, now)
        elif isinstance(record, Task):
            self.tasks.review(record, now)
        elif isinstance(record, Pool):
            self.pools.review(record, now)

    # Which Batch task starts on which node.

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
            else:  # Batch tasks that need as many slots or more do not fit either.
                below = EXCLUSIVE if task.is_exclusive else task.slots

    def _choose(self, task: Task, job: Job, pool: Pool) -> Node | None:
        # A retried Batch task returns to its node, where its files are. Next comes its affinity.
        affinity = (task.spec.get("affinityInfo") or {}).get("affinityId", "")
        preferred = pool.nodes.get(key_of(affinity.rpartition(":")[2]))
        for node in (task.node, preferred):
            if node and node.slots_free and self._slots.pool_of(node) is pool and _fits(task, job, node):
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
            self._slots.move(node, "occupied", now)
        else:
            self._slots.update(node)
        chore = self._chores.prepare(job, node, now)
        if chore and chore.state == "running" and chore.spec["waitForSuccess"]:
            self.tasks.move(job, task, "prepare", now)
        else:
            self.tasks.start(job, task, node, now)


def _fits(task: Task, job: Job, node: Node) -> bool:
    if task.is_exclusive and node.tasks:
        return False
    if not node.dedicated and task.spec.get("allowLowPriorityNode") is False:
        return False
    return node.slots_free >= (1 if task.is_exclusive else task.slots) and not is_ineligible(node, job)
