"""What happens to jobs: what ends one, and what its end means for its Batch tasks and its nodes."""

from __future__ import annotations

from datetime import datetime

from localbatch import errors
from localbatch.account import states
from localbatch.account.records import Job, Json, Node, Pool, RemoveFiles
from localbatch.account.store import key_of
from localbatch.rules.pools import PoolRules
from localbatch.rules.tasks import JOB_ENDED, USER_ENDED

RUNS_OUT = frozenset({"active", "disabling", "disabled", "enabling"})
"""States of a job in which its wall clock matters."""
PASSING = {"enabling": "enabled", "terminating": "terminated", "deleting": ""}
"""States of a job that end by themselves, and the event that ends them."""
UP = frozenset({"idle", "running", "offline"})
"""States of a node in which a job release task can run."""


class JobRules(PoolRules):
    """Disabling, enabling, terminating and deleting jobs."""

    def _look_at_job(self, job: Job, now: datetime) -> None:
        if self._store.jobs.get(job.key) is not job:
            return
        if job.state in RUNS_OUT and job.expires_at and self._is_due(job, job.expires_at, now):
            self.terminate_job(job, "MaxWallClockTimeExpiry", now)
        elif job.state == "active":
            self._look_at_active_job(job, now)
        elif job.state == "disabling":
            # Whoever disables a job may have it wait for what runs.
            if not job.task_counts.running and self._has_lasted(job, self._pace.job, now):
                self._move(job, states.JOB, "disabled", now)
        elif job.state in PASSING and self._has_lasted(job, self._pace.job, now) and not self._is_releasing(job):
            self._finish_transition(job, now)

    def _look_at_active_job(self, job: Job, now: datetime) -> None:
        requested, job.requested = job.requested, None
        unfinished = job.task_counts.active + job.task_counts.running
        if requested and requested[0] == "terminate":
            self.terminate_job(job, requested[1], now)
        elif requested:
            self.disable_job(job, "requeue", now)
        elif job.spec["onAllTasksComplete"] == "terminatejob" and not unfinished:
            self.terminate_job(job, "AllTasksComplete", now)
        elif job.waiting:
            self._store.unassigned.add(key_of(job.pool_id))

    def _is_releasing(self, job: Job) -> bool:
        return not job.is_forced and any(
            job.key in node.releases and node.releases[job.key].state == "running" for node in job.prepared.values()
        )

    def _finish_transition(self, job: Job, now: datetime) -> None:
        if job.state == "deleting":
            self._remove_job(job, now)
            return
        self._move(job, states.JOB, PASSING[job.state], now)
        if job.state == "completed":
            job.ended_at = now
            self._drop_auto_pool(job, now)

    def _drop_auto_pool(self, job: Job, now: datetime) -> None:
        pool = self._store.pools.get(key_of(job.auto_pool_id)) if job.auto_pool_id else None
        if pool and pool.state == "active" and not job.spec["poolInfo"]["autoPoolSpecification"]["keepAlive"]:
            self.delete_pool(pool, now)

    def _remove_job(self, job: Job, now: datetime) -> None:
        nodes = {node.id: node for node in (task.node for task in job.tasks.values()) if node} | job.prepared
        for node in nodes.values():
            for run in [run for run in node.runs.values() if run.job is job]:
                self._kill(run)
            node.preparations.pop(job.key, None)
            node.releases.pop(job.key, None)
            self._store.outbox.append(RemoveFiles(node=node, directory=f"workitems/{job.id}"))
        del self._store.jobs[job.key]
        self._drop_auto_pool(job, now)

    def create_job(self, job: Job, pool: Pool | None, now: datetime) -> None:
        """Add a job, and the pool that is made for it alone; without that pool the job ends at once.

        Raises:
            ServiceError: What Store.add_job raises.
        """
        self._store.check_job_id(job.key)
        if pool:
            job.auto_pool_id = pool.id
            try:
                self._store.add_pool(pool)
            except errors.ServiceError as error:
                self.fail_job(job, "AutoPoolCreationFailedWithQuotaReached", error.sentence, now)
            else:
                if pool.spec["enableAutoScale"]:
                    self.enable_autoscale(pool, now)
        self._store.add_job(job)

    def fail_job(self, job: Job, code: str, message: str, now: datetime) -> None:
        """End a job whose automatic pool cannot be made."""
        self._move(job, states.JOB, "fail", now)
        job.ended_at = now
        job.scheduling_error = {"category": "usererror", "code": code, "message": message}

    def terminate_job(self, job: Job, reason: str | None, now: datetime) -> None:
        """Begin to terminate a job: what runs is ended, what waits will wait for ever."""
        self._move(job, states.JOB, "terminate", now)
        job.terminate_reason = reason
        self._wind_up(job, now)

    def delete_job(self, job: Job, now: datetime, *, force: bool = False) -> None:
        """Begin to delete a job and its Batch tasks; its job release task runs if it has not, unless forced."""
        job.is_forced = force
        is_over = job.state in {"terminating", "completed"}
        self._move(job, states.JOB, "delete", now)
        self._wind_up(job, now, release=not is_over and not force)

    def _wind_up(self, job: Job, now: datetime, *, release: bool = True) -> None:
        self.touch(job, now)
        self._end_tasks(job, JOB_ENDED, now)
        for node in list(job.prepared.values()):
            chore = node.preparations.get(job.key)
            for run in [run for run in node.runs.values() if run.owner is chore]:
                self._kill(run)
            if chore and chore.state == "running":
                self._end_chore(chore, JOB_ENDED, now)
            if release and chore and job.spec.get("jobReleaseTask") and self._is_up(node):
                self._begin_release(job, node, now)

    def _is_up(self, node: Node) -> bool:
        return node.state in UP and self._pool_of(node) is not None

    def disable_job(self, job: Job, option: str, now: datetime) -> None:
        """Begin to disable a job; what runs is requeued, terminated, or waited for."""
        self._move(job, states.JOB, "disable", now)
        self.touch(job, now)
        if option == "terminate":
            self._end_tasks(job, USER_ENDED, now)
        elif option == "requeue":
            for task in list(job.placed.values()):
                self._requeue(job, task, now, lost=True)

    def enable_job(self, job: Job, now: datetime) -> None:
        """Begin to enable a job."""
        self._move(job, states.JOB, "enable", now)
        self.touch(job, now)

    def _end_tasks(self, job: Job, failure: Json, now: datetime) -> None:
        for task in list(job.placed.values()):
            self._end(job, task, failure, now)
