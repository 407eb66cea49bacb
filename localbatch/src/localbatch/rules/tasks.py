"""The rules of Batch tasks: how they start and end, and what their end means for other Batch tasks and their job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from localbatch.account import states
from localbatch.account.records import Execution, Job, Node, RemoveFiles, Report, Run, Task, task_directory
from localbatch.account.specs import Json, TaskConstraints
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda
from localbatch.rules.failures import EXIT_CODE_FAILURE, NODE_ENDED, USER_ENDED, upload_failure
from localbatch.rules.runs import Runs
from localbatch.rules.slots import NodeSlots
from localbatch.wire import expiry


@dataclass(frozen=True)
class TaskRules:
    """Starts, ends, retries and requeues Batch tasks."""

    store: Store
    agenda: Agenda
    slots: NodeSlots
    runs: Runs

    def review(self, task: Task, now: datetime) -> None:
        """Remove the files of a completed Batch task when its retention time is over."""
        job = self.store.jobs.get(task.key[0])
        if not job or job.tasks.get(task.key[1]) is not task:
            return
        ended_at, node = task.execution.ended_at, task.node
        if task.state != "completed" or not ended_at or not node or task.files_removed:
            return
        kept_until = expiry(ended_at, task.spec["constraints"]["retentionTime"])
        if kept_until and self.agenda.is_due(task, kept_until, now):
            task.files_removed = True
            self.store.outbox.append(RemoveFiles(node=node, directory=task_directory(job.id, task.id)))

    # What clients request.

    def terminate(self, job: Job, task: Task, now: datetime) -> None:
        """End a Batch task because a client requests it."""
        self.end(job, task, USER_ENDED, now)
        self._touch(task, now)

    def reactivate(self, job: Job, task: Task, now: datetime) -> None:
        """Make a failed Batch task active again, with new retries."""
        requeues = task.execution.requeue_count
        self.move(job, task, "reactivate", now)
        task.execution = Execution(requeue_count=requeues)
        task.node, task.files_removed = None, False
        self.agenda.forget(task)
        self._touch(task, now)

    def delete(self, job: Job, task: Task, now: datetime) -> None:
        """Delete a Batch task and its files."""
        self._leave_node(task, now)
        if task.node:
            self.store.outbox.append(RemoveFiles(node=task.node, directory=task_directory(job.id, task.id)))
        self.store.remove_task(job, task)
        self.agenda.forget(task)

    def replace_constraints(self, task: Task, constraints: TaskConstraints, now: datetime) -> None:
        """Replace the constraints of a Batch task. An attempt that is running keeps the old ones."""
        task.spec["constraints"] = constraints
        task.max_retries = constraints["maxTaskRetryCount"]
        self._touch(task, now)
        self.store.mark(task)

    def _touch(self, task: Task, now: datetime) -> None:
        """Set a new etag and modification time on a Batch task that a client changed."""
        task.etag, task.modified_at = self.store.new_etag(), now

    # The life of a Batch task.

    def move(self, job: Job, task: Task, event: str, now: datetime, *, failure: Json | None = None) -> None:
        """Apply an event to a Batch task, and update the counts and the queue of its job.

        Raises:
            IllegalTransition: The state of the Batch task does not allow it; nothing was changed.
        """
        states.advance(states.TASK, task.state, event)
        job.count(task, -1)
        task.execution.failure = failure
        task.move(states.TASK, event, now)
        job.count(task, 1)
        self.store.mark(job)
        if task.state != "active":
            job.waiting.discard(task)
        elif not task.unmet:
            # A Batch task that was running goes to the front of the queue.
            self.store.enqueue(job, task, first=event in {"retry", "requeue"})

    def start(self, job: Job, task: Task, node: Node, now: datetime) -> None:
        """Start a Batch task on the node where it holds slots."""
        task.execution.started_at = now
        self.move(job, task, "start", now)
        common_environment = job.spec.get("commonEnvironmentSettings") or ()
        self.runs.start(node, task, job, common_environment, task_directory(job.id, task.id), now)

    def settle(self, run: Run, task: Task, report: Report, now: datetime) -> None:
        """Complete or retry a Batch task whose run has ended."""
        job, execution = self.store.jobs[task.key[0]], task.execution
        # Chores do not count in totalTasksRun.
        run.node.tasks_run += 1
        run.node.tasks_succeeded += report.exit_code == 0
        # Only exit codes are retried: failures without one would fail again.
        if report.exit_code and execution.may_retry(task.max_retries):
            execution.count_retry(now)
            self._leave_node(task, now)
            self.move(job, task, "retry", now)
            return
        failure = EXIT_CODE_FAILURE if report.exit_code else report.failure
        if not failure and run.upload_failure and _uploads_files(task, report.exit_code):
            failure = upload_failure(run.upload_failure)
        self.end(job, task, failure, now, exit_code=report.exit_code)

    def end(self, job: Job, task: Task, failure: Json | None, now: datetime, *, exit_code: int | None = None) -> None:
        """Complete a Batch task, and apply its exit conditions to dependent Batch tasks and to its job."""
        self.move(job, task, "end", now, failure=failure)
        task.execution.ended_at, task.execution.exit_code = now, exit_code
        self._leave_node(task, now)
        if task.node:
            self.review(task, now)  # Plans the removal of its files.
        options = exit_options(task)
        if options.get("dependencyAction", "block" if failure else "satisfy").lower() == "satisfy":
            for ready in job.dependencies.satisfy(task):
                # It may have been terminated or deleted meanwhile.
                if ready.state == "active" and job.tasks.get(ready.key[1]) is ready:
                    self.store.enqueue(job, ready)
        manager = job.spec.get("jobManagerTask")
        # The end of a job manager task takes precedence over exit conditions.
        if manager and key_of(manager["id"]) == task.key[1] and manager["killJobOnCompletion"]:
            job.requested = ("terminate", "JMComplete")
        # Recorded from the service: a user who ends a Batch task does not end its job.
        elif (
            failure
            and failure != USER_ENDED
            and job.spec["onTaskFailure"] == "performexitoptionsjobaction"
            and not job.requested
        ):
            action = options.get("jobAction", "terminate").lower()
            if action != "none":
                job.requested = (action, "TaskFailed")

    def requeue(self, job: Job, task: Task, now: datetime, *, lost: bool) -> None:
        """Make a Batch task active again, on any node. It counts as requeued if its node was lost."""
        self._leave_node(task, now)
        self.move(job, task, "requeue", now)
        task.node = task.execution.started_at = None
        if lost:
            task.execution.requeue_count += 1
            task.execution.last_requeue_at = now

    def vacate(self, node: Node, option: str, now: datetime, *, requeue_preparing: bool) -> None:
        """Terminate or requeue the Batch tasks of a node. With any other option they may finish.

        A Batch task that still waits for a job preparation task has nothing to finish: `requeue_preparing` requeues it.
        """
        for task in list(node.tasks.values()):
            job = self.store.jobs[task.key[0]]
            if option == "terminate":
                self.end(job, task, NODE_ENDED, now)
            elif option == "requeue" or (requeue_preparing and task.state == "preparing"):
                self.requeue(job, task, now, lost=True)

    def _leave_node(self, task: Task, now: datetime) -> None:
        """Release the slots of a Batch task, and kill its run."""
        if task.run:
            self.runs.kill(task.run)
        node = task.node
        if not node or node.tasks.pop(task.key, None) is None:
            return
        self.store.jobs[task.key[0]].placed.pop(task.key[1], None)
        node.slots_used -= task.slots_held
        task.slots_held = 0
        node.recent_tasks.append(task)
        if node.state == "running" and not node.tasks:
            self.slots.move(node, "drained", now)
        else:
            self.slots.update(node)
            if not node.tasks:
                self.store.mark(node)  # A reboot or a removal may have waited for this Batch task.


def _uploads_files(task: Task, exit_code: int | None) -> bool:
    """Whether any output file has an upload condition that the exit code meets."""
    met = {"taskcompletion", "taskfailure" if exit_code else "tasksuccess"}
    return exit_code is not None and any(
        ((file.get("uploadOptions") or {}).get("uploadCondition") or "taskcompletion").lower() in met
        for file in task.spec.get("outputFiles") or ()
    )


def exit_options(task: Task) -> Json:
    """Return the exit options that apply to the end of a Batch task. Exit codes take precedence.

    https://learn.microsoft.com/rest/api/batchservice/tasks/create-task#exitconditions
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
