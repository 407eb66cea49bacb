"""What happens to nodes, and to the tasks that belong to them: start, job preparation and job release tasks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from localbatch.account import states
from localbatch.account.records import (
    Chore,
    Job,
    Json,
    Node,
    Pool,
    RemoveFiles,
    Report,
    Run,
    Task,
    preparation_directory,
    task_directory,
)
from localbatch.account.store import key_of
from localbatch.rules.tasks import (
    EXIT_CODE_FAILURE,
    NODE_ENDED,
    WALL_CLOCK_ENDED,
    TaskRules,
    count_retry,
    may_retry_chore,
)
from localbatch.wire import new_node_id


class NodeRules(TaskRules):
    """Booting, maintaining and losing nodes."""

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
        self._store.mark(node)

    def _pool_of(self, node: Node) -> Pool | None:
        """Return the pool that a node is in, if it is still there."""
        pool = self._store.pools.get(key_of(node.pool_id))
        return pool if pool and pool.nodes.get(key_of(node.id)) is node else None

    def _move_node(self, node: Node, event: str, now: datetime) -> None:
        self._move(node, states.NODE, event, now)
        self._free(node)

    def _free(self, node: Node) -> None:
        """Note how many slots of a node are free, and have its pool assign Batch tasks if there are more."""
        pool = self._pool_of(node)
        if pool and pool.free.update(node, node.slots_free):
            self._store.unassigned.add(key_of(pool.id))

    def _look_at_node(self, node: Node, now: datetime) -> None:
        pool, pace = self._pool_of(node), self._pace
        if not pool:
            return
        if node.state == "idle" and node.scheduling == "disabled":
            self._move_node(node, "disable", now)
        steps: dict[str, tuple[float, Callable[[Pool, Node, datetime], None]]] = {
            "creating": (pace.creating, self._boot),
            "starting": (pace.starting, self._start_up),
            "rebooting": (pace.rebooting, self._boot),
            "reimaging": (pace.rebooting, self._boot),
            "deallocating": (pace.rebooting, self._deallocate),
            "preempted": (pace.preempted, self._recover),
            "leavingpool": (pace.leaving, self._remove_node),
        }
        seconds, step = steps.get(node.state, (0.0, None))
        # Batch tasks may have been allowed to finish before the node goes down.
        if step and not node.tasks and self._has_lasted(node, seconds, now):
            step(pool, node, now)

    def _boot(self, _pool: Pool, node: Node, now: datetime) -> None:
        if node.state == "reimaging":
            self._wipe(node)
        self._move_node(node, "booted", now)
        node.booted_at = now

    def _start_up(self, pool: Pool, node: Node, now: datetime) -> None:
        spec = pool.spec.get("startTask")
        node.start_task = None
        if spec:
            node.start_task = Chore(spec=spec, state="running", state_at=now)
            self._start_chore(node, node.start_task, None, "startup", now)
        self._move_node(node, "start_task_started" if spec and spec["waitForSuccess"] else "ready", now)

    def _deallocate(self, _pool: Pool, node: Node, now: datetime) -> None:
        self._wipe(node)
        self._move_node(node, "deallocated", now)

    def _remove_node(self, pool: Pool, node: Node, _now: datetime) -> None:
        self._wipe(node)
        pool.free.update(node, 0)
        del pool.nodes[key_of(node.id)]
        self._store.mark(pool)

    def _wipe(self, node: Node) -> None:
        """Forget what jobs have done on a node, along with all its files."""
        for key in node.preparations:
            job = self._store.jobs.get(key)
            if job:
                job.prepared.pop(node.id, None)
                self._store.mark(job)
        node.preparations.clear()
        node.releases.clear()
        self._store.outbox.append(RemoveFiles(node=node, directory=""))

    def _vacate(self, node: Node, option: str, now: datetime) -> None:
        """End or requeue what runs on a node that goes down; with any other option it may finish first."""
        for run in [run for run in node.runs.values() if isinstance(run.owner, Chore)]:
            self._kill(run)
            if isinstance(run.owner, Chore):
                self._end_chore(run.owner, NODE_ENDED, now)
            if run.job:
                self._store.mark(run.job)
        for task in list(node.tasks.values()):
            job = self._store.jobs[task.key[0]]
            if option == "terminate":
                self._end(job, task, NODE_ENDED, now)
            elif option == "requeue" or task.state == "preparing":
                self._requeue(job, task, now, lost=True)

    # What a user asks for.

    def maintain(self, node: Node, event: str, option: str, now: datetime) -> None:
        """Begin to reboot, reimage or deallocate a node."""
        self._move_node(node, event, now)
        self._vacate(node, option, now)
        if event == "reboot":
            node.preparations = {
                key: chore
                for key, chore in node.preparations.items()
                if chore.execution.failure != NODE_ENDED
                and (chore.execution.failure or not chore.spec["rerunOnNodeRebootAfterSuccess"])
            }

    def start_node(self, node: Node, now: datetime) -> None:
        """Begin to start a node that was deallocated."""
        self._move_node(node, "start", now)
        node.booted_at = now

    def disable_scheduling(self, node: Node, option: str, now: datetime) -> None:
        """Let no more Batch tasks start on a node; it is offline once none runs."""
        node.scheduling = "disabled"
        self._vacate_tasks(node, option, now)
        self._free(node)
        self._store.mark(node)

    def _vacate_tasks(self, node: Node, option: str, now: datetime) -> None:
        for task in list(node.tasks.values()):
            job = self._store.jobs[task.key[0]]
            if option == "terminate":
                self._end(job, task, NODE_ENDED, now)
            elif option == "requeue":
                self._requeue(job, task, now, lost=True)

    def enable_scheduling(self, node: Node, now: datetime) -> None:
        """Let Batch tasks start on a node again."""
        node.scheduling = "enabled"
        if node.state == "offline":
            self._move_node(node, "enable", now)
        self._free(node)

    # What goes wrong.

    def preempt_node(self, pool_id: str, node_id: str, now: datetime) -> None:
        """Take a node's machine away: what runs is requeued, what it had on disk is lost, and it stays in the pool.

        Raises:
            ServiceError: There is no such node.
            IllegalTransition: It cannot happen to the node now.
        """
        self._lose(self._store.node(pool_id, node_id), "preempt", now)

    def lose_node(self, pool_id: str, node_id: str, now: datetime) -> None:
        """Hear no more of a node; what runs there is requeued. Raises what preempt_node raises."""
        self._lose(self._store.node(pool_id, node_id), "lose", now)

    def make_node_unusable(self, pool_id: str, node_id: str, code: str, message: str, now: datetime) -> None:
        """Let a node break down, with an entry in its errors. Raises what preempt_node raises."""
        node = self._store.node(pool_id, node_id)
        self._lose(node, "break", now)
        node.errors = [{"code": code, "message": message}]

    def remove_node_abruptly(self, pool_id: str, node_id: str, now: datetime) -> None:
        """Let a node be gone, its files with it; what runs there is requeued. Raises what preempt_node raises."""
        pool, node = self._store.pool(pool_id), self._store.node(pool_id, node_id)
        if node.state != "leavingpool":
            self._move_node(node, "leave", now)
        self._vacate(node, "requeue", now)
        self._remove_node(pool, node, now)

    def recover_node(self, pool_id: str, node_id: str, now: datetime) -> None:
        """Give a node that was lost a new machine, under its old id. Raises what preempt_node raises."""
        self._recover(self._store.pool(pool_id), self._store.node(pool_id, node_id), now)

    def _lose(self, node: Node, event: str, now: datetime) -> None:
        self._move_node(node, event, now)
        self._vacate(node, "requeue", now)
        if event == "preempt":
            self._wipe(node)

    def _recover(self, _pool: Pool, node: Node, now: datetime) -> None:
        self._move_node(node, "recover", now)
        self._wipe(node)
        node.errors = []
        node.booted_at = node.start_task = None

    # Start tasks, job preparation tasks and job release tasks.

    def _prepare(self, job: Job, node: Node, now: datetime) -> Chore | None:
        """Return what became of a job's preparation task on a node; start it if it has not run there."""
        spec = job.spec.get("jobPreparationTask")
        if not spec:
            return None
        chore = node.preparations.get(job.key)
        if not chore:
            chore = node.preparations[job.key] = Chore(spec=spec, state="running", state_at=now)
            job.prepared[node.id] = node
            self._start_chore(node, chore, job, preparation_directory(job) or "", now)
        return chore

    def _begin_release(self, job: Job, node: Node, now: datetime) -> None:
        spec = job.spec["jobReleaseTask"]
        chore = node.releases[job.key] = Chore(spec=spec, state="running", state_at=now)
        self._start_chore(node, chore, job, task_directory(job.id, spec["id"]), now)

    def _start_chore(self, node: Node, chore: Chore, job: Job | None, directory: str, now: datetime) -> None:
        chore.execution.started_at = now
        common = (job.spec.get("commonEnvironmentSettings") or ()) if job else ()
        self._start_run(node, chore, job, chore.spec, common, directory, now)

    def _settle_chore(self, run: Run, chore: Chore, report: Report, now: datetime) -> None:
        if report.exit_code and may_retry_chore(chore):
            count_retry(chore.execution, now)
            chore.move(states.CHORE, "retry", now)
            directory = task_directory(run.job.id, chore.spec["id"]) if run.job else "startup"
            self._start_chore(run.node, chore, run.job, directory, now)
            return
        chore.execution.exit_code = report.exit_code
        self._finish_chore(run, chore, EXIT_CODE_FAILURE if report.exit_code else report.failure, now)

    def _expire(self, run: Run, now: datetime) -> None:
        """End a run that has taken as long as it may."""
        if run.id not in self._store.runs or not run.expires_at or not self._is_due(run, run.expires_at, now):
            return
        if isinstance(run.owner, Task):
            self._end(self._store.jobs[run.owner.key[0]], run.owner, WALL_CLOCK_ENDED, now)
        else:
            self._kill(run)
            self._finish_chore(run, run.owner, WALL_CLOCK_ENDED, now)

    def _finish_chore(self, run: Run, chore: Chore, failure: Json | None, now: datetime) -> None:
        self._end_chore(chore, failure, now)
        node, job = run.node, run.job
        if not job:
            if node.state == "waitingforstarttask":
                self._move_node(node, "start_task_failed" if failure else "ready", now)
            return
        self._store.mark(job)
        for task in [task for task in node.tasks.values() if task.key[0] == job.key and task.state == "preparing"]:
            if failure and chore.spec["waitForSuccess"]:
                self._requeue(job, task, now, lost=False)
            else:
                self._start_task(job, task, node, now)

    def _end_chore(self, chore: Chore, failure: Json | None, now: datetime) -> None:
        chore.move(states.CHORE, "end", now)
        chore.execution.failure = failure
        chore.execution.ended_at = now


def is_ineligible(node: Node, job: Job) -> bool:
    """Whether a job's preparation task has failed on a node, so that none of its Batch tasks may run there."""
    chore = node.preparations.get(job.key)
    return bool(chore and chore.execution.failure and chore.spec["waitForSuccess"])
