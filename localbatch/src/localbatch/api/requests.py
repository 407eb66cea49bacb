"""Requests, as handlers see them: their body, their records, and their conditional headers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from localbatch import errors, wire
from localbatch.account.records import Job, JobSchedule, Node, Pool, Task
from localbatch.account.specs import Json
from localbatch.account.store import Store
from localbatch.api.properties import read_body
from localbatch.rules.scheduler import Scheduler

# The service refuses keys for bodies with these properties: https://github.com/Azure/aztk/pull/240 (a network) and
# https://github.com/MicrosoftDocs/azure-docs/issues/51092 (an image). The values are the types of the linked resources.
LINKED_RESOURCES: Mapping[str, str] = {"subnetId": "Network", "virtualMachineImageId": "Compute"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One authenticated request, and what its handler works on.

    Attributes:
        store: The records. The handler holds their lock.
        scheduler: The rules about them.
        root_of: Returns the root folder of a node.
        parameters: The parameters in the path.
        query: The parameters of the query, by names in lower case.
        headers: By names in lower case.
        has_key: Whether the key of the account signed the request, and not a token.
        base: The URL by which the client knows the account.
        raw_path: The path as received.
        raw_query: The query as received.
        now: The current time of the service.
    """

    store: Store
    scheduler: Scheduler
    root_of: Callable[[Node], Path]
    method: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    has_key: bool
    body: bytes
    base: str
    raw_path: str
    raw_query: str
    now: datetime

    def json(self, kind: str) -> Json:
        """Parse and read the body. An empty body is an empty object.

        Args:
            kind: The key of `known_properties.TYPES`.

        Raises:
            ServiceError: As `read_body`, or AuthenticationFailed for resources that need a token.
        """
        try:
            body = json.loads(self.body or b"{}", parse_constant=_refuse_constant)
            if b"\\u" in self.body:
                # Raises for half a surrogate pair, which a response could not contain.
                json.dumps(body, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise errors.invalid_request_body(Reason=error) from error
        if not isinstance(body, dict):
            raise errors.invalid_request_body(Reason="The body must be an object")
        # The service checks the values before the authentication.
        body = read_body(body, kind)
        if self.has_key and any(name.encode() in self.body for name in LINKED_RESOURCES):
            _refuse_linked_resources(body)
        return body

    def option(self, name: str) -> bool:
        """Whether a query parameter is true."""
        return self.query.get(name, "").lower() == "true"

    def url(self, record: Pool | Job | JobSchedule | Task | Node, action: str = "") -> str:
        """Return the URL of a record, or of an action on it."""
        if isinstance(record, Pool):
            return f"{self.base}/pools/{record.id}{action}"
        if isinstance(record, Job):
            return f"{self.base}/jobs/{record.id}{action}"
        if isinstance(record, JobSchedule):
            return f"{self.base}/jobschedules/{record.id}{action}"
        if isinstance(record, Task):
            return f"{self.base}/jobs/{record.job_id}/tasks/{record.id}{action}"
        return f"{self.base}/pools/{record.pool_id}/nodes/{record.id}{action}"

    def pool(self) -> Pool:
        """Return the pool in the path, and check the conditional headers."""
        pool = self.store.pool(self.parameters["pool_id"])
        _check_conditions(self, pool.etag, pool.modified_at)
        return pool

    def live_pool(self) -> Pool:
        """Return the pool in the path for a change. Raise PoolBeingDeleted if it is being deleted."""
        pool = self.pool()
        if pool.state == "deleting":
            raise errors.pool_being_deleted()
        return pool

    def node(self) -> Node:
        """Return the node in the path."""
        return self.store.node(self.parameters["pool_id"], self.parameters["node_id"])

    def job(self) -> Job:
        """Return the job in the path, and check the conditional headers."""
        job = self.store.job(self.parameters["job_id"])
        _check_conditions(self, job.etag, job.modified_at)
        return job

    def live_job(self) -> Job:
        """Return the job in the path for a change, as `check_live`."""
        job = self.job()
        check_live(job)
        return job

    def schedule(self) -> JobSchedule:
        """Return the job schedule in the path, and check the conditional headers."""
        schedule = self.store.schedule(self.parameters["job_schedule_id"])
        _check_conditions(self, schedule.etag, schedule.modified_at)
        return schedule

    def check_file(self, path: Path) -> None:
        """Check the conditional headers for a file, which has no etag."""
        _check_conditions(self, "", datetime.fromtimestamp(path.stat().st_mtime, timezone.utc))

    def task(self) -> Task:
        """Return the Batch task in the path, and check the conditional headers."""
        task = self.store.task(self.parameters["job_id"], self.parameters["task_id"])
        _check_conditions(self, task.etag, task.modified_at or task.created_at)
        return task


def check_live(job: Job) -> None:
    """Raise JobCompleted, JobBeingTerminated or JobBeingDeleted if a job can no longer be changed."""
    refusals = {
        "completed": errors.job_completed,
        "terminating": errors.job_being_terminated,
        "deleting": errors.job_being_deleted,
    }
    if job.state in refusals:
        refuse = refusals[job.state]
        raise refuse()


def _check_conditions(call: Call, etag: str, modified_at: datetime) -> None:
    """Raise ConditionNotMet if a conditional header does not hold. Clients may quote etags.

    https://learn.microsoft.com/rest/api/batchservice/specifying-conditional-headers
    """
    # All headers of the request must hold. The service refuses most combinations of them.
    match, none_match = call.headers.get("if-match"), call.headers.get("if-none-match")
    # Dates in headers have whole seconds.
    modified_at = modified_at.replace(microsecond=0)
    since, unmodified = call.headers.get("if-modified-since"), call.headers.get("if-unmodified-since")
    try:
        holds = (
            (match is None or match == "*" or match.strip('"') == etag)
            and (none_match is None or (none_match != "*" and none_match.strip('"') != etag))
            and (since is None or modified_at > wire.read_http_date(since))
            and (unmodified is None or modified_at <= wire.read_http_date(unmodified))
        )
    except ValueError as error:
        raise errors.invalid_header_value(Reason=error) from error
    # A failed condition is 304 for reads and 412 for changes.
    if not holds:
        raise errors.not_modified() if call.method in {"GET", "HEAD"} else errors.condition_not_met()


def _refuse_linked_resources(value: object) -> None:
    """Raise AuthenticationFailed for a reference to a resource of another Azure service."""
    if isinstance(value, dict):
        for name in LINKED_RESOURCES.keys() & value.keys():
            raise errors.authentication_failed(
                AuthenticationErrorDetail="The specified type of authentication SharedKey is not allowed when external "
                f"resources of type {LINKED_RESOURCES[name]} are linked."
            )
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_linked_resources(each)


def _refuse_constant(name: str) -> float:
    """Raise an error for NaN and infinities, which Python accepts and JSON does not have."""
    raise ValueError(f"{name} is not a JSON number")
