"""What happens to Batch tasks: how one starts, how it ends, and what its end means for others."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, TypeVar

from localbatch.account import states
from localbatch.account.records import (
    AllocationFailure,
    Chore,
    Execution,
    Job,
    Json,
    KillRun,
    Node,
    RemoveFiles,
    Report,
    Run,
    StartRun,
    Task,
    preparation_directory,
    task_directory,
)
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda, Pace
from localbatch.wire import expiry

_T = TypeVar("_T")

_ENDED: Final = {"category": "usererror", "code": "TaskEnded"}
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


class TaskRules(Agenda):
    """Starting, ending, retrying and requeuing Batch tasks.

    Attributes:
        allocation_failures: Why pools get no nodes, by pool id, or "*" for any.
        start_task_exit_code: How start tasks end instead of running, by pool id, or "*" for any.
        endless_tasks: Ids of Batch tasks that never end by themselves, or "*" for all.
        failing_uploads: With which code uploads fail, by id of the Batch task, or "*" for any.
    """

    def __init__(self, store: Store, pace: Pace) -> None:
        super().__init__(store, pace)
        self.allocation_failures: dict[str, AllocationFailure] = {}
        self.start_task_exit_code: dict[str, int] = {}
        self.endless_tasks: set[str] = set()
        self.failing_uploads: dict[str, str] = {}
        self._held_reports: dict[int, Report] = {}

    # Runs.

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
        limit = spec.get("constraints", spec).get("maxWallClockTime")
        run = Run(
            id=self._store.new_run_id(),
            node=node,
            owner=owner,
            job=job,
            expires_at=expiry(now, limit) if limit else None,
            upload_failure=_of(self.failing_uploads, owner.id) if isinstance(owner, Task) else None,
        )
        if run.expires_at:
            self._is_due(run, run.expires_at, now)
        self._store.runs[run.id] = node.runs[run.id] = run
        if isinstance(owner, Task):
            owner.run = run
        exit_code = _of(self.start_task_exit_code, node.pool_id) if not job else None
        if exit_code is not None:
            self._store.reports.append(Report(run_id=run.id, exit_code=exit_code))
            return
        environment = {s["name"]: s.get("value") or "" for s in (*common, *(spec.get("environmentSettings") or ()))}
        if job:
            names = {"AZ_BATCH_JOB_ID": job.id, "AZ_BATCH_TASK_ID": owner.id if isinstance(owner, Task) else spec["id"]}
            environment = names | environment
        action = StartRun(
            run_id=run.id,
            node=node,
            directory=directory,
            preparation_directory=preparation_directory(job),
            command_line=spec["commandLine"],
            environment=environment,
            resource_files=spec.get("resourceFiles") or (),
            output_files=() if run.upload_failure else spec.get("outputFiles") or (),
        )
        self._store.outbox.append(action)

    def _drop(self, run: Run) -> None:
        """Forget a run: nobody waits for its report any more."""
        del self._store.runs[run.id]
        del run.node.runs[run.id]
        self._held_reports.pop(run.id, None)
        self._forget(run)
        if isinstance(run.owner, Task):
            run.owner.run = None

    def _kill(self, run: Run) -> None:
        self._drop(run)
        self._store.outbox.append(KillRun(run_id=run.id))

    def _is_endless(self, run: Run) -> bool:
        return isinstance(run.owner, Task) and bool({"*", run.owner.id} & self.endless_tasks)

    def _settle(self, report: Report, now: datetime) -> None:
        run = self._store.runs.get(report.run_id)
        if not run:
            return  # It was killed: its end is on record already.
        if self._is_endless(run):
            self._held_reports[run.id] = report
            return
        self._drop(run)
        if isinstance(run.owner, Chore):
            self._settle_chore(run, run.owner, report, now)
        else:
            self._settle_task(run, run.owner, report, now)

    def _settle_task(self, run: Run, task: Task, report: Report, now: datetime) -> None:
        job, execution = self._store.jobs[task.key[0]], task.execution
        run.node.tasks_run += 1
        run.node.tasks_succeeded += report.exit_code == 0
        if report.exit_code and _may_retry(execution, task.max_retries):
            count_retry(execution, now)
            self._release(task, now)
            self._move_task(job, task, "retry", now)
            return
        failure = EXIT_CODE_FAILURE if report.exit_code else report.failure
        if not failure and run.upload_failure and _wants_upload(task.spec, report.exit_code):
            failure = {
                "category": "servererror",
                "code": run.upload_failure,
                "message": "An output file could not be uploaded",
            }
        self._end(job, task, failure, now, exit_code=report.exit_code)

    # The life of a Batch task.

    def _start_task(self, job: Job, task: Task, node: Node, now: datetime) -> None:
        task.execution.started_at = now
        self._move_task(job, task, "start", now)
        common = job.spec.get("commonEnvironmentSettings") or ()
        self._start_run(node, task, job, task.spec, common, task_directory(job.id, task.id), now)

    def _end(self, job: Job, task: Task, failure: Json | None, now: datetime, *, exit_code: int | None = None) -> None:
        self._move_task(job, task, "end", now, failure=failure)
        task.execution.ended_at, task.execution.exit_code = now, exit_code
        self._release(task, now)
        if task.node:
            self._look_at_task(task, now)  # Its files are kept for a while.
        options = exit_options(task)
        if options.get("dependencyAction", "block" if failure else "satisfy").lower() == "satisfy":
            for ready in job.dependencies.satisfy(task):
                if ready.state == "active" and job.tasks.get(ready.key[1]) is ready:
                    self._store.enqueue(job, ready)
        manager = job.spec.get("jobManagerTask")
        if manager and key_of(manager["id"]) == task.key[1] and manager["killJobOnCompletion"]:
            job.requested = ("terminate", "JMComplete")
        elif failure and job.spec["onTaskFailure"] == "performexitoptionsjobaction" and not job.requested:
            action = options.get("jobAction", "terminate").lower()
            if action != "none":
                job.requested = (action, "TaskFailed")

    def _release(self, task: Task, now: datetime) -> None:
        """Take a Batch task off its node."""
        if task.run:
            self._kill(task.run)
        node = task.node
        if not node or node.tasks.pop(task.key, None) is None:
            return
        self._store.jobs[task.key[0]].placed.pop(task.key[1], None)
        node.slots_used -= task.slots_held
        task.slots_held = 0
        node.recent_tasks.append(task)
        if node.state == "running" and not node.tasks:
            self._move_node(node, "drained", now)
        else:
            self._free(node)
            if not node.tasks:
                self._store.mark(node)  # It may have waited for this to go down.

    def _requeue(self, job: Job, task: Task, now: datetime, *, lost: bool) -> None:
        self._release(task, now)
        self._move_task(job, task, "requeue", now)
        task.node = task.execution.started_at = None
        if lost:
            task.execution.requeue_count += 1
            task.execution.last_requeue_at = now

    def _move_task(self, job: Job, task: Task, event: str, now: datetime, *, failure: Json | None = None) -> None:
        """Let `event` happen to a Batch task, and keep its job's totals and queue right."""
        states.advance(states.TASK, task.state, event)  # Raises before anything has changed.
        job.count(task, -1)
        task.execution.failure = failure
        task.move(states.TASK, event, now)
        job.count(task, 1)
        self._store.mark(job)
        if task.state != "active":
            job.waiting.discard(task)
        elif not task.unmet:
            # One that has been running goes ahead of those that wait.
            self._store.enqueue(job, task, first=event in {"retry", "requeue"})

    def terminate_task(self, job: Job, task: Task, now: datetime) -> None:
        """End a Batch task at a user's request."""
        self._end(job, task, USER_ENDED, now)

    def reactivate_task(self, job: Job, task: Task, now: datetime) -> None:
        """Let a Batch task that failed run again, as if it had not."""
        requeues = task.execution.requeue_count
        self._move_task(job, task, "reactivate", now)
        task.execution = Execution(requeue_count=requeues)
        task.node, task.files_removed = None, False
        self._forget(task)

    def delete_task(self, job: Job, task: Task, now: datetime) -> None:
        """Delete a Batch task and its files."""
        self._release(task, now)
        if task.node:
            self._store.outbox.append(RemoveFiles(node=task.node, directory=task_directory(job.id, task.id)))
        self._store.remove_task(job, task)
        self._forget(task)

    def replace_constraints(self, task: Task, constraints: Json, now: datetime) -> None:
        """Give a Batch task other constraints; an attempt that runs keeps its own."""
        task.spec = task.spec | {"constraints": constraints}
        task.max_retries = constraints["maxTaskRetryCount"]
        task.etag, task.modified_at = self._store.new_etag(), now
        self._store.mark(task)

    def _look_at_task(self, task: Task, now: datetime) -> None:
        """Remove the files of a Batch task that has been completed long enough."""
        job = self._store.jobs.get(task.key[0])
        if not job or job.tasks.get(task.key[1]) is not task:
            return
        ended_at, node = task.execution.ended_at, task.node
        if task.state != "completed" or not ended_at or not node or task.files_removed:
            return
        kept_until = expiry(ended_at, task.spec["constraints"]["retentionTime"])
        if kept_until and self._is_due(task, kept_until, now):
            task.files_removed = True
            self._store.outbox.append(RemoveFiles(node=node, directory=task_directory(job.id, task.id)))

    # What the rules about nodes add.

    def _settle_chore(self, run: Run, chore: Chore, report: Report, now: datetime) -> None:
        raise NotImplementedError

    def _move_node(self, node: Node, event: str, now: datetime) -> None:
        raise NotImplementedError

    def _free(self, node: Node) -> None:
        raise NotImplementedError


def count_retry(execution: Execution, now: datetime) -> None:
    """Note that a task will run again because it failed."""
    execution.retry_count += 1
    execution.last_retry_at = now


def _may_retry(execution: Execution, max_retries: int) -> bool:
    return max_retries < 0 or execution.retry_count < max_retries


def may_retry_chore(chore: Chore) -> bool:
    """Whether a task of a node may run once more after a failure; a job release task never does."""
    limits = chore.spec.get("constraints", chore.spec)
    return _may_retry(chore.execution, limits.get("maxTaskRetryCount", 0))


def _of(faults: dict[str, _T], name: str) -> _T | None:
    return faults.get(name, faults.get("*"))


def _wants_upload(spec: Json, exit_code: int | None) -> bool:
    met = {"taskcompletion", "taskfailure" if exit_code else "tasksuccess"}
    return exit_code is not None and any(
        ((file.get("uploadOptions") or {}).get("uploadCondition") or "taskcompletion").lower() in met
        for file in spec.get("outputFiles") or ()
    )


def exit_options(task: Task) -> Json:
    """Return what a Batch task's exit conditions say about the way it ended; the exit code comes first.

    Source: Batch REST API, ExitConditions.
    """
    conditions, execution = task.spec.get("exitConditions") or {}, task.execution
    code = execution.exit_code
    if code is not None:
        for each in conditions.get("exitCodes") or ():
            if int(each["code"]) == code:
                return _present(each["exitOptions"])
        for each in conditions.get("exitCodeRanges") or ():
            if int(each["start"]) <= code <= int(each["end"]):
                return _present(each["exitOptions"])
    if not execution.failure:
        return {}
    name = "preProcessingError" if code is None else "fileUploadError" if not code else "default"
    return _present(conditions.get(name) or conditions.get("default"))


def _present(options: Json | None) -> Json:
    return {name: value for name, value in (options or {}).items() if value is not None}
