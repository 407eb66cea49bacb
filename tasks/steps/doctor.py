"""Diagnose why Batch tasks make no progress, and whether waiting can help."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.azure.batch import BatchAccount
from tasks.azure.values import Job, Node, Pool, Problem
from tasks.clock import service_time
from tasks.errors import NotFoundError, ServiceError
from tasks.model.run import BatchJob
from tasks.model.verdict import Category, FileError

# The service retries a resize after these errors, unless the provider of virtual machines rejected the request.
# Source: https://learn.microsoft.com/en-us/azure/batch/batch-pool-node-error-checking
TRANSIENT_RESIZE_CODES = frozenset({"AllocationFailed", "AllocationTimedout", "ResizeStopped"})

# Errors of the provider that a repetition repeats: an image that does not fit the VM size, a VM size that the region or
# the subscription does not have, a quota or a missing permission.
# Source: https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
INVALID_REQUEST_CODES = frozenset(
    {"BadRequest", "InvalidParameter", "AuthorizationFailed", "LinkedAuthorizationFailed"}
)
FATAL_PROVIDER_CODES = INVALID_REQUEST_CODES | {"SkuNotAvailable", "QuotaExceeded", "OperationNotAllowed"}

# Reasons that Batch itself gives for an allocation that a repetition cannot change.
# Source: https://learn.microsoft.com/troubleshoot/azure/hpc/batch/azure-batch-pool-resizing-failure
FATAL_REASON = re.compile("delegation|permission|not authorized|image is not found", re.IGNORECASE)

# Resize errors of spot nodes.
SPOT = re.compile("low.?priority|spot", re.IGNORECASE)

# After this time without a successful evaluation, three intervals, the autoscaling of the pool is restarted.
# Source: https://github.com/microsoft/ga4gh-tes/issues/409
MAX_TIME_WITHOUT_SCALING = timedelta(minutes=15)

# Nodes in these states run no Batch tasks until they are rebooted or replaced.
FAILED_NODE_STATES = frozenset({"starttaskfailed", "unusable"})

# Nodes in these states may recover by themselves, or when someone puts them back online.
ABSENT_NODE_STATES = frozenset({"preempted", "unknown", "offline"})

# A start task that failed for a transient reason, such as a package server that did not respond, usually succeeds after
# one reboot.
MAX_REBOOTS_PER_NODE = 1

MAX_START_TASK_LOG_LINES = 5


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A problem of a job, its pool or its nodes.

    Attributes:
        message: One sentence, with the error code of the service.
        fatal: The error of the remaining files if waiting cannot help; None if it can.
    """

    message: str
    fatal: FileError | None = None


class Doctor:
    """Examines the job of a run, its pool and its nodes, and reboots nodes whose start task failed."""

    def __init__(self, account: BatchAccount, job: BatchJob, *, own_pool: bool) -> None:
        """Create the doctor of one run.

        Args:
            account: The Batch account.
            job: The run's job.
            own_pool: Whether the run created the pool. The doctor does not reboot the nodes of other pools, and ignores
                their resize errors from before the job.
        """
        self._account = account
        self._job = job
        self._own_pool = own_pool
        self._reboots: Counter[str] = Counter()
        self._scaled_at: datetime | None = None

    def examine(self) -> Diagnosis | None:
        """Return the diagnosis; None if nothing is wrong.

        Raises:
            ServiceError: Batch did not respond.
        """
        try:
            job = self._account.get_job(self._job.job_id)
        except NotFoundError:
            return _fatal(Category.CANCELLED, f"Job `{self._job.job_id}` was deleted by someone else")
        if diagnosis := diagnose_job(job):
            return diagnosis
        return self._examine_pool(job.created_at)

    def job_end_reason(self) -> FileError | None:
        """Return why the job ended; None if it is active or cannot be read. This reads only the job."""
        with suppress(ServiceError):
            diagnosis = diagnose_job(self._account.get_job(self._job.job_id))
            return diagnosis.fatal if diagnosis else None
        return None

    def _examine_pool(self, job_created_at: datetime | None) -> Diagnosis | None:
        try:
            pool = self._account.get_pool(self._job.pool_id)
            nodes = self._account.list_nodes(self._job.pool_id)
        except NotFoundError:
            return _fatal(Category.NODE, f"Pool `{self._job.pool_id}` was deleted by someone else")
        scaling = self._examine_autoscale(pool)
        diagnosis = diagnose_pool(pool, nodes, None if self._own_pool else job_created_at) or scaling
        failed = [node for node in nodes if node.state == "starttaskfailed"]
        if diagnosis is None or not failed:
            return diagnosis
        log = self._start_task_log(failed[0])
        message = diagnosis.message.rstrip(".") + (f": {log}" if log else "")
        if rebooted := self._reboot(failed):
            return Diagnosis(message=f"{message}; rebooted {', '.join(rebooted)}.")
        if diagnosis.fatal is None:
            return diagnosis
        return _fatal(diagnosis.fatal.category, message, stderr=log)

    def _examine_autoscale(self, pool: Pool) -> Diagnosis | None:
        """Check that Batch evaluates the pool's formula. If it has not for 15 minutes, restart the run's own pool."""
        now = service_time()
        problem = pool.autoscale_problem
        # During a resize, the formula is not evaluated.
        evaluated_at = now if pool.allocation_state != "steady" else None if problem else pool.scaled_at
        self._scaled_at = max(filter(None, (self._scaled_at, evaluated_at)), default=now)
        is_overdue = self._own_pool and now - self._scaled_at > MAX_TIME_WITHOUT_SCALING
        if problem is None and not is_overdue:
            return None
        cause = f": {_reason(problem)}" if problem else ""
        message = f"Batch does not evaluate the autoscale formula of pool `{pool.pool_id}`{cause}"
        if not is_overdue:
            return Diagnosis(message=f"{message}; Batch will retry.")
        self._scaled_at = now
        try:
            self._account.restart_autoscale(pool.pool_id)
        except ServiceError as error:
            return Diagnosis(message=f"{message}. {error}")
        return Diagnosis(message=f"{message}; restarted the autoscaling.")

    def _reboot(self, nodes: Sequence[Node]) -> list[str]:
        """Reboot nodes that have reboots left, and return the ids of those that the service accepted."""
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
        """Read the last lines of a start task's stderr; empty if they cannot be read."""
        try:
            text = self._account.read_node_file_tail(self._job.pool_id, node.node_id, "startup/stderr.txt")
        except ServiceError:
            return ""
        return " / ".join(text.strip().splitlines()[-MAX_START_TASK_LOG_LINES:])


def diagnose_job(job: Job) -> Diagnosis | None:
    """Return why a job makes no progress; None if it is active."""
    if job.state in {"terminating", "completed"}:
        if job.terminate_reason == "MaxWallClockTimeExpiry":
            return _fatal(Category.WALL_CLOCK, f"Job `{job.job_id}` reached its time limit, the deadline of the run")
        return _fatal(Category.CANCELLED, f"Job `{job.job_id}` was terminated [{job.terminate_reason or job.state}]")
    if job.state == "deleting":
        return _fatal(Category.CANCELLED, f"Job `{job.job_id}` is being deleted by someone else")
    if job.state in {"disabling", "disabled"}:
        return Diagnosis(message=f"Job `{job.job_id}` is {job.state}. Enable it to continue the run.")
    return None


def diagnose_pool(pool: Pool, nodes: Sequence[Node], since: datetime | None = None) -> Diagnosis | None:
    """Return why nodes of a pool run no Batch tasks; None if nothing is wrong.

    Args:
        pool: The pool.
        nodes: Its nodes.
        since: When the job was created. An older pool still has the errors of its last resize, and those from before
            this time are ignored.
    """
    is_outdated = since is not None and pool.allocated_at is not None and pool.allocated_at < since
    if pool.state == "deleting":
        return _fatal(Category.NODE, f"Pool `{pool.pool_id}` is being deleted by someone else")
    failed = [node for node in nodes if node.state in FAILED_NODE_STATES]
    if nodes and len(failed) == len(nodes):
        if not any(map(_may_recover, nodes)):
            return _fatal(Category.NODE, _node_failure(pool, failed))
        return Diagnosis(message=f"{_capitalized(_node_failure(pool, failed))}; Batch tries to recover it.")
    shortage = pool.allocation_state == "steady" and pool.resize_problems and not is_outdated
    if shortage and not nodes:
        problem = next(filter(_is_fatal, pool.resize_problems), pool.resize_problems[0])
        sentence = f"Pool `{pool.pool_id}` has no nodes: {_reason(problem)}"
        if _is_fatal(problem):
            return _fatal(Category.NODE, sentence)
        return Diagnosis(
            message=f"{sentence}; {'dedicated nodes follow' if _is_of_spot(problem) else 'Batch will retry'}."
        )
    if failed:
        return Diagnosis(message=f"{len(failed)} of {len(nodes)} nodes failed: {_node_failure(pool, failed)}.")
    absent = Counter(node.state for node in nodes if node.state in ABSENT_NODE_STATES)
    if nodes and absent.total() == len(nodes):
        states = ", ".join(f"{count} {state}" for state, count in sorted(absent.items()))
        return Diagnosis(message=f"Pool `{pool.pool_id}` has no working nodes ({states}); waiting for one.")
    if shortage:
        reason = _reason(pool.resize_problems[0])
        return Diagnosis(message=f"Pool `{pool.pool_id}` has only {len(nodes)} of its nodes: {reason}.")
    return None


def _is_fatal(problem: Problem) -> bool:
    """Check whether a resize error remains. Without spot nodes, dedicated nodes do the work."""
    if problem.provider_code in INVALID_REQUEST_CODES or FATAL_REASON.search(problem.message):
        return True
    if _is_of_spot(problem):
        return False
    return problem.code not in TRANSIENT_RESIZE_CODES or problem.provider_code in FATAL_PROVIDER_CODES


def _reason(problem: Problem) -> str:
    return f"{problem.message.rstrip('.')} [{problem.code}]"


def _is_of_spot(problem: Problem) -> bool:
    return SPOT.search(f"{problem.code} {problem.message}") is not None


def _may_recover(node: Node) -> bool:
    """Check whether Batch has lost contact with a node, and tries to recover it. Other unusable nodes have an error.

    Source: https://learn.microsoft.com/azure/batch/batch-pool-node-error-checking
    """
    return node.state == "unusable" and not node.problems


def _capitalized(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _node_failure(pool: Pool, failed: Sequence[Node]) -> str:
    first = failed[0]
    if first.state == "starttaskfailed":
        return (
            f"the start task failed on node `{first.node_id}` of pool `{pool.pool_id}` "
            f"with exit code {first.start_task_exit_code} [StartTaskFailed]"
        )
    problem = first.problems[0] if first.problems else None
    cause = _reason(problem) if problem else "[unusable]"
    return f"node `{first.node_id}` of pool `{pool.pool_id}` is unusable: {cause}"


def _fatal(category: Category, sentence: str, stderr: str = "") -> Diagnosis:
    message = _capitalized(sentence)
    return Diagnosis(message=f"{message}.", fatal=FileError(category=category, message=message, stderr=stderr))
