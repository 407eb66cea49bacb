"""The rules of chores: start tasks, job preparation tasks and job release tasks, each on one node."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from localbatch.account import states
from localbatch.account.records import Chore, Job, Node, Pool, Report, Run, Task, task_directory
from localbatch.account.specs import Json
from localbatch.account.store import Store
from localbatch.rules.agenda import Agenda
from localbatch.rules.failures import EXIT_CODE_FAILURE, NODE_ENDED, WALL_CLOCK_ENDED
from localbatch.rules.runs import Runs
from localbatch.rules.slots import NodeSlots
from localbatch.rules.tasks import TaskRules

START_TASK_DIRECTORY = "startup"


@dataclass(frozen=True)
class ChoreRules:
    """Starts, retries and ends chores, and continues what waits for them."""

    store: Store
    agenda: Agenda
    slots: NodeSlots
    runs: Runs
    tasks: TaskRules

    def start_up(self, pool: Pool, node: Node, now: datetime) -> None:
        """Run the start task of a pool on a node that has booted. The node may wait for its success."""
        node.booted_at = now
        if node.previous_state == "deallocated":
            node.scheduling = "enabled"
        spec = pool.spec.get("startTask")
        # A reboot runs the start task again, or none if the pool has lost it.
        node.start_task = None
        if spec:
            node.start_task = Chore(spec=spec, state="running", state_at=now)
            self._start(node, node.start_task, None, now)
        self.slots.move(node, "start_task_started" if spec and spec["waitForSuccess"] else "ready", now)

    def prepare(self, job: Job, node: Node, now: datetime) -> Chore | None:
        """Return the job preparation task of a job on a node. Start it if it has not run there."""
        spec = job.spec.get("jobPreparationTask")
        if not spec:
            return None
        chore = node.preparations.get(job.key)
        if not chore:
            chore = node.preparations[job.key] = Chore(spec=spec, state="running", state_at=now)
            job.prepared[node.id] = node
            self._start(node, chore, job, now)
        return chore

    def release(self, job: Job, node: Node, now: datetime) -> None:
        """Start the job release task of a job on a node."""
        chore = node.releases[job.key] = Chore(spec=job.spec["jobReleaseTask"], state="running", state_at=now)
        self._start(node, chore, job, now)

    def _start(self, node: Node, chore: Chore, job: Job | None, now: datetime) -> None:
        chore.execution.started_at = now
        common_environment = (job.spec.get("commonEnvironmentSettings") or ()) if job else ()
        directory = task_directory(job.id, chore.spec["id"]) if job else START_TASK_DIRECTORY
        self.runs.start(node, chore, job, common_environment, directory, now)

    def settle(self, run: Run, chore: Chore, report: Report, now: datetime) -> None:
        """Complete or retry a chore whose run has ended."""
        if report.exit_code and chore.execution.may_retry(chore.max_retries):
            chore.execution.count_retry(now)
            chore.move(states.CHORE, "retry", now)
            self._start(run.node, chore, run.job, now)
            return
        chore.execution.exit_code = report.exit_code
        self._finish(run, chore, EXIT_CODE_FAILURE if report.exit_code else report.failure, now)

    def review_run(self, run: Run, now: datetime) -> None:
        """End a run of any task whose maxWallClockTime is over."""
        if run.id not in self.store.runs or not run.expires_at:
            return
        if not self.agenda.is_due(run, run.expires_at, now):
            return
        if isinstance(run.owner, Task):
            self.tasks.end(self.store.jobs[run.owner.key[0]], run.owner, WALL_CLOCK_ENDED, now)
        else:
            self.runs.kill(run)
            self._finish(run, run.owner, WALL_CLOCK_ENDED, now)

    def _finish(self, run: Run, chore: Chore, failure: Json | None, now: datetime) -> None:
        self.end(chore, failure, now)
        node, job = run.node, run.job
        if not job:
            # Without waitForSuccess the node is idle already.
            if node.state == "waitingforstarttask":
                self.slots.move(node, "start_task_failed" if failure else "ready", now)
            return
        self.store.mark(job)
        # Batch tasks that waited for the job preparation task.
        for task in [task for task in node.tasks.values() if task.key[0] == job.key and task.state == "preparing"]:
            if failure and chore.spec["waitForSuccess"]:
                self.tasks.requeue(job, task, now, lost=False)
            else:
                self.tasks.start(job, task, node, now)

    def end(self, chore: Chore, failure: Json | None, now: datetime) -> None:
        """Complete a chore."""
        chore.move(states.CHORE, "end", now)
        chore.execution.failure = failure
        chore.execution.ended_at = now

    def vacate(self, node: Node, now: datetime) -> None:
        """Kill the chores of a node that goes down."""
        for run in list(node.runs.values()):
            if isinstance(run.owner, Chore):
                self.runs.kill(run)
                self.end(run.owner, NODE_ENDED, now)
                if run.job:
                    self.store.mark(run.job)


def is_ineligible(node: Node, job: Job) -> bool:
    """Whether the job preparation task failed on a node, so that no Batch task of the job may run there."""
    chore = node.preparations.get(job.key)
    return bool(chore and chore.execution.failure and chore.spec["waitForSuccess"])
