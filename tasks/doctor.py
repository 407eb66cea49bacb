"""The doctor: when Batch tasks wait and nothing moves, say what is wrong, and whether waiting can help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.batch_account import BatchAccount, Job, Node, Pool
from tasks.errors import NotFoundError, ServiceError
from tasks.models import BatchJob, Category, FileError

# Resize errors that pass by themselves: the service goes on trying.
# Source: Batch documentation, "Check for pool and node errors".
PASSING_RESIZE_CODES = frozenset({"AllocationFailed", "AllocationTimedout", "ResizeStopped"})

# States of a node that will not run Batch tasks again by itself.
LOST_NODE_STATES = frozenset({"starttaskfailed", "unusable"})

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


def examine(account: BatchAccount, job: BatchJob) -> Diagnosis | None:
    """Look at job, pool and nodes; None if nothing is wrong with them."""
    try:
        found_job = account.job(job.job_id)
    except NotFoundError:
        return _fatal(Category.CANCELLED, f"Job {job.job_id} was deleted by somebody else")
    if diagnosis := diagnose_job(found_job):
        return diagnosis
    try:
        pool = account.pool(job.pool_id)
    except NotFoundError:
        return _fatal(Category.NODE, f"Pool {job.pool_id} was deleted by somebody else")
    nodes = account.nodes(job.pool_id)
    diagnosis = diagnose_pool(pool, nodes, found_job.created_at)
    if diagnosis is None or diagnosis.fatal is None:
        return diagnosis
    failed = next((node for node in nodes if node.state == "starttaskfailed"), None)
    log = _start_task_log(account, pool.pool_id, failed) if failed else ""
    return _fatal(diagnosis.fatal.category, diagnosis.message.rstrip(".") + (f": {log}" if log else ""), stderr=log)


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


def _start_task_log(account: BatchAccount, pool_id: str, node: Node) -> str:
    """Read what the start task said last; a log that cannot be had changes no verdict."""
    try:
        text = account.node_file_tail(pool_id, node.node_id, "startup/stderr.txt")
    except ServiceError:
        return ""
    return " / ".join(text.strip().splitlines()[-LAST_LINES_OF_START_TASK:])


def _fatal(category: Category, sentence: str, stderr: str = "") -> Diagnosis:
    message = sentence[0].upper() + sentence[1:]
    return Diagnosis(message=f"{message}.", fatal=FileError(category=category, message=message, stderr=stderr))
