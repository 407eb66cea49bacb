"""The rules of jobs: what ends a job, and what its end means for its Batch tasks and nodes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from localbatch import errors
from localbatch.account import states
from localbatch.account.records import Job, Node, Pool, RemoveFiles, job_directory
from localbatch.account.specs import Json
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda
from localbatch.rules.chores import ChoreRules
from localbatch.rules.failures import JOB_ENDED, USER_ENDED
from localbatch.rules.pools import PoolRules
from localbatch.rules.runs import Runs
from localbatch.rules.slots import NodeSlots
from localbatch.rules.tasks import TaskRules

# States of a job in which its maxWallClockTime applies.
LIMITED_STATES = frozenset({"active", "disabling", "disabled", "enabling"})
# States of a job that end by themselves, and the event that ends them.
TRANSITIONAL_STATES = {"terminating": "terminated", "deleting": ""}
# States of a node in which a job release task can run.
UP = frozenset({"idle", "running", "offline"})


@dataclass(frozen=True)
class JobRules:
    """Creates, disables, enables, terminates and deletes jobs."""

    store: Store
    agenda: Agenda
    slots: NodeSlots
    runs: Runs
    tasks: TaskRules
    chores: ChoreRules
    pools: PoolRules

    def review(self, job: Job, now: datetime) -> None:
        """Apply the limits of a job, and end its transitional states."""
        if self.store.jobs.get(job.key) is not job:
            return
        if job.state in LIMITED_STATES and job.expires_at and self.agenda.is_due(job, job.expires_at, now):
            self.terminate(job, "MaxWallClockTimeExpiry", now)
        elif job.state == "active":
            self._review_active(job, now)
        elif job.state == "disabling":
            # With the option `wait`, running Batch tasks finish first.
            if not job.task_counts.running and self.agenda.has_lasted(job, self.agenda.pace.job, now):
                self.agenda.move(job, states.JOB, "disabled", now)
        elif job.state == "enabling":
            self.agenda.move(job, states.JOB, "enabled", now)
        elif (
            job.state in TRANSITIONAL_STATES
            and self.agenda.has_lasted(job, self.agenda.pace.job, now)
            and not self._is_releasing(job)
        ):
            self._finish_transition(job, now)

    def _review_active(self, job: Job, now: datetime) -> None:
        # The end of a Batch task has requested a job action.
        requested, job.requested = job.requested, None
        unfinished = job.task_counts.active + job.task_counts.running
        if requested and requested[0] == "terminate":
            self.terminate(job, requested[1], now)
        elif requested:
            self.disable(job, "requeue", now)
        elif job.spec["onAllTasksComplete"] == "terminatejob" and not unfinished:
            # A job that is active for less time can still get its first Batch task.
            if self.agenda.has_lasted(job, self.agenda.pace.job, now):
                self.terminate(job, "AllTasksComplete", now)
        elif job.waiting:
            # The pool may have been created after the Batch tasks.
            self.store.unassigned.add(key_of(job.pool_id))

    def _is_releasing(self, job: Job) -> bool:
        return not job.is_forced and any(
            job.key in node.releases and node.releases[job.key].state == "running" for node in job.prepared.values()
        )

    def _finish_transition(self, job: Job, now: datetime) -> None:
        if job.state == "deleting":
            self._remove_job(job, now)
            return
        self.agenda.move(job, states.JOB, TRANSITIONAL_STATES[job.state], now)
        if job.state == "completed":
            job.ended_at = now
            self._delete_auto_pool(job, now)

    def _delete_auto_pool(self, job: Job, now: datetime) -> None:
        pool = self.store.pools.get(key_of(job.auto_pool_id)) if job.auto_pool_id else None
        if not pool or pool.state != "active":
            return
        auto = job.spec["poolInfo"]["autoPoolSpecification"]
        # A pool with the lifetime of a job schedule stays for the next job.
        if not auto["keepAlive"] and auto["poolLifetimeOption"].lower() == "job":
            self.pools.delete(pool, now)

    def _remove_job(self, job: Job, now: datetime) -> None:
        # Nodes with files of the job: those of its Batch tasks, and those that were prepared.
        nodes = {node.id: node for node in (task.node for task in job.tasks.values()) if node} | job.prepared
        # The jobs of a schedule share the folder above theirs.
        folder = job_directory(job.id) if job.schedule_key else f"workitems/{job.id}"
        for node in nodes.values():
            for run in [run for run in node.runs.values() if run.job is job]:
                self.runs.kill(run)
            node.preparations.pop(job.key, None)
            node.releases.pop(job.key, None)
            self.store.outbox.append(RemoveFiles(node=node, directory=folder))
        del self.store.jobs[job.key]
        self._delete_auto_pool(job, now)

    def create(self, job: Job, pool: Pool | None, now: datetime) -> None:
        """Add a job and its automatic pool. If the pool cannot be created, the job ends at once.

        Raises:
            ServiceError: As Store.add_job.
        """
        self.store.check_job_id(job.key)
        if pool:
            job.auto_pool_id = pool.id
            try:
                self.store.add_pool(pool)
            except errors.ServiceError as error:
                self.fail(job, "AutoPoolCreationFailedWithQuotaReached", error.sentence, now)
            else:
                if pool.spec["enableAutoScale"]:
                    self.pools.enable_autoscale(pool, now)
        self.store.add_job(job)

    def fail(self, job: Job, code: str, message: str, now: datetime) -> None:
        """End a job whose automatic pool cannot be created."""
        self.agenda.move(job, states.JOB, "fail", now)
        job.ended_at = now
        job.scheduling_error = {"category": "usererror", "code": code, "message": message}

    def terminate(self, job: Job, reason: str | None, now: datetime) -> None:
        """Start to terminate a job. Running Batch tasks end; active Batch tasks stay active."""
        self.agenda.move(job, states.JOB, "terminate", now)
        job.terminate_reason = reason
        self.agenda.touch(job, now)
        self._end_work(job, now)

    def delete(self, job: Job, now: datetime, *, force: bool = False) -> None:
        """Start to delete a job. Its job release task runs first, unless it has run or `force` is set."""
        job.is_forced = force
        # Its job release tasks have run already. The etag stays.
        is_over = job.state in {"terminating", "completed"}
        self.agenda.move(job, states.JOB, "delete", now)
        self._end_work(job, now, release=not is_over and not force)

    def _end_work(self, job: Job, now: datetime, *, release: bool = True) -> None:
        self._end_tasks(job, JOB_ENDED, now)
        for node in list(job.prepared.values()):
            chore = node.preparations.get(job.key)
            for run in [run for run in node.runs.values() if run.owner is chore]:
                self.runs.kill(run)
            if chore and chore.state == "running":
                self.chores.end(chore, JOB_ENDED, now)
            if release and chore and job.spec.get("jobReleaseTask") and self._is_up(node):
                self.chores.release(job, node, now)

    def _is_up(self, node: Node) -> bool:
        return node.state in UP and self.slots.pool_of(node) is not None

    def disable(self, job: Job, option: str, now: datetime) -> None:
        """Start to disable a job. The option says what happens to running Batch tasks: requeue, terminate or wait."""
        self.agenda.move(job, states.JOB, "disable", now)
        self.agenda.touch(job, now)
        if option == "terminate":
            self._end_tasks(job, USER_ENDED, now)
        elif option == "requeue":
            for task in list(job.placed.values()):
                self.tasks.requeue(job, task, now, lost=True)

    def enable(self, job: Job, now: datetime) -> None:
        """Start to enable a job."""
        self.agenda.move(job, states.JOB, "enable", now)
        self.agenda.touch(job, now)

    def _end_tasks(self, job: Job, failure: Json, now: datetime) -> None:
        for task in list(job.placed.values()):
            self.tasks.end(job, task, failure, now)
