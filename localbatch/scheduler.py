"""Who decides: what a tick does, and what a request means for the records.

No threads, no clock, no processes: every function takes the instant it happens at, changes records through their
tables of states, and leaves actions in the store's outbox for `tick` to hand out. A test calls `tick` with the
instants it likes and looks.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from localbatch import autoscale, states
from localbatch.models import (
    Action,
    Chore,
    Execution,
    Job,
    Json,
    KillRun,
    Node,
    Pool,
    RemoveFiles,
    Report,
    Run,
    StartRun,
    Stated,
    Task,
)
from localbatch.store import Store, key_of
from localbatch.wire import expiry, new_node_id, read_duration, timestamp

SAMPLE_INTERVAL = timedelta(seconds=30)
"""How often autoscale variables are sampled. Source: "Create an automatic scaling formula": every 30 seconds."""

SAMPLES_KEPT = 2880
"""Samples of a variable that are remembered: a day of them."""

SCHEDULABLE = frozenset({"idle", "running"})
RUNS_OUT = frozenset({"active", "disabling", "disabled", "enabling"})
"""States of a job in which its wall clock matters."""
PASSING = {"enabling": "enabled", "terminating": "terminated", "deleting": ""}
"""States of a job that end by themselves, and the event that ends them."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long transitional states last, in seconds."""

    allocating: float = 0.0
    creating: float = 0.0
    starting: float = 0.0
    rebooting: float = 0.0
    leaving: float = 0.0
    deleting: float = 0.0
    job: float = 0.0
    """Disabling, enabling, terminating and deleting a job."""


PACES = {
    "instant": Pace(),
    "fast": Pace(allocating=0.1, creating=0.1, starting=0.1, rebooting=0.2, leaving=0.1, deleting=0.1, job=0.1),
    "real": Pace(allocating=20.0, creating=10.0, starting=35.0, rebooting=60.0, leaving=20.0, deleting=20.0, job=5.0),
}
"""Source of `real`: 10 s creating and 35 s starting were recorded on the service; the others are of that order."""

_ENDED = {"category": "usererror", "code": "TaskEnded"}
USER_ENDED: Json = {**_ENDED, "message": "Task was ended by user request"}
JOB_ENDED: Json = {**_ENDED, "message": "Task was ended because its job ended"}
NODE_ENDED: Json = {**_ENDED, "message": "Task was ended because its node was taken away"}
WALL_CLOCK_ENDED: Json = {**_ENDED, "message": "Task was ended because it exceeded its maximum wall clock time"}
EXIT_CODE_FAILURE: Json = {
    "category": "usererror",
    "code": "FailureExitCode",
    "message": "The task exited with an exit code representing a failure",
    "details": [
        {"name": "Message", "value": "The task process exited with an unexpected exit code"},
        {"name": "AdditionalErrorCode", "value": "FailureExitCode"},
    ],
}


class Scheduler:
    """The decisions about the records of one store."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace
        self._wake_at: datetime | None = None
        self._has_moved = False

    def tick(self, now: datetime) -> tuple[Sequence[Action], datetime | None]:
        """Let everything happen that is due; return what to do, and when the next tick is due if nothing else happens."""
        store = self._store
        self._wake_at, self._has_moved = None, False
        while store.reports:
            self._settle(store.reports.popleft(), now)
        for run in list(store.runs.values()):
            if run.expires_at and self._is_due(run.expires_at, now) and run.id in store.runs:
                self._expire(run, now)
        for job in list(store.jobs.values()):
            self._tick_job(job, now)
        for pool in list(store.pools.values()):
            self._tick_pool(pool, now)
        self._assign(now)
        actions, store.outbox = store.outbox, []
        # One thing leads to the next: after a tick that moved something, another is due at once.
        return actions, now if self._has_moved else self._wake_at

    def _is_due(self, at: datetime, now: datetime) -> bool:
        """Whether an instant has come; if it has not, the next tick is due then at the latest."""
        if at <= now:
            return True
        self._wake_at = min(at, self._wake_at or at)
        return False

    def _move(self, record: Stated, table: states.Table, event: str, now: datetime) -> None:
        record.move(table, event, now)
        self._has_moved = True

    def _has_lasted(self, record: Stated, seconds: float, now: datetime) -> bool:
        return self._is_due(record.state_at + timedelta(seconds=seconds), now)

    # Pools and their nodes.

    def _tick_pool(self, pool: Pool, now: datetime) -> None:
        if pool.autoscale_due_at:
            self._tick_autoscale(pool, now)
        for node in list(pool.nodes.values()):
            self._tick_node(pool, node, now)
        self._tick_allocation(pool, now)
        if pool.state == "deleting" and not pool.nodes and self._has_lasted(pool, self._pace.deleting, now):
            del self._store.pools[key_of(pool.id)]

    def _tick_allocation(self, pool: Pool, now: datetime) -> None:
        allocation = pool.allocation
        if allocation.state == "steady" or not self._has_lasted(allocation, self._pace.allocating, now):
            return
        if allocation.state == "stopping":
            pool.resize_errors = [_resize_stopped("dedicated"), _resize_stopped("low priority")]
            self._move(allocation, states.ALLOCATION, "stopped", now)
            return
        for dedicated, target in ((True, pool.target_dedicated), (False, pool.target_low_priority)):
            staying = [n for n in pool.nodes.values() if n.dedicated == dedicated and n.state != "leavingpool"]
            for _ in range(target - len(staying)):
                self._add_node(pool, dedicated=dedicated, now=now)
            # Nodes that do nothing leave first; of those, the newest.
            for node in sorted(staying, key=lambda node: (len(node.tasks), -node.allocated_at.timestamp()))[
                : max(0, len(staying) - target)
            ]:
                self._move(node, states.NODE, "leave", now)
                self._vacate(node, pool.deallocation_option, now)
        if not any(node.state == "leavingpool" for node in pool.nodes.values()):
            self._move(allocation, states.ALLOCATION, "allocated", now)

    def _add_node(self, pool: Pool, *, dedicated: bool, now: datetime) -> None:
        node = Node(
            id=new_node_id(dedicated=dedicated),
            pool_id=pool.id,
            dedicated=dedicated,
            slots=pool.spec["taskSlotsPerNode"],
            state="creating",
            state_at=now,
            allocated_at=now,
        )
        pool.nodes[key_of(node.id)] = node

    def _tick_node(self, pool: Pool, node: Node, now: datetime) -> None:
        pace = self._pace
        if node.state in SCHEDULABLE or node.tasks:
            return
        if (node.state == "creating" and self._has_lasted(node, pace.creating, now)) or (
            node.state == "rebooting" and self._has_lasted(node, pace.rebooting, now)
        ):
            self._move(node, states.NODE, "booted", now)
            node.booted_at = now
        elif node.state == "starting" and self._has_lasted(node, pace.starting, now):
            spec = pool.spec.get("startTask")
            if spec:
                node.start_task = Chore(spec=spec, state="running", state_at=now)
                self._start_chore(node, node.start_task, None, now)
            self._move(node, states.NODE, "start_task_started" if spec and spec["waitForSuccess"] else "ready", now)
        elif node.state == "leavingpool" and self._has_lasted(node, pace.leaving, now):
            del pool.nodes[key_of(node.id)]
            self._store.outbox.append(RemoveFiles(node=node, directory=""))

    def _vacate(self, node: Node, option: str, now: datetime) -> None:
        """End or requeue what runs on a node that goes down; with any other option it may finish first."""
        for run in [run for run in self._store.runs.values() if run.node is node]:
            if isinstance(run.owner, Chore):
                self._kill(run)
                self._end_chore(run.owner, NODE_ENDED, now)
        for task in list(node.tasks.values()):
            job = self._store.jobs[task.key[0]]
            if option == "terminate":
                self._end(job, task, NODE_ENDED, now)
            elif option == "requeue" or task.state == "preparing":
                self._requeue(job, task, now, lost=True)

    def resize(self, pool: Pool, dedicated: int, low_priority: int, option: str, now: datetime) -> None:
        """Begin a resize; the pool's allocation must be steady, or be at its first."""
        pool.target_dedicated, pool.target_low_priority = dedicated, low_priority
        pool.deallocation_option = option
        pool.resize_errors = []
        self.touch(pool, now)
        if pool.allocation.state == "steady":
            self._move(pool.allocation, states.ALLOCATION, "resize", now)

    def stop_resize(self, pool: Pool, now: datetime) -> None:
        """Begin to stop a resize."""
        self._move(pool.allocation, states.ALLOCATION, "stop", now)
        self.touch(pool, now)

    def delete_pool(self, pool: Pool, now: datetime) -> None:
        """Begin to delete a pool: it is resized to nothing, then it is gone."""
        self._move(pool, states.POOL, "delete", now)
        pool.target_dedicated = pool.target_low_priority = 0
        pool.deallocation_option = "requeue"
        pool.autoscale_due_at = None
        self._move(pool.allocation, states.ALLOCATION, "empty", now)

    def reboot(self, node: Node, option: str, now: datetime) -> None:
        """Begin to reboot a node."""
        self._move(node, states.NODE, "reboot", now)
        self._vacate(node, option, now)
        node.preparations = {
            key: chore
            for key, chore in node.preparations.items()
            if chore.execution.failure or not chore.spec["rerunOnNodeRebootAfterSuccess"]
        }

    def touch(self, record: Pool | Job, now: datetime) -> None:
        """Give a changed record its new etag."""
        record.etag, record.modified_at = self._store.new_etag(), now

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
        pool.autoscale_due_at = pool.sample_due_at = None
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

    def _tick_autoscale(self, pool: Pool, now: datetime) -> None:
        if pool.sample_due_at and self._is_due(pool.sample_due_at, now):
            self._sample(pool, now)
        # A pool is not evaluated while it is resized, but for the first time: its creation waits for its targets.
        settled = pool.allocation.state == "steady" or pool.autoscale_run is None
        if not settled or not pool.autoscale_due_at or not self._is_due(pool.autoscale_due_at, now):
            return
        evaluation, pool.autoscale_run = self.evaluate(pool, pool.spec["autoScaleFormula"], now)
        pool.autoscale_due_at = now + read_duration(pool.spec["autoScaleEvaluationInterval"])
        self._is_due(pool.autoscale_due_at, now)
        if not evaluation:
            return
        dedicated, low_priority = evaluation.target_dedicated_nodes, evaluation.target_low_priority_nodes
        targets = (
            pool.target_dedicated if dedicated is None else dedicated,
            pool.target_low_priority if low_priority is None else low_priority,
        )
        if targets != (pool.target_dedicated, pool.target_low_priority):
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
            "PreemptedNodeCount": 0,
            "TaskSlotsPerNode": pool.spec["taskSlotsPerNode"],
        }
        for name, value in history.items():
            pool.samples.setdefault(name, deque(maxlen=SAMPLES_KEPT)).append(autoscale.Sample(now, value))
        for name, value in single.items():
            pool.samples[name] = deque([autoscale.Sample(now, value)])
        pool.sample_due_at = now + SAMPLE_INTERVAL
        self._is_due(pool.sample_due_at, now)

    # Jobs.

    def _tick_job(self, job: Job, now: datetime) -> None:
        if job.state in RUNS_OUT and job.expires_at and self._is_due(job.expires_at, now):
            self.terminate_job(job, "MaxWallClockTimeExpiry", now)
        if job.state == "active":
            unfinished = job.task_counts.active + job.task_counts.running
            if job.spec["onAllTasksComplete"] == "terminatejob" and not unfinished:
                self.terminate_job(job, "AllTasksComplete", now)
        elif job.state == "disabling":
            # Whoever disables a job may have it wait for what runs.
            if not job.task_counts.running and self._has_lasted(job, self._pace.job, now):
                self._move(job, states.JOB, "disabled", now)
        elif job.state in PASSING and self._has_lasted(job, self._pace.job, now):
            self._finish_job_transition(job, now)

    def _finish_job_transition(self, job: Job, now: datetime) -> None:
        if job.state == "deleting":
            self._remove_job(job)
            return
        self._move(job, states.JOB, PASSING[job.state], now)
        if job.state == "completed":
            job.ended_at = now

    def terminate_job(self, job: Job, reason: str | None, now: datetime) -> None:
        """Begin to terminate a job: what runs is ended, what waits will wait for ever."""
        self._move(job, states.JOB, "terminate", now)
        job.terminate_reason = reason
        self.touch(job, now)
        self._end_job_tasks(job, JOB_ENDED, now)

    def delete_job(self, job: Job, now: datetime) -> None:
        """Begin to delete a job and its Batch tasks."""
        self._move(job, states.JOB, "delete", now)
        self.touch(job, now)
        self._end_job_tasks(job, JOB_ENDED, now)

    def disable_job(self, job: Job, option: str, now: datetime) -> None:
        """Begin to disable a job; what runs is requeued, terminated, or waited for."""
        self._move(job, states.JOB, "disable", now)
        self.touch(job, now)
        if option == "terminate":
            self._end_job_tasks(job, USER_ENDED, now)
        elif option == "requeue":
            for task in self._placed_tasks(job):
                self._requeue(job, task, now, lost=True)

    def enable_job(self, job: Job, now: datetime) -> None:
        """Begin to enable a job."""
        self._move(job, states.JOB, "enable", now)
        self.touch(job, now)

    def _nodes_of(self, job: Job) -> Iterable[Node]:
        pool = self._store.pools.get(key_of(job.pool_id))
        return pool.nodes.values() if pool else ()

    def _placed_tasks(self, job: Job) -> list[Task]:
        return [task for node in self._nodes_of(job) for task in node.tasks.values() if task.key[0] == job.key]

    def _end_job_tasks(self, job: Job, failure: Json, now: datetime) -> None:
        for task in self._placed_tasks(job):
            self._end(job, task, failure, now)
        for run in [run for run in self._store.runs.values() if run.job is job]:
            self._kill(run)
            if isinstance(run.owner, Chore):
                self._end_chore(run.owner, failure, now)

    def _remove_job(self, job: Job) -> None:
        for node in self._nodes_of(job):
            node.preparations.pop(job.key, None)
            self._store.outbox.append(RemoveFiles(node=node, directory=f"workitems/{job.id}"))
        del self._store.jobs[job.key]

    # Batch tasks.

    def _assign(self, now: datetime) -> None:
        queues: dict[str, list[Job]] = defaultdict(list)
        for job in self._store.jobs.values():
            if job.state == "active" and job.waiting:
                queues[key_of(job.pool_id)].append(job)
        for pool_key, jobs in queues.items():
            pool = self._store.pools.get(pool_key)
            if not pool or pool.state != "active":
                continue
            free = [node for node in pool.nodes.values() if node.state in SCHEDULABLE and node.slots_free]
            pack = pool.spec["taskSchedulingPolicy"]["nodeFillType"].lower() == "pack"
            for job in sorted(jobs, key=lambda job: -int(job.spec["priority"])):
                self._assign_job(job, free, pack=pack, now=now)

    def _assign_job(self, job: Job, free: list[Node], *, pack: bool, now: datetime) -> None:
        refused: int | None = None
        limit = job.spec["maxParallelTasks"]
        for task in list(job.waiting.values()):
            if not free or 0 <= limit <= job.task_counts.running:
                return
            if refused is not None and task.slots >= refused:
                continue
            fitting = [node for node in free if node.slots_free >= task.slots and not _is_ineligible(node, job)]
            if not fitting:
                refused = task.slots
                continue
            # A Batch task that is retried goes back to its node, where its files are.
            choice = min if pack else max
            node = task.node if task.node in fitting else choice(fitting, key=lambda node: node.slots_free)
            self._place(job, task, node, now)
            if not node.slots_free:
                free.remove(node)

    def _place(self, job: Job, task: Task, node: Node, now: datetime) -> None:
        node.tasks[task.key] = task
        node.slots_used += task.slots
        task.node = node
        if node.state == "idle":
            self._move(node, states.NODE, "occupied", now)
        spec = job.spec.get("jobPreparationTask")
        if spec and job.key not in node.preparations:
            chore = node.preparations[job.key] = Chore(spec=spec, state="running", state_at=now)
            self._start_chore(node, chore, job, now)
        if spec and spec["waitForSuccess"] and node.preparations[job.key].state == "running":
            self._move_task(job, task, "prepare", now)
        else:
            self._start_task(job, task, node, now)

    def _start_task(self, job: Job, task: Task, node: Node, now: datetime) -> None:
        task.execution.started_at = now
        self._move_task(job, task, "start", now)
        common = job.spec.get("commonEnvironmentSettings", ())
        self._start_run(node, task, job, task.spec, common, _task_directory(job, task.id), now)

    def _start_run(
        self,
        node: Node,
        owner: Task | Chore,
        job: Job | None,
        spec: Json,
        common: Iterable[Json],
        directory: str,
        now: datetime,
    ) -> None:
        limit = spec.get("constraints", {}).get("maxWallClockTime")
        run = Run(
            id=self._store.new_run_id(),
            node=node,
            owner=owner,
            job=job,
            expires_at=expiry(now, limit) if limit else None,
        )
        if run.expires_at:
            self._is_due(run.expires_at, now)
        self._store.runs[run.id] = run
        environment = {s["name"]: s.get("value") or "" for s in (*common, *spec.get("environmentSettings", ()))}
        if job:
            names = {"AZ_BATCH_JOB_ID": job.id, "AZ_BATCH_TASK_ID": owner.id if isinstance(owner, Task) else spec["id"]}
            environment = names | environment
        action = StartRun(
            run_id=run.id,
            node=node,
            directory=directory,
            preparation_directory=_preparation_directory(job),
            command_line=spec["commandLine"],
            environment=environment,
            resource_files=spec.get("resourceFiles", ()),
            output_files=spec.get("outputFiles", ()),
        )
        self._store.outbox.append(action)

    def _settle(self, report: Report, now: datetime) -> None:
        run = self._store.runs.pop(report.run_id, None)
        if not run:
            return  # It was killed: its end is on record already.
        if isinstance(run.owner, Chore):
            self._settle_chore(run, run.owner, report, now)
            return
        task, job = run.owner, self._store.jobs[run.owner.key[0]]
        execution = task.execution
        run.node.tasks_run += 1
        run.node.tasks_succeeded += report.exit_code == 0
        if report.exit_code and _may_retry(execution, task.max_retries):
            _count_retry(execution, now)
            self._release(task, now)
            self._move_task(job, task, "retry", now)
            job.waiting.move_to_end(task.key[1], last=False)
            return
        failure = EXIT_CODE_FAILURE if report.exit_code else report.failure
        self._end(job, task, failure, now, exit_code=report.exit_code)

    def _end(self, job: Job, task: Task, failure: Json | None, now: datetime, *, exit_code: int | None = None) -> None:
        self._move_task(job, task, "end", now, failure=failure)
        task.execution.ended_at, task.execution.exit_code = now, exit_code
        self._release(task, now)

    def _release(self, task: Task, now: datetime) -> None:
        """Take a Batch task off its node."""
        for run in [run for run in self._store.runs.values() if run.owner is task]:
            self._kill(run)
        node = task.node
        if not node or node.tasks.pop(task.key, None) is None:
            return
        node.slots_used -= task.slots
        node.recent_tasks.append(task)
        if node.state == "running" and not node.tasks:
            self._move(node, states.NODE, "drained", now)

    def _requeue(self, job: Job, task: Task, now: datetime, *, lost: bool) -> None:
        self._move_task(job, task, "requeue", now)
        self._release(task, now)
        job.waiting.move_to_end(task.key[1], last=False)
        task.node = task.execution.started_at = None
        if lost:
            task.execution.requeue_count += 1
            task.execution.last_requeue_at = now

    def _move_task(self, job: Job, task: Task, event: str, now: datetime, *, failure: Json | None = None) -> None:
        """Let `event` happen to a Batch task, and keep its job's totals and queue right."""
        states.advance(states.TASK, task.state, event)  # Raises before anything has changed.
        job.count(task, -1)
        task.execution.failure = failure
        self._move(task, states.TASK, event, now)
        job.count(task, 1)
        if task.state == "active":
            job.waiting[task.key[1]] = task
        else:
            job.waiting.pop(task.key[1], None)

    def _kill(self, run: Run) -> None:
        del self._store.runs[run.id]
        self._store.outbox.append(KillRun(run_id=run.id))

    def _expire(self, run: Run, now: datetime) -> None:
        if isinstance(run.owner, Task):
            self._end(self._store.jobs[run.owner.key[0]], run.owner, WALL_CLOCK_ENDED, now)
        else:
            self._kill(run)
            self._finish_chore(run, run.owner, WALL_CLOCK_ENDED, now)

    def terminate_task(self, job: Job, task: Task, now: datetime) -> None:
        """End a Batch task at a user's request."""
        self._end(job, task, USER_ENDED, now)

    def reactivate_task(self, job: Job, task: Task, now: datetime) -> None:
        """Let a Batch task that failed run again, as if it had not."""
        self._move_task(job, task, "reactivate", now)
        task.execution = Execution(requeue_count=task.execution.requeue_count)
        task.node = None

    def delete_task(self, job: Job, task: Task, now: datetime) -> None:
        """Delete a Batch task and its files."""
        self._release(task, now)
        if task.node:
            self._store.outbox.append(RemoveFiles(node=task.node, directory=_task_directory(job, task.id)))
        self._store.remove_task(job, task)

    # Start tasks and job preparation tasks.

    def _start_chore(self, node: Node, chore: Chore, job: Job | None, now: datetime) -> None:
        chore.execution.started_at = now
        common = job.spec.get("commonEnvironmentSettings", ()) if job else ()
        directory = _preparation_directory(job) or "startup"
        self._start_run(node, chore, job, chore.spec, common, directory, now)

    def _settle_chore(self, run: Run, chore: Chore, report: Report, now: datetime) -> None:
        limits = chore.spec.get("constraints", chore.spec)
        if report.exit_code and _may_retry(chore.execution, limits["maxTaskRetryCount"]):
            _count_retry(chore.execution, now)
            self._move(chore, states.CHORE, "retry", now)
            self._start_chore(run.node, chore, run.job, now)
            return
        chore.execution.exit_code = report.exit_code
        self._finish_chore(run, chore, EXIT_CODE_FAILURE if report.exit_code else report.failure, now)

    def _finish_chore(self, run: Run, chore: Chore, failure: Json | None, now: datetime) -> None:
        self._end_chore(chore, failure, now)
        node = run.node
        if not run.job:
            if node.state == "waitingforstarttask":
                self._move(node, states.NODE, "start_task_failed" if failure else "ready", now)
            return
        for task in [task for task in node.tasks.values() if task.key[0] == run.job.key and task.state == "preparing"]:
            if failure:
                self._requeue(run.job, task, now, lost=False)
            else:
                self._start_task(run.job, task, node, now)

    def _end_chore(self, chore: Chore, failure: Json | None, now: datetime) -> None:
        self._move(chore, states.CHORE, "end", now)
        chore.execution.failure = failure
        chore.execution.ended_at = now


def _task_directory(job: Job, task_id: str) -> str:
    return f"workitems/{job.id}/job-1/{task_id}"


def _preparation_directory(job: Job | None) -> str | None:
    if not job or "jobPreparationTask" not in job.spec:
        return None
    return _task_directory(job, job.spec["jobPreparationTask"]["id"])


def _is_ineligible(node: Node, job: Job) -> bool:
    chore = node.preparations.get(job.key)
    return bool(chore and chore.execution.failure and chore.spec["waitForSuccess"])


def _may_retry(execution: Execution, max_retries: int) -> bool:
    return max_retries < 0 or execution.retry_count < max_retries


def _count_retry(execution: Execution, now: datetime) -> None:
    execution.retry_count += 1
    execution.last_retry_at = now


def _resize_stopped(kind: str) -> Json:
    message = f"Desired number of {kind} nodes could not be allocated due to a stop resize operation"
    return {"code": "ResizeStopped", "message": message}
