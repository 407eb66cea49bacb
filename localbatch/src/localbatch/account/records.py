"""The records of a Batch account: data only. States change through `localbatch.account.states.advance` only."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeAlias

from localbatch.account.queues import Dependencies, FreeNodes, SortedRecords, TaskQueue
from localbatch.account.specs import ChoreSpec, JobSpec, Json, PoolSpec, ScheduleSpec, TaskSpec
from localbatch.account.states import Table, advance

# States of a node in which Batch tasks may start there.
SCHEDULABLE = frozenset({"idle", "running"})

# The length of recentTasks of a node.
MAX_RECENT_TASKS = 10


class Sample(NamedTuple):
    """One value of a service-defined variable, and when it was measured."""

    at: datetime
    value: float


@dataclass(kw_only=True)
class Stated:
    """A record with a state, and the instants of its last two transitions."""

    state: str
    state_at: datetime
    previous_state: str | None = None
    previous_state_at: datetime | None = None

    def move(self, table: Table, event: str, now: datetime) -> None:
        """Apply an event.

        Raises:
            IllegalTransition: The state does not allow it; nothing was changed.
        """
        state = advance(table, self.state, event)
        self.previous_state, self.previous_state_at = self.state, self.state_at
        self.state, self.state_at = state, now


@dataclass(kw_only=True)
class Execution:
    """The outcome of the attempts to run a task of any kind."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    failure: Json | None = None
    retry_count: int = 0
    last_retry_at: datetime | None = None
    requeue_count: int = 0
    last_requeue_at: datetime | None = None

    @property
    def result(self) -> str | None:
        """`success` or `failure` once it has ended."""
        # A retried attempt has an exit code, but no result.
        if self.ended_at is None:
            return None
        return "failure" if self.failure else "success"

    def may_retry(self, max_retries: int) -> bool:
        """Whether maxTaskRetryCount allows another attempt; -1 allows any number."""
        return max_retries < 0 or self.retry_count < max_retries

    def count_retry(self, now: datetime) -> None:
        """Count a retry after a failed attempt."""
        self.retry_count += 1
        self.last_retry_at = now


@dataclass(kw_only=True)
class Chore(Stated):
    """A start task, a job preparation task or a job release task on one node."""

    spec: ChoreSpec
    execution: Execution = field(default_factory=Execution)

    @property
    def max_retries(self) -> int:
        """Start tasks have the limit at the top level, job preparation tasks in `constraints`; others have none."""
        constraints = self.spec.get("constraints")
        return constraints["maxTaskRetryCount"] if constraints else self.spec.get("maxTaskRetryCount", 0)

    @property
    def max_wall_clock_time(self) -> str | None:
        """Job release tasks have the limit at the top level, job preparation tasks in `constraints`; others have none."""
        constraints = self.spec.get("constraints")
        return constraints["maxWallClockTime"] if constraints else self.spec.get("maxWallClockTime")


@dataclass(kw_only=True)
class Node(Stated):
    """A compute node of a pool."""

    id: str
    pool_id: str
    dedicated: bool
    slots: int
    allocated_at: datetime
    number: int = 0
    """The number of the node in its pool, which its endpoints have."""
    booted_at: datetime | None = None
    scheduling: str = "enabled"
    errors: list[Json] = field(default_factory=list)
    """The reasons why it is unusable."""
    start_task: Chore | None = None
    preparations: dict[str, Chore] = field(default_factory=dict)
    """By the key of the job."""
    releases: dict[str, Chore] = field(default_factory=dict)
    """By the key of the job."""
    tasks: dict[tuple[str, str], Task] = field(default_factory=dict)
    """The Batch tasks that hold slots here, by `Task.key`."""
    runs: dict[int, Run] = field(default_factory=dict)
    slots_used: int = 0
    tasks_run: int = 0
    tasks_succeeded: int = 0
    users: set[str] = field(default_factory=set)
    """The names of the users that clients added. They have no effect."""
    recent_tasks: deque[Task] = field(default_factory=lambda: deque(maxlen=MAX_RECENT_TASKS))

    @property
    def slots_free(self) -> int:
        """The slots that are free for Batch tasks."""
        # Running Batch tasks stay, but no others start.
        if self.scheduling == "disabled" or self.state not in SCHEDULABLE:
            return 0
        return self.slots - self.slots_used


@dataclass(kw_only=True)
class Pool(Stated):
    """A pool; `spec` has the properties that a client sent, with the defaults of the service."""

    id: str
    spec: PoolSpec
    etag: str
    created_at: datetime
    modified_at: datetime
    allocation: Stated
    target_dedicated: int = 0
    target_low_priority: int = 0
    has_ssh: bool = False
    """Whether nodes have an endpoint for SSH without a NAT pool."""
    deallocation_option: str = "requeue"
    resize_errors: list[Json] = field(default_factory=list)
    nodes: SortedRecords[Node] = field(default_factory=SortedRecords)
    free: FreeNodes[Node] = field(default_factory=FreeNodes)
    autoscale_run: Json | None = None
    autoscale_enabled_at: datetime | None = None
    autoscale_due_at: datetime | None = None
    sample_due_at: datetime | None = None
    first_sample_at: datetime | None = None
    samples: dict[str, deque[Sample]] = field(default_factory=dict)

    node_numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def targets(self) -> dict[bool, int]:
        """The target numbers of nodes, by whether they are dedicated."""
        return {True: self.target_dedicated, False: self.target_low_priority}

    def count_nodes(self, *, dedicated: bool) -> int:
        """Count the nodes of one kind, including those that are leaving."""
        return sum(node.dedicated == dedicated for node in self.nodes.values())


@dataclass(kw_only=True)
class Task(Stated):
    """A Batch task."""

    id: str
    key: tuple[str, str]
    """The keys of job and task in the store."""
    job_id: str
    spec: TaskSpec
    etag: str
    created_at: datetime
    slots: int
    max_retries: int
    modified_at: datetime | None = None
    """None until its properties change. State changes do not count."""
    is_exclusive: bool = False
    """Whether it needs a whole node."""
    slots_held: int = 0
    """The slots that it holds on its node."""
    position: int = 0
    """In the queue of its job."""
    unmet: int = 0
    """The number of its dependencies that are not satisfied."""
    files_removed: bool = False
    run: Run | None = None
    execution: Execution = field(default_factory=Execution)
    node: Node | None = None
    """The node of the last attempt, where it is also retried."""

    @property
    def max_wall_clock_time(self) -> str:
        """The limit of each attempt."""
        return self.spec["constraints"]["maxWallClockTime"]


@dataclass
class Counts:
    """Batch tasks of a job, or their slots, by state and result."""

    active: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def completed(self) -> int:
        """The sum of succeeded and failed."""
        return self.succeeded + self.failed


def count_name(task: Task) -> str:
    """Return the field of `Counts` for a Batch task. Preparing counts as running."""
    if task.state == "completed":
        return "failed" if task.execution.failure else "succeeded"
    return "active" if task.state == "active" else "running"


@dataclass(kw_only=True)
class Job(Stated):
    """A job, its Batch tasks, and running totals for task counts."""

    id: str
    key: str
    spec: JobSpec
    etag: str
    created_at: datetime
    modified_at: datetime
    expires_at: datetime | None
    auto_pool_id: str | None = None
    """The automatic pool that was created for this job."""
    ended_at: datetime | None = None
    terminate_reason: str | None = None
    scheduling_error: Json | None = None
    requested: tuple[str, str] | None = None
    """The event that the end of a Batch task requests, and its reason."""
    is_forced: bool = False
    """Whether it ends without waiting for job release tasks."""
    tasks: SortedRecords[Task] = field(default_factory=SortedRecords)
    waiting: TaskQueue[Task] = field(default_factory=TaskQueue)
    """Active Batch tasks whose dependencies are satisfied, in order."""
    dependencies: Dependencies[Task] = field(default_factory=Dependencies)
    placed: dict[str, Task] = field(default_factory=dict)
    """The Batch tasks that hold slots on nodes."""
    prepared: dict[str, Node] = field(default_factory=dict)
    """The nodes where its job preparation task has run."""
    task_counts: Counts = field(default_factory=Counts)
    slot_counts: Counts = field(default_factory=Counts)

    @property
    def pool_id(self) -> str:
        """The pool of the job, which need not exist. Empty if its automatic pool could not be created."""
        return self.auto_pool_id or str(self.spec["poolInfo"].get("poolId", ""))

    @property
    def schedule_key(self) -> str:
        """The key of the job schedule that created it, empty if a client did."""
        # Ids from clients have no colon.
        return self.key.partition(":")[0] if ":" in self.key else ""

    def count(self, task: Task, sign: int) -> None:
        """Add a Batch task to the totals, or with -1 remove it."""
        # taskCounts counts Batch tasks, taskSlotCounts their slots.
        name = count_name(task)
        for counts, amount in ((self.task_counts, 1), (self.slot_counts, task.slots)):
            setattr(counts, name, getattr(counts, name) + sign * amount)


@dataclass(kw_only=True)
class JobSchedule(Stated):
    """A job schedule, which creates jobs."""

    id: str
    key: str
    spec: ScheduleSpec
    etag: str
    created_at: datetime
    modified_at: datetime
    last_run_at: datetime | None = None
    """The instant of its latest opportunity to create a job, whether it was used or missed."""
    jobs_created: int = 0
    auto_pool_id: str | None = None
    """The automatic pool that its jobs share."""
    ended_at: datetime | None = None

    @property
    def recent_job_id(self) -> str | None:
        """The id of the job that it created last."""
        return f"{self.id}:job-{self.jobs_created}" if self.jobs_created else None


def task_directory(job_id: str, task_id: str) -> str:
    """Return the directory of a task of a job, relative to the root of its node."""
    return f"{job_directory(job_id)}/{task_id}"


def job_directory(job_id: str) -> str:
    """Return the directory of a job, relative to the root of its node."""
    # The ids of the jobs of a schedule are schedule:job-1, schedule:job-2 and so on.
    schedule_id, _, job = job_id.partition(":")
    return f"workitems/{schedule_id}/{job or 'job-1'}"


def preparation_directory(job: Job | None) -> str | None:
    """Return the directory of the job preparation task of a job, if it has one."""
    if not job or not job.spec.get("jobPreparationTask"):
        return None
    return task_directory(job.id, job.spec["jobPreparationTask"]["id"])


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at one task, in progress on a node."""

    id: int
    node: Node
    owner: Task | Chore
    job: Job | None
    """None for a start task."""
    expires_at: datetime | None
    upload_failure: str | None = None
    """The error code of its upload, if a fault makes it fail."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The end of a run: its exit code, the failure that prevented one, or both if only the upload failed."""

    run_id: int
    exit_code: int | None
    failure: Json | None = None


@dataclass(frozen=True, kw_only=True)
class StartRun:
    """Action: run a command line on a node."""

    run_id: int
    node: Node
    directory: str
    """The directory of the task, relative to the root of the node."""
    preparation_directory: str | None
    """The same of the job preparation task, if the job has one."""
    command_line: str
    environment: dict[str, str]
    resource_files: Iterable[Json]
    output_files: Iterable[Json]


@dataclass(frozen=True, kw_only=True)
class KillRun:
    """Action: kill a run. Its report is ignored."""

    run_id: int


@dataclass(frozen=True, kw_only=True)
class RemoveFiles:
    """Action: remove a directory of a node; an empty path means all its files."""

    node: Node
    directory: str


@dataclass(frozen=True, kw_only=True)
class UploadLog:
    """Action: upload the service log of a node to a container."""

    node: Node
    container_url: str
    name: str
    """The name of the blob."""
    by_identity: bool
    """Whether the node uses its identity instead of a signature in the URL."""


Action: TypeAlias = "StartRun | KillRun | RemoveFiles | UploadLog"
