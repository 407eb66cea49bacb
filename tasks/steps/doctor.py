"""The doctor: when Batch tasks wait and nothing moves, say what is wrong, and whether waiting can help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from tasks.azure.batch import BatchAccount
from tasks.azure.values import Job, Node, Pool
from tasks.errors import NotFoundError, ServiceError
from tasks.model.run import BatchJob
from tasks.model.verdict import Category, FileError

# Resize errors that pass by themselves: the service goes on trying.
# Source: Batch documentation, "Check for pool and node errors".
PASSING_RESIZE_CODES = frozenset({"AllocationFailed", "AllocationTimedout", "ResizeStopped"})

# States of a node that will not run Batch tasks again by itself.
LOST_NODE_STATES = frozenset({"starttaskfailed", "unusable"})

# States of a node that may come back by itself, or when somebody lets it.
ABSENT_NODE_STATES = frozenset({"preempted", "unknown", "offline"})

# A start task that failed for a passing reason, such as a package server that did not answer, succeeds the next time.
MAX_REBOOTS_PER_NODE = 1

LAST_LINES_OF_START_TASK = 5


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        message: One sentence, with the service's code.
        fatal: Why the remaining files have no result, if waiting cannot help; None if it can.
    """

    message: str
    fatal: FileError | None = None


class Doctor:
    """Looks at a job, its pool and its nodes, and restarts nodes that this may mend."""

    def __init__(self, account: BatchAccount, job: BatchJob, *, own_pool: bool) -> None:
        """Make the doctor of one run.

        Args:
            account: Where job and pool are.
            job: The run's job.
            own_pool: Whether the run made the pool: an existing one has a past, and its nodes are left as they are.
        """
        self._account = account
        self._job = job
        self._own_pool = own_pool
        self._reboots: Counter[str] = Counter()

    def examine(self) -> Diagnosis | None:
        """Say what is wrong; None if nothing is.

        Raises:
            ServiceError: Batch did not answer.
        """
        try:
            job = self._account.job(self._job.job_id)
        except NotFoundError:
            return _fatal(Category.CANCELLED, f"Job {self._job.job_id} was deleted by somebody else")
        if diagnosis := diagnose_job(job):
            return diagnosis
        return self._examine_pool(job.created_at)

    def reason_of_jobs_end(self) -> FileError | None:
        """Say why the job has ended, if it has and that can be read; asked of the job alone."""
        with suppress(ServiceError):
            diagnosis = diagnose_job(self._account.job(self._job.job_id))
            return diagnosis.fatal if diagnosis else None
        return None

    def _examine_pool(self, job_created_at: datetime | None) -> Diagnosis | None:
        try:
            pool = self._account.pool(self._job.pool_id)
            nodes = self._account.nodes(self._job.pool_id)
        except NotFoundError:
            return _fatal(Category.NODE, f"Pool {self._job.pool_id} was deleted by somebody else")
        diagnosis = diagnose_pool(pool, nodes, None if self._own_pool else job_created_at)
        failed = [node for node in nodes if node.state == "starttaskfailed"]
        if diagnosis is None or not failed:
            return diagnosis
        log = self._start_task_log(failed[0])
        message = diagnosis.message.rstrip(".") + (f": {log}" if log else "")
        if rebooted := self._reboot(failed):
            return Diagnosis(message=f"{message}; restarted {', '.join(rebooted)}.")
        if diagnosis.fatal is None:
            return diagnosis
        return _fatal(diagnosis.fatal.category, message, stderr=log)

    def _reboot(self, nodes: Sequence[Node]) -> list[str]:
        """Restart nodes, each a bounded number of times; one that the service does not restart stays as it is."""
        rebooted: list[str] = []
        for node in nodes:
            if not self._own_pool or self._reboots[node.node_id] >= MAX_REBOOTS_PER_NODE:
                continue
            self._reboots[node.node_id] += 1
            try:
                self._account.reboot_node(self._job.pool_id, node.node_id)
            except ServiceError:
                continue
            rebooted.append(node.node_id)
        return rebooted

    def _start_task_log(self, node: Node) -> str:
        """Read what the start task said last; a log that cannot be had changes no verdict."""
        try:
            text = self._account.node_file_tail(self._job.pool_id, node.node_id, "startup/stderr.txt")
        except ServiceError:
            return ""
        return " / ".join(text.strip().splitlines()[-LAST_LINES_OF_START_TASK:])


def diagnose_job(job: Job) -> Diagnosis | None:
    """Say why a job does not go on."""
    if job.state in {"terminating", "completed"}:
        if job.terminate_reason == "MaxWallClockTimeExpiry":
            return _fatal(Category.WALL_CLOCK, f"Job {job.job_id} reached its wall clock, the deadline of the run")
        return _fatal(Category.CANCELLED, f"Job {job.job_id} was ended [{job.terminate_reason or job.state}]")
    if job.state == "deleting":
        return _fatal(Category.CANCELLED, f"Job {job.job_id} is being deleted by somebody else")
    if job.state in {"disabling", "disabled"}:
        return Diagnosis(message=f"Job {job.job_id} is {job.state}: it goes on when somebody enables it.")
    return None


def diagnose_pool(pool: Pool, nodes: Sequence[Node], since: datetime | None = None) -> Diagnosis | None:
    """Say why no node of a pool runs Batch tasks.

    Args:
        pool: The pool.
        nodes: Its nodes.
        since: When the job was created: a pool that served before keeps the errors of its last resize.
    """
    is_old_news = since is not None and pool.allocated_at is not None and pool.allocated_at < since
    if pool.state == "deleting":
        return _fatal(Category.NODE, f"Pool {pool.pool_id} is being deleted by somebody else")
    lost = [node for node in nodes if node.state in LOST_NODE_STATES]
    if nodes and len(lost) == len(nodes):
        return _fatal(Category.NODE, _lost_nodes(pool, lost))
    if not nodes and pool.allocation_state == "steady" and pool.resize_problems and not is_old_news:
        problem = pool.resize_problems[0]
        sentence = f"Pool {pool.pool_id} has no node: {problem.message.rstrip('.')} [{problem.code}]"
        if problem.code in PASSING_RESIZE_CODES:
            return Diagnosis(message=f"{sentence}; the service tries again.")
        return _fatal(Category.NODE, sentence)
    if lost:
        return Diagnosis(message=f"{len(lost)} of {len(nodes)} nodes are lost: {_lost_nodes(pool, lost)}.")
    absent = Counter(node.state for node in nodes if node.state in ABSENT_NODE_STATES)
    if nodes and absent.total() == len(nodes):
        states = ", ".join(f"{count} {state}" for state, count in sorted(absent.items()))
        return Diagnosis(message=f"Pool {pool.pool_id} has no node that works ({states}); waiting for one.")
    return None


def _lost_nodes(pool: Pool, lost: Sequence[Node]) -> str:
    first = lost[0]
    if first.state == "starttaskfailed":
        return (
            f"the start task failed on node {first.node_id} of pool {pool.pool_id} "
            f"with exit code {first.start_task_exit_code} [StartTaskFailed]"
        )
    problem = first.problems[0] if first.problems else None
    why = f"{problem.message.rstrip('.')} [{problem.code}]" if problem else "[unusable]"
    return f"node {first.node_id} of pool {pool.pool_id} is unusable: {why}"


def _fatal(category: Category, sentence: str, stderr: str = "") -> Diagnosis:
    message = sentence[0].upper() + sentence[1:]
    return Diagnosis(message=f"{message}.", fatal=FileError(category=category, message=message, stderr=stderr))
