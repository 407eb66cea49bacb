"""Runs: one attempt at one task each, from the order to start it to the report of its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from localbatch.account.records import (
    Chore,
    Job,
    KillRun,
    Node,
    Report,
    Run,
    StartRun,
    Task,
    preparation_directory,
)
from localbatch.account.specs import NameValue
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda
from localbatch.rules.failures import CONTAINER_SETTINGS_NOT_FOUND
from localbatch.rules.standing_faults import StandingFaults, matching
from localbatch.wire import expiry


@dataclass(frozen=True)
class Runs:
    """Starts and kills runs, and holds back the reports of tasks that a fault makes endless."""

    store: Store
    agenda: Agenda
    faults: StandingFaults
    _held_reports: dict[int, Report] = field(default_factory=dict)

    def start(
        self,
        node: Node,
        owner: Task | Chore,
        job: Job | None,
        common_environment: Iterable[NameValue],
        directory: str,
        now: datetime,
    ) -> None:
        """Order a node to run a task.

        Args:
            node: The node.
            owner: The task.
            job: Its job; None for a start task.
            common_environment: The environment settings of the job.
            directory: The task's directory, relative to the root of the node.
            now: The current time.
        """
        spec = owner.spec
        limit = owner.max_wall_clock_time
        run = Run(
            id=self.store.new_run_id(),
            node=node,
            owner=owner,
            job=job,
            expires_at=expiry(now, limit) if limit else None,
            upload_failure=matching(self.faults.failing_uploads, owner.id) if isinstance(owner, Task) else None,
        )
        # Review the run when its maxWallClockTime is over.
        if run.expires_at:
            self.agenda.is_due(run, run.expires_at, now)
        self.store.runs[run.id] = node.runs[run.id] = run
        if isinstance(owner, Task):
            owner.run = run
        # A start task is the only run without a job.
        exit_code = matching(self.faults.start_task_exit_codes, node.pool_id) if not job else None
        if exit_code is not None:
            self.store.reports.append(Report(run_id=run.id, exit_code=exit_code))
            return
        machine = self.store.pools[key_of(node.pool_id)].spec.get("virtualMachineConfiguration", {})
        if isinstance(owner, Task) and "containerConfiguration" in machine and "containerSettings" not in spec:
            self.store.reports.append(Report(run_id=run.id, exit_code=None, failure=CONTAINER_SETTINGS_NOT_FOUND))
            return
        # Settings of the task override those of the job.
        settings = (*common_environment, *(spec.get("environmentSettings") or ()))
        # An environment setting may have no value.
        environment = {each["name"]: each.get("value") or "" for each in settings}
        if job:
            task_id = owner.id if isinstance(owner, Task) else owner.spec["id"]
            environment = {"AZ_BATCH_JOB_ID": job.id, "AZ_BATCH_TASK_ID": task_id} | environment
        action = StartRun(
            run_id=run.id,
            node=node,
            directory=directory,
            preparation_directory=preparation_directory(job),
            command_line=spec["commandLine"],
            environment=environment,
            resource_files=spec.get("resourceFiles") or (),
            # The node would upload the files before the fault could fail the upload.
            output_files=() if run.upload_failure else spec.get("outputFiles") or (),
        )
        self.store.outbox.append(action)

    def kill(self, run: Run) -> None:
        """Order a node to kill a run. Its report is ignored."""
        self._drop(run)
        self.store.outbox.append(KillRun(run_id=run.id))

    def finish(self, report: Report) -> Run | None:
        """Finish the run of a report, and return it.

        None if the run was killed, so that its end is already recorded, or if a fault makes it endless.
        """
        run = self.store.runs.get(report.run_id)
        if run and self._is_endless(run):
            self._held_reports[run.id] = report
            return None
        if run:
            self._drop(run)
        return run

    def release_held_reports(self) -> None:
        """Queue the reports of runs that are no longer endless."""
        for run_id in list(self._held_reports):
            if not self._is_endless(self.store.runs[run_id]):
                self.store.reports.append(self._held_reports.pop(run_id))

    def _drop(self, run: Run) -> None:
        del self.store.runs[run.id]
        del run.node.runs[run.id]
        self._held_reports.pop(run.id, None)
        self.agenda.forget(run)
        if isinstance(run.owner, Task):
            run.owner.run = None

    def _is_endless(self, run: Run) -> bool:
        return isinstance(run.owner, Task) and bool({"*", run.owner.id} & self.faults.endless_tasks)
